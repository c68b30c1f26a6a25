"""Datasets in COCO's layout: the reader that every probe uses. Imports no torch.

Shapes: H, W one image. Layouts:
    COCO, LVIS   ROOT/annotations/instances_{split}.json with ROOT/{split}/;  ROOT/annotations/lvis_*_{split}.json
    Roboflow     ROOT/{split}/_annotations.coco.json with the images beside it
"""

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rice.data.coco_json import CocoAnnotation, CocoCategory, CocoImage, parse_coco
from rice.data.picture import open_picture
from rice.data.segmentation import Mask, decode_segmentation
from rice.errors import RiceError, nearest
from rice.files import read_json, safe_join, sha256_file

__all__ = [
    "IGNORE",
    "CocoAnnotation",
    "CocoCategory",
    "CocoImage",
    "CocoSplit",
    "Roles",
    "SplitFiles",
    "find_splits",
    "fingerprint",
    "open_split",
    "role",
]

IGNORE = 65_535
"""Value of pixels in `semantic_map` that belong to a crowd and to no single instance."""

_ROBOFLOW = "_annotations.coco.json"
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """Where one split lies; `folder` is what the annotations' file names are relative to."""

    name: str
    annotations: Path
    folder: Path


class Roles(NamedTuple):
    """Names of the splits to learn from and to be judged on."""

    train: str
    test: str


def find_splits(root: Path) -> dict[str, SplitFiles]:
    """The splits under `root`, by name, in the order of their names; nothing is parsed.

    Errors: RiceError when there is no dataset in a known layout.
    """
    if not root.is_dir():
        raise RiceError(f"expected a dataset folder, found none at {root}")
    coco = {p.stem.removeprefix("instances_"): p for p in root.glob("annotations/instances_*.json")}
    lvis = {p.stem: p for p in root.glob("annotations/lvis_*.json")}
    roboflow = {p.parent.name: p for p in root.glob(f"*/{_ROBOFLOW}")}
    splits = [
        *(SplitFiles(name, path, root / name) for name, path in coco.items()),
        *(SplitFiles(name, path, root) for name, path in lvis.items()),
        *(SplitFiles(name, path, path.parent) for name, path in roboflow.items()),
    ]
    if not splits:
        raise RiceError(
            f"no dataset in COCO's layout at {root}: expected annotations/instances_SPLIT.json with SPLIT/, "
            f"or SPLIT/{_ROBOFLOW}"
        )
    return {split.name: split for split in sorted(splits, key=lambda split: split.name)}


def role(splits: Mapping[str, SplitFiles]) -> Roles:
    """Which split trains and which one tests: train*; test* where it has annotations, else val* or valid*.

    Errors: RiceError when one of them is missing.
    """
    train = _named("train", splits)
    tests = [name for name in _named("test", splits) if _has_annotations(splits[name])]
    tests = tests or _named("val", splits)
    if not train or not tests:
        raise RiceError(
            f"expected a train split and a test or val split, found {', '.join(splits)}; name them in the config"
        )
    return Roles(train[0], tests[0])


def _named(word: str, splits: Mapping[str, SplitFiles]) -> list[str]:
    """`train2017` before `lvis_v1_train`."""
    pattern = re.compile(rf"(^|[_-]){word}", re.IGNORECASE)
    return sorted((n for n in splits if pattern.search(n)), key=lambda n: (not n.lower().startswith(word), n))


def _has_annotations(split: SplitFiles) -> bool:
    document = read_json(split.annotations)
    return isinstance(document, dict) and bool(document.get("annotations"))


def open_split(root: Path, split: str | None = None) -> "CocoSplit":
    """Parse and check one split (`None`: the only one).

    Errors: RiceError in one line that names the file and the id: see `parse_coco`; a missing image file; a file name
    that leaves the image folder; an unknown split.
    """
    splits = find_splits(root)
    if split is None and len(splits) > 1:
        raise RiceError(f"expected the name of a split of {root}: one of {', '.join(splits)}")
    name = next(iter(splits)) if split is None else split
    if name not in splits:
        raise RiceError(f"no split {name!r} at {root}.{nearest(name, splits)} Found: {', '.join(splits)}")
    files = splits[name]
    parsed = parse_coco(files.annotations, files.folder)
    _check_images(files, parsed.images)
    return CocoSplit(files, parsed.images, parsed.categories)


@dataclass(frozen=True, slots=True, eq=False)
class CocoSplit:
    """One split of a dataset, checked. Indices into `images` are the keys of everything else."""

    files: SplitFiles
    images: tuple[CocoImage, ...]
    categories: tuple[CocoCategory, ...]

    @property
    def name(self) -> str:
        """As in the folder, e.g. `train2017`."""
        return self.files.name

    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.files)

    def load_image(self, index: int) -> Image.Image:
        """RGB picture `index`, of the annotated size; EXIF rotation is applied only where the sizes call for it.

        Errors: RiceError naming the file: not a picture, damaged, or of another size than annotated.
        """
        record = self.images[index]
        picture = open_picture(record.path)
        expected = (record.width, record.height)
        if picture.size != expected and picture.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        if picture.size != expected:
            raise RiceError(
                f"{record.path} has {picture.width}x{picture.height} pixels, {self.files.annotations} says "
                f"{record.width}x{record.height}; are the images resized, or of another version?"
            )
        return picture.convert("RGB")

    def mask(self, annotation: CocoAnnotation) -> Mask:
        """Bool (H, W): the pixels of one instance, as pycocotools' `annToMask`.

        Errors: RiceError naming the annotation: no segmentation, or a damaged one.
        """
        image = self.images[annotation.image]
        try:
            return decode_segmentation(annotation.segmentation, image.height, image.width)
        except ValueError as error:
            raise RiceError(f"{self.files.annotations}: annotation {annotation.id}: {error}") from error

    def semantic_map(self, index: int) -> NDArray[np.uint16]:
        """(H, W): 0 = background, k + 1 = category index k, 65535 = crowd.

        Smaller instances are painted over larger ones, so that they stay visible; crowds lie beneath all instances.
        Errors: as `mask`; more categories than the type holds.
        """
        if len(self.categories) >= IGNORE:
            raise RiceError(f"{self.files.annotations}: expected fewer than {IGNORE} categories")
        image = self.images[index]
        classes_HW = np.zeros((image.height, image.width), dtype=np.uint16)
        owner_area_HW = np.full((image.height, image.width), np.iinfo(np.int64).max)
        for annotation in image.annotations:
            mask_HW = self.mask(annotation)
            window = _bounds(mask_HW)
            area = image.height * image.width + 1 if annotation.iscrowd else np.count_nonzero(mask_HW)
            wins_hw = mask_HW[window] & (area <= owner_area_HW[window])  # on equal areas the later one, as a painter
            owner_area_HW[window][wins_hw] = area
            classes_HW[window][wins_hw] = IGNORE if annotation.iscrowd else annotation.category + 1
        return classes_HW


def fingerprint(files: SplitFiles) -> str:
    """SHA-256 over the annotation file's bytes and the names and sizes of the files in the image folder.

    Opens no image and parses nothing, so that planning a sweep can afford it.
    """
    stat = files.annotations.stat()
    digest = hashlib.sha256(_sha256_once(files.annotations, stat.st_size, stat.st_mtime_ns).encode())
    for name, entry in sorted(_scan(files.folder), key=lambda pair: pair[0]):
        digest.update(f"{name}\0{entry.stat().st_size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def _sha256_once(path: Path, size: int, modified: int) -> str:
    """COCO's file has 450 MB, and a sweep asks once a cell."""
    return sha256_file(path)


def _scan(folder: Path, prefix: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """(relative name with slashes, entry) of every visible file; links are not followed out of `folder`'s own tree."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise RiceError(f"cannot list the image folder {folder}: {error.strerror or error}") from error
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _scan(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry


def _check_images(files: SplitFiles, images: tuple[CocoImage, ...]) -> None:
    """One scan instead of a `stat` per image. A name that the scan found cannot leave the folder."""
    present = {name for name, entry in _scan(files.folder) if not entry.is_symlink()}
    odd = [image for image in images if image.file_name not in present]
    missing = [image for image in odd if not _exists(files, image)]
    if missing:
        first = missing[0]
        raise RiceError(
            f"{files.annotations}: image {first.id}: no file {first.file_name!r} in {files.folder} "
            f"({len(missing)} of {len(images)} image files are missing)"
        )


def _exists(files: SplitFiles, image: CocoImage) -> bool:
    try:
        return safe_join(files.folder, image.file_name).is_file()
    except RiceError as error:
        raise RiceError(f"{files.annotations}: image {image.id}: {error}") from error
    except (OSError, ValueError):  # too long for the file system, or not encodable
        return False


def _bounds(mask_HW: Mask) -> tuple[slice, slice]:
    """The smallest window that holds the mask: most instances are small, and whole-image operations are not."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
