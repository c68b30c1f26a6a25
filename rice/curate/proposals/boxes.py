"""Annotations as proposals.

Shapes: R regions, H, W the picture.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rice.curate.proposals.proposer import Proposals
from rice.data.segmentation import decode_segmentation
from rice.errors import RiceError

_LARGEST = 2**63


def sa1b_proposals(document: object, width: int, height: int) -> Proposals:
    """The regions of one JSON file of SA-1B, for a picture of `width` x `height` pixels.

    Boxes are those of the masks (`segmentation`, run lengths); of an annotation without a mask, its `bbox` (xywh).
    A mask without a pixel has an empty box. Scores are `predicted_iou`, 1 where there is none.
    Errors: RiceError for another structure, or a mask of another size.
    """
    annotations = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(annotations, list):
        raise RiceError(f"expected SA-1B's {{'annotations': [...]}}, got {reprlib.repr(document)}")
    regions = [_region(annotation, index, width, height) for index, annotation in enumerate(annotations)]
    boxes_R4 = np.array([box for box, _ in regions], dtype=np.float64).reshape(-1, 4)
    return Proposals(boxes_R4, np.array([score for _, score in regions], dtype=np.float32))


def _region(annotation: Any, index: int, width: int, height: int) -> tuple[list[float], float]:
    where = f"SA-1B's annotation {index}"
    if not isinstance(annotation, dict):
        raise RiceError(f"{where}: expected an object, got {reprlib.repr(annotation)}")
    score = annotation.get("predicted_iou", 1.0)
    if not _is_number(score):
        raise RiceError(f"{where}: expected a number as predicted_iou, got {reprlib.repr(score)}")
    if annotation.get("segmentation") is None:
        return _given_box(annotation, where), float(score)
    try:
        mask_HW = decode_segmentation(annotation["segmentation"], height, width)
    except ValueError as error:
        raise RiceError(f"{where}: {error}") from error
    return _box_of(mask_HW), float(score)


def _given_box(annotation: Mapping[str, Any], where: str) -> list[float]:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise RiceError(f"{where}: expected a bbox [x, y, width, height], got {reprlib.repr(box)}")
    x, y, box_width, box_height = map(float, box)
    return [x, y, x + box_width, y + box_height]


def _is_number(value: object) -> bool:
    """JSON's true and false are none, nor is what no float holds; the filter counts what is not finite."""
    return isinstance(value, float) or (type(value) is int and abs(value) < _LARGEST)


def _box_of(mask_HW: NDArray[np.bool_]) -> list[float]:
    columns, rows = np.flatnonzero(mask_HW.any(axis=0)), np.flatnonzero(mask_HW.any(axis=1))
    if not len(columns):
        return [0.0, 0.0, 0.0, 0.0]
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
