"""Truth and predictions on their way into an evaluator: everything that comes from outside is checked here, once.

Boxes are xywh, image pixels, as in COCO's files.
"""

import functools
import itertools
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.detection.score_masks import Record, Size, check_masks
from rice.errors import RiceError
from rice.files import read_json

IouType = Literal["bbox", "segm"]

COCO_DETECTIONS = 100
"""COCO judges the best 100 detections of each category in an image."""

LVIS_DETECTIONS = 300
"""LVIS judges the best 300 detections of an image, all categories together."""

FREQUENCIES = ("r", "c", "f")
"""LVIS: rare, common and frequent by the number of training images."""

_LVIS_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
_MAX_EDGE = 65_535


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What is judged. The records are ours: engines may add keys to them.

    images, categories: of the truth, sorted by id.
    truth: in the file's order, with `id` from 1, `area`, `iscrowd`, and `bbox` or `segmentation` as `iou` needs.
    detections: in the file's order, with `id` from 1, `area`, `score`, and the same. No limit is applied yet.
    Both are of `images` only.
    """

    iou: IouType
    lvis: bool
    max_detections: int
    images: list[Record]
    categories: list[Record]
    truth: list[Record]
    detections: list[Record]
    notes: tuple[str, ...]

    def counts(self, instance: Record) -> bool:
        """Is it one to be found? Crowds (COCO), `ignore` and instances without area (LVIS) are not."""
        return not instance.get("ignore") and instance["area"] > 0 if self.lvis else not instance["iscrowd"]


def prepare(
    truth: Path | Mapping[str, Any],
    predictions: Path | Sequence[Mapping[str, Any]],
    *,
    iou: IouType,
    lvis: bool = False,
    max_detections: int | None = None,
    image_ids: Iterable[int] | None = None,
) -> Inputs:
    """Read and check; what is given as objects stays as it is.

    Errors: RiceError in one line: not JSON, wrong types, unknown or repeated ids, scores or boxes that are not finite,
    damaged masks, no masks where masks are to be judged, LVIS fields missing.
    """
    limit = max_detections if max_detections is not None else LVIS_DETECTIONS if lvis else COCO_DETECTIONS
    if limit < 1:
        raise RiceError(f"expected to judge at least 1 detection (--max-detections), got {limit}")
    reader = _Truth(truth, iou)
    if lvis:
        reader.check_lvis()
    judged = reader.judged(image_ids)
    return Inputs(
        iou=iou,
        lvis=lvis,
        max_detections=limit,
        images=[reader.images[id_] for id_ in sorted(judged)],
        categories=[reader.categories[id_] for id_ in sorted(reader.categories)],
        truth=reader.annotations(judged),
        detections=_detections(predictions, reader, judged),
        notes=tuple(reader.notes),
    )


class _Truth:
    """An annotation file. Only what scoring needs is asked for, which is less than training does (rice.data.coco)."""

    def __init__(self, source: Path | Mapping[str, Any], iou: IouType) -> None:
        self.name, self.iou = _name(source, "truth"), iou
        self.notes: list[str] = []
        document = read_json(source) if isinstance(source, Path) else source
        if not isinstance(document, Mapping):
            raise RiceError(
                f"{self.name}: expected a COCO object with images, annotations and categories, got {_short(document)}"
            )
        self._document, self._from_file = document, isinstance(source, Path)
        self.images = self._by_id("images", "image")
        self.categories = self._by_id("categories", "category")

    def judged(self, image_ids: Iterable[int] | None) -> set[int]:
        """Ids of the images to judge. Errors: RiceError for unknown ids, or none."""
        chosen = set(self.images if image_ids is None else image_ids)
        unknown = chosen - self.images.keys()
        if unknown:
            raise RiceError(f"{self.name}: {len(unknown)} of the images to judge are unknown, such as {min(unknown)}")
        if not chosen:
            raise RiceError(f"{self.name}: expected at least one image to judge")
        return chosen

    def annotations(self, judged: set[int]) -> list[Record]:
        """The judged images' instances."""
        records = self._records("annotations", [])
        _check_ids(records, "image_id", self.images, f"{self.name}: annotation")
        _check_ids(records, "category_id", self.categories, f"{self.name}: annotation")
        self._check_annotation_ids(records)
        if len(judged) < len(self.images):
            records = [record for record in records if record["image_id"] in judged]
        names = [record.get("id", "without id") for record in records]
        for number, (record, name) in enumerate(zip(records, names, strict=True), start=1):
            self._complete(record, name)
            record["id"] = number
        if self.iou == "segm":
            where = f"{self.name}: annotation"
            check_masks(records, self.sizes, lambda k: f"{where} {_short(names[k])}", encode_all=False)
        return records

    @functools.cached_property
    def sizes(self) -> dict[int, Size]:
        """Height and width by image id. Errors: RiceError when they cannot be a picture's."""
        return {id_: self._size(image) for id_, image in self.images.items()}

    def _size(self, image: Record) -> Size:
        height, width = image.get("height"), image.get("width")
        if not all(type(edge) is int and 0 < edge <= _MAX_EDGE for edge in (height, width)):
            raise RiceError(
                f"{self.name}: image {image['id']}: expected a height and a width of 1 to {_MAX_EDGE} pixels, "
                f"got {_short(height)} x {_short(width)}"
            )
        return height, width  # type: ignore[return-value] # just checked

    def check_lvis(self) -> None:
        """Errors: RiceError naming what LVIS's protocol needs and the file lacks."""
        hint = "; score a truth in COCO's protocol without --lvis"
        for id_, category in self.categories.items():
            if category.get("frequency") not in FREQUENCIES:
                given = _short(category.get("frequency"))
                raise RiceError(f"{self.name}: category {id_}: expected r, c or f as frequency, got {given}{hint}")
        for (id_, image), key in itertools.product(self.images.items(), _LVIS_LISTS):
            if not isinstance(image.get(key), list):
                raise RiceError(
                    f"{self.name}: image {id_}: expected a list as {key}, got {_short(image.get(key))}{hint}"
                )

    def _check_annotation_ids(self, records: list[Record]) -> None:
        ids = [record["id"] for record in records if "id" in record]
        if not set(map(type, ids)) <= {int}:
            odd = next(id_ for id_ in ids if type(id_) is not int)
            raise RiceError(f"{self.name}: annotation {_short(odd)}: expected an integer as id")
        if len(set(ids)) < len(ids):
            raise RiceError(
                f"{self.name}: annotation {Counter(ids).most_common(1)[0][0]}: expected ids that are used once"
            )
        if 0 in ids:
            self.notes.append(
                "annotation ids were counted from 1: the truth has an id 0, which pycocotools by itself takes for "
                "'not matched', so that finding that instance counts as an error"
            )

    def _complete(self, record: Record, name: Any) -> None:
        """Fill in what Roboflow's exports and other tools leave out."""
        box, area, crowd = record.get("bbox"), record.get("area"), record.get("iscrowd", 0)
        where = f"{self.name}: annotation {_short(name)}"
        if (self.iou == "bbox" or area is None) and not _is_box(box):
            raise RiceError(f"{where}: expected bbox as finite [x, y, width, height], sides >= 0, got {_short(box)}")
        if area is None:
            record["area"] = box[2] * box[3]  # type: ignore[index] # just checked
        elif not _is_number(area):
            raise RiceError(f"{where}: expected a finite number as area, got {_short(area)}")
        if crowd not in (0, 1):
            raise RiceError(f"{where}: expected 0 or 1 as iscrowd, got {_short(crowd)}")
        record["iscrowd"] = int(crowd)

    def _by_id(self, key: str, kind: str) -> dict[int, Record]:
        records = self._records(key, None)
        if not records:
            raise RiceError(f"{self.name}: expected at least one {kind}, found none")
        found: dict[int, Record] = {}
        for record in records:
            id_ = record.get("id")
            if type(id_) is not int:
                raise RiceError(f"{self.name}: expected an integer as id of each {kind}, got {_short(id_)}")
            if found.setdefault(id_, record) is not record:
                raise RiceError(f"{self.name}: {kind} {id_}: expected ids that are used once")
        return found

    def _records(self, key: str, default: Any) -> list[Record]:
        records = self._document.get(key, default)
        if not isinstance(records, Sequence) or isinstance(records, (str, bytes)):
            raise RiceError(
                f"{self.name}: expected a list as {key!r}, got {_short(records)}; is it a COCO instances file?"
            )
        return _own(records, self._from_file, f"{self.name}: {key}")


def _detections(source: Path | Sequence[Mapping[str, Any]], truth: _Truth, judged: set[int]) -> list[Record]:
    """As pycocotools' `loadRes`: when the first prediction has a box, areas are those of the boxes, for masks too."""
    name = _name(source, "predictions")
    document = read_json(source) if isinstance(source, Path) else source
    if not isinstance(document, Sequence) or isinstance(document, (str, bytes)):
        raise RiceError(
            f"{name}: expected a list of {{image_id, category_id, score, bbox or segmentation}}, "
            f"got {_short(document)}; is it in COCO's results format?"
        )
    records = _own(document, isinstance(source, Path), name)
    if not records:
        return records
    where = f"{name}: prediction"
    _check_ids(records, "image_id", truth.images, where)
    _check_ids(records, "category_id", truth.categories, where)
    _check_scores(records, where)
    boxed, masked = _has_box(records[0]), "segmentation" in records[0]
    if boxed or (truth.iou == "bbox" and not masked):
        areas_N = _check_boxes(records, where)
    if truth.iou == "segm" or not boxed:
        mask_areas_N = check_masks(records, truth.sizes, lambda k: f"{where} {k}", encode_all=True)
        areas_N = areas_N if boxed else mask_areas_N
    if truth.iou == "bbox" and not boxed:
        _add_boxes(records)
    for number, (record, area) in enumerate(zip(records, areas_N.tolist(), strict=True), start=1):
        record["id"], record["area"] = number, area
    if len(judged) < len(truth.images):
        records = [record for record in records if record["image_id"] in judged]
    return records


def _has_box(record: Record) -> bool:
    box = record.get("bbox")
    return isinstance(box, np.ndarray) or box not in (None, [])


def _check_scores(records: list[Record], where: str) -> None:
    scores = _numbers([record.get("score") for record in records])
    if scores is None or not np.isfinite(scores).all():
        k = next(k for k, record in enumerate(records) if not _is_number(record.get("score")))
        raise RiceError(f"{where} {k}: expected a finite number as score, got {_short(records[k].get('score'))}")
    for record, score in zip(records, scores.tolist(), strict=True):
        record["score"] = score


def _check_boxes(records: list[Record], where: str) -> NDArray[np.float64]:
    """Areas (N,). Errors: RiceError naming the first prediction whose box cannot be one."""
    boxes = [record.get("bbox") for record in records]
    boxes = [box if type(box) is list else box.tolist() if isinstance(box, np.ndarray) else box for box in boxes]
    lists = all(isinstance(box, (list, tuple)) and len(box) == 4 for box in boxes)
    flat = _numbers(list(itertools.chain.from_iterable(boxes))) if lists else None  # type: ignore[arg-type]
    boxes_N4 = None if flat is None else flat.reshape(-1, 4)
    if boxes_N4 is None or not (np.isfinite(boxes_N4).all() and (boxes_N4[:, 2:] >= 0).all()):
        k = next(k for k, box in enumerate(boxes) if not _is_box(box))
        raise RiceError(
            f"{where} {k}: expected bbox as finite [x, y, width, height], sides >= 0, got {_short(boxes[k])}"
        )
    for record, box in zip(records, boxes_N4.tolist(), strict=True):
        record["bbox"] = box
    areas_N: NDArray[np.float64] = boxes_N4[:, 2] * boxes_N4[:, 3]
    return areas_N


def _add_boxes(records: list[Record]) -> None:
    """Boxes around the masks, where predictions hold masks only."""
    from pycocotools import mask

    boxes_N4 = mask.toBbox([record["segmentation"] for record in records])
    for record, box in zip(records, boxes_N4.tolist(), strict=True):
        record["bbox"] = box


def _check_ids(records: list[Record], key: str, known: Container[int], where: str) -> None:
    """Errors: RiceError: how many are unknown, and the first."""
    ids = [record.get(key) for record in records]
    if not set(map(type, ids)) <= {int}:
        for k, (record, id_) in enumerate(zip(records, ids, strict=True)):
            if type(id_) is not int and not isinstance(id_, np.integer):
                raise RiceError(f"{where} {_place(record, k)}: expected an integer as {key}, got {_short(id_)}")
            record[key] = ids[k] = int(id_)
    unknown = {id_ for id_ in set(ids) if id_ not in known}
    if unknown:
        count = sum(id_ in unknown for id_ in ids)
        k = next(k for k, id_ in enumerate(ids) if id_ in unknown)
        raise RiceError(
            f"{where} {_place(records[k], k)}: unknown {key} {ids[k]} ({count} of {len(ids)} have one that the truth "
            "has not); are both of the same data set and split?"
        )


def _place(record: Record, k: int) -> str:
    """An annotation has an id; a prediction's place in its list is all that it has."""
    return _short(record["id"]) if "id" in record and "score" not in record else str(k)


def _own(records: Sequence[Any], from_file: bool, where: str) -> list[Record]:
    if set(map(type, records)) <= {dict} and from_file:
        return list(records)
    for k, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise RiceError(f"{where}: expected an object at position {k}, got {_short(record)}")
    return [dict(record) for record in records]


def _numbers(values: list[Any]) -> NDArray[np.float64] | None:
    """None when one of them is no number (text and truth values are none)."""
    kinds = set(map(type, values))
    if not all(issubclass(kind, (int, float, np.integer, np.floating)) and kind is not bool for kind in kinds):
        return None
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_box(value: Any) -> bool:
    box = value if isinstance(value, (list, tuple)) else ()
    return len(box) == 4 and all(map(_is_number, box)) and box[2] >= 0 and box[3] >= 0


def _name(source: Any, otherwise: str) -> str:
    return str(source) if isinstance(source, Path) else otherwise


_short: Callable[[Any], str] = reprlib.repr
