"""COCO and LVIS annotation files as validated records: everything that comes from outside is checked here, once.

LVIS is federated: of each image it is known for some categories only whether they are there (`negative`, and what is
annotated), and for some of these (`not_exhaustive`) not all instances are annotated.

A file of 860,000 annotations (COCO 2017 train, 450 MB) is held as packed numbers, not as lists of Python floats.
Segmentations are decoded, and checked, when a mask is asked for (rice.data.segmentation).
"""

import contextlib
import math
import reprlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from rice.errors import RiceError
from rice.files import read_json

Box = tuple[float, float, float, float]

MAX_EDGE = 65_535
"""JPEG's limit. A larger size is a damaged file, and would be taken for memory to reserve."""

_LARGEST = 1e9
"""Coordinate. Beyond it a number is damaged, and arithmetic with it no longer exact."""

FREQUENCIES = ("r", "c", "f")

_NEGATIVE, _PARTIAL = "neg_category_ids", "not_exhaustive_category_ids"


@dataclass(frozen=True, slots=True)
class CocoCategory:
    """`index` is contiguous, 0..K-1 in order of the file's `id`s. Two categories may share a name (Roboflow does).

    LVIS only: frequency is "r", "c" or "f" (rare: on at most 10 training images, common: on at most 100, frequent);
    image_count is that number of images.
    """

    index: int
    id: int
    name: str
    supercategory: str
    frequency: str | None = None
    image_count: int | None = None


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """One instance.

    image: index into `images`, not COCO's image id; category: contiguous index, not COCO's category id.
    box: xyxy, image pixels, as annotated (it may reach outside the image; its sides may be zero).
    area: as annotated; the box's area where the file gives none. segmentation: COCO's own value, polygons packed as
    arrays, None where the file gives none.
    """

    id: int
    image: int
    category: int
    box: Box
    iscrowd: bool
    area: float
    segmentation: Any


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One picture; width and height in pixels, as annotated.

    LVIS only, category indices: negative are known to be absent; of not_exhaustive some instances lack an annotation.
    """

    id: int
    file_name: str
    path: Path
    width: int
    height: int
    annotations: tuple[CocoAnnotation, ...]
    negative: tuple[int, ...] = ()
    not_exhaustive: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CocoFile:
    """A parsed file. `images` carry their annotations; their paths are not checked yet.

    federated: as LVIS; categories that an image neither has nor names as negative may be there all the same.
    """

    images: tuple[CocoImage, ...]
    categories: tuple[CocoCategory, ...]
    federated: bool = False


def parse_coco(path: Path, folder: Path) -> CocoFile:
    """Parse and validate an annotation file whose images lie in `folder`.

    Errors: RiceError naming the file and the id: not JSON, wrong types, duplicate or unknown ids, sizes that are not
    positive, boxes that are not finite or have a negative side, LVIS' lists on some images only.
    """
    document = read_json(path, object_hook=_pack_polygons)
    if not isinstance(document, dict):
        raise RiceError(
            f"{path}: expected a COCO object with images, annotations and categories, got {_short(document)}"
        )
    categories = _categories(path, _entries(path, document, "categories"))
    category_of = {category.id: category.index for category in categories}
    records = list(_entries(path, document, "images"))
    federated = any(_NEGATIVE in record.value for record in records)
    images = [_image(record, folder, category_of if federated else None) for record in records]
    image_of = _index_ids(path, "image", (image.id for image in images))
    grouped: list[list[CocoAnnotation]] = [[] for _ in images]
    seen: set[int] = set()
    for record in _entries(path, document, "annotations"):
        annotation = _annotation(record, image_of, category_of)
        if annotation.id in seen:
            record.fail("expected ids that are used once")
        seen.add(annotation.id)
        grouped[annotation.image].append(annotation)
    complete = (replace(image, annotations=tuple(found)) for image, found in zip(images, grouped, strict=True))
    return CocoFile(tuple(complete), categories, federated)


def _pack_polygons(value: dict[str, Any]) -> dict[str, Any]:
    """Called by the JSON parser as each object closes, so that the lists of 43 million floats never pile up."""
    polygons = value.get("segmentation")
    if type(polygons) is list:
        with contextlib.suppress(TypeError, OverflowError):  # reported by decode_segmentation, with the annotation's id
            value["segmentation"] = [array("d", polygon) for polygon in polygons]
    return value


@dataclass(frozen=True, slots=True)
class _Record:
    """One JSON object and where it stands, for messages."""

    path: Path
    kind: str
    position: int
    value: dict[str, Any]

    def fail(self, problem: str) -> NoReturn:
        name = self.value.get("id", f"at position {self.position}")
        raise RiceError(f"{self.path}: {self.kind} {_short(name)}: {problem}")

    def integer(self, key: str) -> int:
        value = self.value.get(key)
        if type(value) is not int:  # bool is an int, but true is no id
            self.fail(f"expected an integer as {key}, got {_short(value)}")
        return value

    def text(self, key: str) -> str:
        value = self.value.get(key)
        if not isinstance(value, str) or not value:
            self.fail(f"expected text as {key}, got {_short(value)}")
        return value

    def finite(self, key: str, value: Any, largest: float = _LARGEST) -> float:
        if type(value) not in (int, float) or not abs(value) < math.inf or abs(value) > largest:
            self.fail(f"expected finite numbers in {key}, got {_short(value)}")
        return float(value)


def _entries(path: Path, document: dict[str, Any], key: str) -> Iterator[_Record]:
    values = document.get(key)
    if not isinstance(values, list):
        raise RiceError(f"{path}: expected a list as {key!r}, got {_short(values)}; is it a COCO instances file?")
    kind = {"categories": "category", "images": "image", "annotations": "annotation"}[key]
    for position, value in enumerate(values):
        if not isinstance(value, dict):
            raise RiceError(f"{path}: expected an object at position {position} of {key!r}, got {_short(value)}")
        yield _Record(path, kind, position, value)


def _categories(path: Path, records: Iterable[_Record]) -> tuple[CocoCategory, ...]:
    found = sorted((record.integer("id"), record.position, record) for record in records)
    _index_ids(path, "category", (id_ for id_, _, _ in found))
    return tuple(_category(index, record) for index, (_, _, record) in enumerate(found))


def _category(index: int, record: _Record) -> CocoCategory:
    group, frequency, count = (record.value.get(key) for key in ("supercategory", "frequency", "image_count"))
    if frequency is not None and frequency not in FREQUENCIES:
        record.fail(f"expected one of {', '.join(FREQUENCIES)} as frequency, got {_short(frequency)}")
    return CocoCategory(
        index=index,
        id=record.integer("id"),
        name=record.text("name"),
        supercategory=group if isinstance(group, str) else "",
        frequency=frequency,
        image_count=None if count is None else record.integer("image_count"),
    )


def _image(record: _Record, folder: Path, category_of: Mapping[int, int] | None) -> CocoImage:
    """category_of: None where the file is not federated."""
    width, height = record.integer("width"), record.integer("height")
    if not (0 < width <= MAX_EDGE and 0 < height <= MAX_EDGE):
        record.fail(f"expected a width and a height of 1 to {MAX_EDGE} pixels, got {_short(width)} x {_short(height)}")
    name = _file_name(record)
    lists = [() if category_of is None else _known_all(record, key, category_of) for key in (_NEGATIVE, _PARTIAL)]
    return CocoImage(record.integer("id"), name, folder / name, width, height, (), *lists)


def _file_name(record: _Record) -> str:
    """LVIS v1 has no `file_name`: its `coco_url` ends in FOLDER/FILE under COCO's root.

    LVIS v0.5 has COCO 2014's names for images of COCO 2017; there, too, the address is right.
    """
    name = record.value.get("file_name")
    renamed = isinstance(name, str) and name.startswith("COCO_") and _NEGATIVE in record.value
    if "coco_url" in record.value and (renamed or "file_name" not in record.value):
        return "/".join(record.text("coco_url").split("/")[-2:])
    return record.text("file_name")


def _annotation(record: _Record, image_of: Mapping[int, int], category_of: Mapping[int, int]) -> CocoAnnotation:
    box = _box(record)
    crowd = record.value.get("iscrowd", 0)
    if crowd not in (0, 1):
        record.fail(f"expected 0 or 1 as iscrowd, got {_short(crowd)}")
    area = record.value.get("area")
    return CocoAnnotation(
        id=record.integer("id"),
        image=_known(record, "image_id", image_of),
        category=_known(record, "category_id", category_of),
        box=box,
        iscrowd=bool(crowd),
        area=(box[2] - box[0]) * (box[3] - box[1]) if area is None else record.finite("area", area, _LARGEST**2),
        segmentation=record.value.get("segmentation") or None,
    )


def _box(record: _Record) -> Box:
    """The file's xywh as xyxy."""
    values = record.value.get("bbox")
    if not isinstance(values, list) or len(values) != 4:
        record.fail(f"expected [x, y, width, height] as bbox, got {_short(values)}")
    x, y, width, height = (record.finite("bbox", value) for value in values)
    if width < 0 or height < 0:
        record.fail(f"expected a bbox with sides of at least 0, got {_short(values)}")
    return (x, y, x + width, y + height)


def _known_all(record: _Record, key: str, index_of: Mapping[int, int]) -> tuple[int, ...]:
    values = record.value.get(key)
    if not isinstance(values, list):
        record.fail(f"expected a list of category ids as {key}, as in all of LVIS, got {_short(values)}")
    unknown = [value for value in values if type(value) is not int or value not in index_of]
    if unknown:
        record.fail(f"unknown category id {_short(unknown[0])} in {key}")
    return tuple(index_of[value] for value in values)


def _known(record: _Record, key: str, index_of: Mapping[int, int]) -> int:
    id_ = record.integer(key)
    if id_ not in index_of:
        record.fail(f"unknown {key} {_short(id_)}")
    return index_of[id_]


def _index_ids(path: Path, kind: str, ids: Iterable[int]) -> dict[int, int]:
    index_of: dict[int, int] = {}
    for index, id_ in enumerate(ids):
        if index_of.setdefault(id_, index) != index:
            raise RiceError(f"{path}: {kind} {_short(id_)}: expected ids that are used once")
    return index_of


_short: Callable[[Any], str] = reprlib.repr
