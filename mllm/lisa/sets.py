"""The sets that lie under a data root, in LISA's own tree, and each prepared once into a folder of pictures.

    ROOT/refer_seg/NAME/{instances.json, refs(SPLITBY).p | grefs(SPLITBY).{json,p}}    mllm.lisa.refer
    ROOT/refer_seg/images/{mscoco/images/train2014, saiapr_tc-12}                      pictures (refclef: the latter)
    ROOT/{ade20k, cocostuff, mapillary}                                                mllm.lisa.semantic
    ROOT/vlpart/{pascal_part, paco}                                                    mllm.lisa.parts
    ROOT/reason_seg/ReasonSeg/{train, val, test}                                       mllm.lisa.reason
    ROOT/expressions.json or ROOT/FOLDER/expressions.json, ROOT/coco                   mllm.lisa.expressions

COCO beside ROOT will do for ROOT/expressions.json. Every one of these folders may be a link. Imports no torch.
"""

import functools
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from mllm.lisa.expressions import read_expressions, read_items
from mllm.lisa.parts import read_parts
from mllm.lisa.pictures import ABOUT, FORMAT, Picture, Pictures
from mllm.lisa.pictures_writer import Refusals, write_pictures
from mllm.lisa.reason import read_reason
from mllm.lisa.refer import in_split, read_refer, read_referents
from mllm.lisa.semantic import ade20k_names, cocostuff_names, mapillary_names, read_semantic
from rice.data.splits import scan
from rice.errors import RiceError
from rice.files import read_object, sha256_json, sha256_unchanged
from rice.progress import Progress

_EXPRESSIONS = "expressions.json"
COCO = "coco"
_TRAIN2017 = "coco/train2017"
TRAIN2014, _SAIAPR = "refer_seg/images/mscoco/images/train2014", "refer_seg/images/saiapr_tc-12"
_EXPRESSION_FILES = ("refs(*).p", "grefs(*).p", "grefs(*).json")
"""gRefCOCO's is there in both forms; the later one is taken."""

_USUAL = {"refcocog": "umd"}
"""Split-by that does not stand in the set's name; of the others it is "unc"."""

_AB = ("train", "val", "testA", "testB")
_PUBLISHED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("refclef", "unc"): (*_AB, "testC"),
    ("refclef", "berkeley"): ("train", "val", "test"),
    ("refcoco", "unc"): _AB,
    ("refcoco", "google"): ("train", "val", "test"),
    ("refcoco+", "unc"): _AB,
    ("refcocog", "google"): ("train", "val"),
    ("refcocog", "umd"): ("train", "val", "test"),
    ("grefcoco", "unc"): _AB,
}
"""Splits that the published files have. Reading one to see takes seconds, and a sweep asks often."""


class Read(Protocol):
    """Yields a set's pictures, counting what cannot be used in `refusals`. Errors: RiceError, as the set's module."""

    def __call__(self, *, refusals: Refusals, progress: Progress) -> Iterator[Picture]:
        """In the set's own order."""
        ...


@dataclass(frozen=True)
class Listing:
    """Digests of the files in a folder. `seen`: of names, sizes and times; `held`: of names and sizes, and of what JSON
    files say, which are annotations. Where and when files were put is not what was measured."""

    seen: str
    held: str


class Listings:
    """Of folders, each read once: many sets and all their splits share one, and some have 100,000 files."""

    def __init__(self) -> None:
        self._known: dict[Path, Listing] = {}

    def of(self, folder: Path) -> Listing:
        """Of a folder that is not there, that of an empty one: its pictures will be missing."""
        if folder not in self._known:
            self._known[folder] = _listing(folder)
        return self._known[folder]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One split of one set.

    files: what is read; folders: relative to the root, with pictures and label maps. read: yields its pictures.
    left_out: digest of the pictures that `mllm.lisa.leaks.without` keeps out of it. listings: of the folders, as they
    were when first asked for.
    """

    name: str
    kind: Literal["semantic", "refer", "reason"]
    split: str
    root: Path
    files: tuple[Path, ...]
    folders: tuple[str, ...]
    read: Read
    left_out: str = ""
    listings: Listings = field(default_factory=Listings, repr=False, compare=False)

    @property
    def full_name(self) -> str:
        """Name and split: "refcoco_testA"."""
        return f"{self.name}_{self.split}"

    def sources(self) -> dict[str, str]:
        """SHA-256 of every file, and of the names, sizes and times of the files in every folder."""
        return self._digests({folder: listing.seen for folder, listing in self._listings().items()})

    def fingerprint(self) -> str:
        """SHA-256 of what the set holds: of every file, and of names and sizes in every folder; opens no picture.

        A copy elsewhere, or one behind links, has the same.
        """
        held = {folder: listing.held for folder, listing in self._listings().items()}
        return sha256_json({"set": self.full_name, "sources": self._digests(held)})

    def _listings(self) -> dict[str, Listing]:
        return {folder: self.listings.of(self.root / folder) for folder in self.folders}

    def _digests(self, folders: Mapping[str, str]) -> dict[str, str]:
        files = {_relative(file, self.root): sha256_unchanged(file) for file in self.files}
        left_out = {"left out": self.left_out} if self.left_out else {}
        return files | {f"{folder}/": digest for folder, digest in folders.items()} | left_out


def find_sets(root: Path) -> list[DataSet]:
    """What is there, of all splits, in the order of the table above; nothing is parsed that is large.

    Errors: RiceError for files of another layout, and for two sets of one name.
    """
    finders = (_refer, _ade20k, _cocostuff, _mapillary, _pascal_part, _paco, _reason, _expressions)
    listings = Listings()
    found: dict[str, DataSet] = {}
    for one in (one for find in finders for one in find(root)):
        twin = found.setdefault(one.full_name, replace(one, listings=listings))
        if twin.read is not one.read:
            raise _two_of_one_name(twin, one)
    return list(found.values())


def _two_of_one_name(first: DataSet, second: DataSet) -> RiceError:
    own, other = (
        ", ".join(str(file) for file in one.files if file not in another.files)
        for one, another in ((first, second), (second, first))
    )
    return RiceError(f"expected one set called {first.full_name}, found two: {own}, and {other}; move one elsewhere")


def prepare(dataset: DataSet, folder: Path, progress: Progress) -> Pictures:
    """The set's pictures in FOLDER: read and checked now, or what lies there where the sources are the same still.

    Errors: RiceError for files of another layout, and where nothing of the set can be used.
    """
    sources = dataset.sources()
    if not _is_of(dataset, folder, sources):
        about = {
            "name": dataset.name,
            "kind": dataset.kind,
            "split": dataset.split,
            "root": str(dataset.root.absolute()),
            "folders": list(dataset.folders),
            "sources": sources,
        }
        refusals = Refusals()
        write_pictures(folder, about, dataset.read(refusals=refusals, progress=progress), refusals)
    return Pictures(folder, dataset.root)


def _is_of(dataset: DataSet, folder: Path, sources: Mapping[str, str]) -> bool:
    if not (folder / ABOUT).is_file():
        return False
    found: dict[str, Any] = read_object(folder / ABOUT)
    same = (found.get("name"), found.get("split"), found.get("sources")) == (dataset.name, dataset.split, sources)
    return same and found.get("format") == FORMAT


def _refer(root: Path) -> Iterator[DataSet]:
    for instances in sorted(root.glob("refer_seg/*/instances.json")):
        folder = instances.parent
        images = _SAIAPR if folder.name == "refclef" else TRAIN2014
        found = {path.stem: path for kind in _EXPRESSION_FILES for path in folder.glob(kind)}
        for refs in sorted(found.values()):
            by = refs.name.partition("(")[2].partition(")")[0]
            name = folder.name if by == _USUAL.get(folder.name, "unc") else f"{folder.name}_{by}"
            published = _PUBLISHED.get((folder.name, by))
            for split in _splits(refs, published):
                if split == "train" and published is not None and by != _USUAL.get(folder.name, "unc"):
                    continue  # most of what the usual file is judged on: they cut the same referents in two ways
                read = functools.partial(read_refer, refs, instances, split, root=root, source=name, images=images)
                yield DataSet(
                    name=name,
                    kind="refer",
                    split=split,
                    root=root,
                    files=(refs, instances),
                    folders=(images,),
                    read=read,
                )


def _splits(refs: Path, published: tuple[str, ...] | None) -> list[str]:
    """Of published files those whose name stands in the file as a word (after it may come the pickle's opcodes q and
    r); of others those that its referents have."""
    if published is not None:
        data = refs.read_bytes()
        return [split for split in published if _stands(split, data)]
    referents = read_referents(refs)
    return [split for split in (*_AB, "testC", "test") if any(in_split(one, split) for one in referents)]


def _stands(word: str, data: bytes) -> bool:
    """A look behind within the expression would keep it from searching for the word itself, which is ten times as
    fast."""
    found = (
        data[max(one.start() - 1, 0) : one.start()] for one in re.finditer(f"{word}(?![0-9a-ps-z])".encode(), data)
    )
    return any(not (before.islower() or before.isdigit() or before == b"_") for before in found)


def _ade20k(root: Path) -> Iterator[DataSet]:
    table, images, labels = (
        root / "ade20k" / "objectInfo150.txt",
        "ade20k/images/training",
        "ade20k/annotations/training",
    )
    if (root / labels).is_dir():
        yield _semantic(root, "ade20k", lambda: ade20k_names(table), table, images, labels)


def _cocostuff(root: Path) -> Iterator[DataSet]:
    table, labels = root / "cocostuff" / "labels.txt", "cocostuff/train2017"
    if (root / labels).is_dir():
        yield _semantic(root, "cocostuff", lambda: cocostuff_names(table), table, _TRAIN2017, labels)


def _mapillary(root: Path) -> Iterator[DataSet]:
    table, images, labels = (
        root / "mapillary" / "config_v2.0.json",
        "mapillary/training/images",
        "mapillary/training/v2.0/labels",
    )
    if (root / labels).is_dir():
        yield _semantic(root, "mapillary", lambda: mapillary_names(_there(table)), table, images, labels)


def _there(table: Path) -> Path:
    """Asked when the set is read: what is only judged on other sets needs no names of this one."""
    if not table.is_file():
        raise RiceError(f"expected the names of classes at {table}, found no such file; it lies in the set's archive")
    return table


def _semantic(
    root: Path, name: str, names: Callable[[], dict[int, str]], table: Path, images: str, labels: str
) -> DataSet:
    files = (table,) if table.is_file() else ()

    def read(*, refusals: Refusals, progress: Progress) -> Iterator[Picture]:
        return read_semantic(
            root, names(), source=name, images=images, labels=labels, refusals=refusals, progress=progress
        )

    return DataSet(
        name=name, kind="semantic", split="train", root=root, files=files, folders=(images, labels), read=read
    )


def _pascal_part(root: Path) -> Iterator[DataSet]:
    annotations, images = root / "vlpart/pascal_part/train.json", "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages"
    if annotations.is_file():
        yield _parts(root, "pascal_part", annotations, images, ("",))


def _paco(root: Path) -> Iterator[DataSet]:
    annotations, parts = root / "vlpart/paco/annotations/paco_lvis_v1_train.json", ("train2017", "val2017")
    if annotations.is_file():
        there = tuple(part for part in parts if (root / "coco" / part).is_dir())
        yield _parts(root, "paco", annotations, COCO, there)


def _parts(root: Path, name: str, annotations: Path, images: str, parts: tuple[str, ...]) -> DataSet:
    read = functools.partial(read_parts, root, annotations, source=name, images=images, parts=parts)
    folders = tuple(f"{images}/{part}".rstrip("/") for part in parts)
    return DataSet(
        name=name, kind="semantic", split="train", root=root, files=(annotations,), folders=folders, read=read
    )


def _reason(root: Path) -> Iterator[DataSet]:
    explained = root / "reason_seg/ReasonSeg/explanatory/train.json"
    for split in ("train", "val", "test"):
        folder = f"reason_seg/ReasonSeg/{split}"
        if (root / folder).is_dir():
            has = split == "train" and explained.is_file()
            read = functools.partial(
                read_reason, root, source="reasonseg", images=folder, explanations=explained if has else None
            )
            files = (explained,) if has else ()
            yield DataSet(
                name="reasonseg", kind="reason", split=split, root=root, files=files, folders=(folder,), read=read
            )


def _expressions(root: Path) -> Iterator[DataSet]:
    found = [path for path in (root / _EXPRESSIONS, *sorted(root.glob(f"*/{_EXPRESSIONS}"))) if path.is_file()]
    if len(found) > 1:
        raise RiceError(f"expected one file {_EXPRESSIONS} in {root}, found {len(found)}; move the others elsewhere")
    beside = root if (root / "coco").is_dir() else root.parent
    for path in found if (beside / "coco" / "annotations").is_dir() else ():
        items = read_items(path)
        for folder in dict.fromkeys(item.folder for item in items):
            instances = beside / "coco" / "annotations" / f"instances_{folder}.json"
            yield DataSet(
                name="expressions",
                kind="refer",
                split=folder.rstrip("0123456789"),
                root=beside,
                files=(path, instances),
                folders=(f"coco/{folder}",),
                read=functools.partial(
                    read_expressions, beside, items, source="expressions", coco="coco", folder=folder
                ),
            )


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _listing(folder: Path) -> Listing:
    entries = sorted(scan(folder), key=lambda pair: pair[0]) if folder.is_dir() else []
    seen, held = [], []
    for name, entry in entries:
        try:
            status = entry.stat()
        except OSError:  # a link that leads nowhere: no file
            continue
        if stat.S_ISREG(status.st_mode):
            words = sha256_unchanged(Path(entry.path)) if name.endswith(".json") else ""
            seen.append((ascii(name), status.st_size, status.st_mtime_ns))
            held.append((ascii(name), status.st_size, words))
    return Listing(sha256_json(seen), sha256_json(held))
