"""Datasets of pictures with boxes and masks, in COCO's and its relatives' layouts: the reader that every probe uses.

Imports no torch. The layouts stand in rice.data.splits. Shapes: H, W one image.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rice.data.coco_json import Box, CocoAnnotation, CocoCategory, CocoImage, parse_coco
from rice.data.picture import open_picture, turned
from rice.data.segmentation import Mask, decode_segmentation
from rice.data.splits import Roles, SplitFiles, find_splits, fingerprint, role, scan
from rice.data.voc import parse_voc
from rice.errors import RiceError, nearest
from rice.files import safe_join

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


def open_split(root: Path, split: str | None = None) -> "CocoSplit":
    """Parse and check one split (`None`: the only one).

    Errors: RiceError in one line that names the file and the id: see `parse_coco` and `parse_voc`; a missing image
    file; a file name that leaves the image folder; an unknown split.
    """
    splits = find_splits(root)
    if split is None and len(splits) > 1:
        raise RiceError(f"expected the name of a split of {root}: one of {', '.join(splits)}")
    name = next(iter(splits)) if split is None else split
    if name not in splits:
        raise RiceError(f"no split {name!r} at {root}.{nearest(name, splits)} Found: {', '.join(splits)}")
    files = splits[name]
    parsed = parse_voc(files) if files.xml else parse_coco(files.annotations, files.folder)
    _check_images(files, parsed.images)
    return CocoSplit(files, parsed.images, parsed.categories, parsed.federated)


@dataclass(frozen=True, slots=True, eq=False)
class CocoSplit:
    """One split of a dataset, checked. Indices into `images` are the keys of everything else.

    federated: as LVIS, see rice.data.coco_json.
    """

    files: SplitFiles
    images: tuple[CocoImage, ...]
    categories: tuple[CocoCategory, ...]
    federated: bool = False

    @property
    def name(self) -> str:
        """As in the folder, e.g. `train2017`."""
        return self.files.name

    @property
    def has_masks(self) -> bool:
        """Whether there are annotations and all have a segmentation; VOC's and many of Roboflow's are boxes only."""
        found = [a.segmentation is not None for image in self.images for a in image.annotations]
        return bool(found) and all(found)

    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self.files)

    def load_image(self, index: int) -> Image.Image:
        """RGB picture `index`, of the annotated size; EXIF rotation is applied only where the sizes call for it.

        Errors: RiceError naming the file: not a picture, damaged, or of another size than annotated.
        """
        record = self.images[index]
        expected = (record.width, record.height)
        picture = turned(open_picture(record.path), expected)
        if picture.size != expected:
            says = self.files.describing(record.file_name)
            raise RiceError(
                f"{record.path} has {picture.width}x{picture.height} pixels, {says} says "
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

    def as_coco(self) -> dict[str, Any]:
        """The split as a COCO (LVIS, where federated) instances document, e.g. for pycocotools, from any layout.

        Ids, boxes (xywh) and segmentations are those of the file; what the file leaves out is filled in (area,
        iscrowd). It holds no pictures and may be changed.
        """
        ids = _Ids([image.id for image in self.images], [category.id for category in self.categories])
        return {
            "info": {"description": f"{self.files.annotations}"},
            "images": [ids.image(image, self.federated) for image in self.images],
            "annotations": [ids.annotation(a) for image in self.images for a in image.annotations],
            "categories": [ids.category(category) for category in self.categories],
        }

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


@dataclass(frozen=True, slots=True)
class _Ids:
    """From indices back to the ids of the file."""

    images: Sequence[int]
    categories: Sequence[int]

    def category(self, category: CocoCategory) -> dict[str, Any]:
        lvis = {"frequency": category.frequency, "image_count": category.image_count}
        known = {key: value for key, value in lvis.items() if value is not None}
        return {"id": category.id, "name": category.name, "supercategory": category.supercategory, **known}

    def image(self, image: CocoImage, federated: bool) -> dict[str, Any]:
        size = {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}
        if not federated:
            return size
        lists = {"neg_category_ids": image.negative, "not_exhaustive_category_ids": image.not_exhaustive}
        return size | {key: [self.categories[index] for index in indices] for key, indices in lists.items()}

    def annotation(self, annotation: CocoAnnotation) -> dict[str, Any]:
        return {
            "id": annotation.id,
            "image_id": self.images[annotation.image],
            "category_id": self.categories[annotation.category],
            "bbox": _xywh(annotation.box),
            "area": annotation.area,
            "iscrowd": int(annotation.iscrowd),
            **_segmentation(annotation.segmentation),
        }


def _xywh(box: Box) -> list[float]:
    """The very numbers of the file, as far as they have at most nine decimals, which adding and subtracting blurs."""
    x0, y0, x1, y1 = box
    sides = [(start, end, round(end - start, 9)) for start, end in ((x0, x1), (y0, y1))]
    return [x0, y0, *(short if start + short == end else end - start for start, end, short in sides)]


def _segmentation(value: Any) -> dict[str, Any]:
    """Polygons back from arrays to lists: JSON and pycocotools know no others."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {"segmentation": dict(value)}
    if not isinstance(value, list):
        return {"segmentation": value}  # what it is worth is said where a mask is asked for
    return {"segmentation": [polygon.tolist() if isinstance(polygon, array) else polygon for polygon in value]}


def _check_images(files: SplitFiles, images: tuple[CocoImage, ...]) -> None:
    """One scan instead of a `stat` per image. A name that the scan found cannot leave the folder."""
    present = {name for name, entry in scan(files.folder) if not entry.is_symlink()}
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
