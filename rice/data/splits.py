"""Where the splits of a dataset lie, which of them trains and which one tests, and what identifies them.

Layouts:
    COCO, LVIS   ROOT/annotations/instances_{split}.json with ROOT/{split}/;  ROOT/annotations/lvis_*_{split}.json
    Roboflow     ROOT/{split}/_annotations.coco.json with the images beside it
    Pascal VOC   ROOT/ImageSets/Main/{split}.txt with ROOT/Annotations/ and ROOT/JPEGImages/;  ROOT/{split}/*.xml with
                 the images beside them (Roboflow's export). Looked for only where there is no JSON.
"""

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rice.errors import RiceError, os_errors_as
from rice.files import read_json, sha256_file, sha256_unchanged

_ROBOFLOW = "_annotations.coco.json"
_LISTS = Path("ImageSets", "Main")
_PRESENCE = {"-1", "0", "1"}
"""Second word of each line of VOC's lists of one class, such as `cat_train.txt`: absent, difficult, present."""


class NoDatasetError(RiceError):
    """A folder holds no dataset in a known layout."""


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """Where one split lies.

    annotations: the JSON file; VOC: the list of image names, or the folder of the XML files where there is no list.
    folder: what the annotations' file names are relative to. xml: VOC only, the folder of the split's own XML files,
    and then those of its sibling splits, which share its classes.
    """

    name: str
    annotations: Path
    folder: Path
    xml: tuple[Path, ...] = ()

    def describing(self, file_name: str) -> Path:
        """The file that says what is on this image, for messages."""
        return self.xml[0] / f"{stem(file_name)}.xml" if self.xml else self.annotations


class Roles(NamedTuple):
    """Names of the splits to learn from and to be judged on."""

    train: str
    test: str


def find_splits(root: Path) -> dict[str, SplitFiles]:
    """The splits under `root`, by name, in the order of their names; nothing is parsed.

    Errors: NoDatasetError when there is no dataset in a known layout; RiceError for a list that cannot be read.
    """
    if not root.is_dir():
        raise NoDatasetError(f"expected a dataset folder, found none at {root}")
    coco = {p.stem.removeprefix("instances_"): p for p in root.glob("annotations/instances_*.json")}
    lvis = {p.stem: p for p in root.glob("annotations/lvis_*.json")}
    roboflow = {p.parent.name: p for p in root.glob(f"*/{_ROBOFLOW}")}
    splits = [
        *(SplitFiles(name, path, root / name) for name, path in coco.items()),
        *(SplitFiles(name, path, root) for name, path in lvis.items()),
        *(SplitFiles(name, path, path.parent) for name, path in roboflow.items()),
    ]
    splits = splits or _voc_lists(root) or _voc_folders(root)
    if not splits:
        raise NoDatasetError(
            f"no dataset in COCO's layout at {root}: expected annotations/instances_SPLIT.json with SPLIT/, "
            f"or SPLIT/{_ROBOFLOW}; or in Pascal VOC's: {_LISTS}/SPLIT.txt with Annotations/ and JPEGImages/, "
            "or SPLIT/*.xml"
        )
    return {split.name: split for split in sorted(splits, key=lambda split: split.name)}


def _voc_lists(root: Path) -> list[SplitFiles]:
    images, xml = root / "JPEGImages", root / "Annotations"
    if not images.is_dir() or not xml.is_dir():
        return []
    lists = [path for path in (root / _LISTS).glob("*.txt") if not _names_one_class(path)]
    return [SplitFiles(path.stem, path, images, (xml,)) for path in lists]


def _names_one_class(path: Path) -> bool:
    first = next((line.split() for line in read_lines(path) if line.strip()), [])
    return len(first) == 2 and first[1] in _PRESENCE


def read_lines(path: Path) -> list[str]:
    """Lines of a small text file. Errors: RiceError naming it, where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RiceError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RiceError(f"{path}: expected text in UTF-8: {error}") from error


def _voc_folders(root: Path) -> list[SplitFiles]:
    """VOC's own Annotations/, left without lists, is no split: its images lie elsewhere."""
    folders = sorted(path.parent for path in _first_xml(root) if path.parent.name != "Annotations")
    return [SplitFiles(own.name, own, own, (own, *(f for f in folders if f != own))) for own in folders]


def _first_xml(root: Path) -> Iterator[Path]:
    for folder in root.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            yield from sorted(folder.glob("*.xml"))[:1]


def role(splits: Mapping[str, SplitFiles]) -> Roles:
    """Which split trains and which one tests: train*; test* where it has annotations, else val* or valid*.

    Errors: RiceError when one of them is missing.
    """
    train = _named("train", splits)
    tests = [name for name in _named("test", splits) if _has_annotations(splits[name])]
    tests = tests or _named("val", splits)
    if not train or not tests:
        raise RiceError(
            f"expected a train split and a test or val split, found {', '.join(splits)}; name them as train_split "
            "and test_split"
        )
    return Roles(train[0], tests[0])


def _named(word: str, splits: Mapping[str, SplitFiles]) -> list[str]:
    """`train2017` before `lvis_v1_train`, `train` before `trainval`."""
    pattern = re.compile(rf"(^|[_-]){word}", re.IGNORECASE)
    return sorted((n for n in splits if pattern.search(n)), key=lambda n: (not n.lower().startswith(word), n))


def _has_annotations(split: SplitFiles) -> bool:
    """VOC 2012 publishes the list of its test images without their annotations."""
    if split.xml:
        present = {stem(name) for name, _ in scan(split.xml[0]) if name.endswith(".xml")}
        listed = (line.strip() for line in read_lines(split.annotations)) if split.annotations.is_file() else present
        return any(name in present or stem(name) in present for name in listed)
    document = read_json(split.annotations)
    return isinstance(document, dict) and bool(document.get("annotations"))


def stem(name: str) -> str:
    """A relative name without its suffix, folders included: `a/b.c.jpg` -> `a/b.c`."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.name else name


def fingerprint(files: SplitFiles) -> str:
    """SHA-256 over the annotation files' bytes and the names and sizes of the files in the image folder.

    Opens no image and parses nothing, so that planning a sweep can afford it. VOC: over every XML file of the root,
    as all of them decide the classes.
    """
    digest = hashlib.sha256()
    if not files.annotations.is_dir():
        digest.update(sha256_unchanged(files.annotations).encode())  # COCO's has 450 MB, and a sweep asks once a cell
    for folder in files.xml:
        digest.update(_sha256_xml(folder).encode())
    for name, entry in _by_name(files.folder):
        digest.update(f"{name}\0{entry.stat().st_size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _sha256_xml(folder: Path) -> str:
    stats = hashlib.sha256()
    for name, entry in _by_name(folder):
        if name.endswith(".xml"):
            stat = entry.stat()
            stats.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return _sha256_xml_once(folder, stats.hexdigest())


@functools.lru_cache(maxsize=64)
def _sha256_xml_once(folder: Path, stats: str) -> str:
    """Pascal VOC has 17,000 files."""
    digest = hashlib.sha256()
    for name, entry in _by_name(folder):
        if name.endswith(".xml"):
            digest.update(f"{name}\0{sha256_file(Path(entry.path))}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _by_name(folder: Path) -> list[tuple[str, "os.DirEntry[str]"]]:
    return sorted(scan(folder), key=lambda pair: pair[0])


def scan(folder: Path, prefix: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """(relative name with slashes, entry) of every visible file; links are not followed out of `folder`'s own tree."""
    with os_errors_as(f"cannot list the image folder {folder}"), os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from scan(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry
