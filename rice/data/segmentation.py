"""COCO's segmentations as masks: polygons, run lengths as numbers, run lengths as LEB128-like text.

Shapes: H, W the image. Run lengths go down the columns, background first (pycocotools' convention).

pycocotools turns polygons into run lengths. Those are decoded here, because pycocotools 2.0.11 leaves the pixels that a
short code does not reach uninitialised, and reads past the end of a code whose last byte asks for another one.
"""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_MIN_COORDINATES = 6
"""Fewer than three points enclose nothing; such polygons add no pixels (as in detectron2)."""

_MAX_RUN_BITS = 35
"""Seven characters; pycocotools itself keeps 32 bits."""


def decode_segmentation(segmentation: Any, height: int, width: int) -> Mask:
    """Bool mask (H, W) of one annotation's `segmentation`.

    Errors: ValueError that says what is wrong with it (the caller names the annotation).
    """
    if isinstance(segmentation, dict):
        return _decode_runs(segmentation, height, width)
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, (str, bytes)) and len(segmentation):
        return _fill_polygons(segmentation, height, width)
    raise ValueError(f"expected polygons or run lengths as segmentation, got {reprlib.repr(segmentation)}")


def encode_mask(mask_HW: Mask) -> dict[str, Any]:
    """A bool mask (H, W) as COCO's compressed run lengths, of JSON values; column-major memory is not copied."""
    from pycocotools import mask as rle

    code = rle.encode(np.asfortranarray(mask_HW).view(np.uint8))
    return {"size": [int(edge) for edge in code["size"]], "counts": code["counts"].decode("ascii")}


def encode_segmentation(segmentation: Any, height: int, width: int) -> str:
    """One annotation's `segmentation` as COCO's compressed run lengths (the text of `counts`), of no pixel perhaps.

    Besides what `decode_segmentation` takes, a list of run lengths, which is their union (refCLEF has them).
    Polygons and compressed run lengths are checked but not decoded on the way: sets have hundreds of thousands.
    Errors: ValueError, as there.
    """
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), str):
        _checked_runs(segmentation, height, width)
        return str(segmentation["counts"])
    if isinstance(segmentation, list) and segmentation and all(isinstance(part, dict) for part in segmentation):
        masks = [_decode_runs(part, height, width) for part in segmentation]
        return str(encode_mask(np.logical_or.reduce(masks))["counts"])
    if isinstance(segmentation, list) and segmentation and (code := _polygon_code(segmentation, height, width)):
        return bytes(code["counts"]).decode("ascii")
    return str(encode_mask(decode_segmentation(segmentation, height, width))["counts"])


def _fill_polygons(polygons: Sequence[Any], height: int, width: int) -> Mask:
    code = _polygon_code(polygons, height, width)
    return np.zeros((height, width), dtype=bool) if code is None else _decode_runs(code, height, width)


def _polygon_code(polygons: Sequence[Any], height: int, width: int) -> dict[str, Any] | None:
    """Run lengths of the union; None where no polygon encloses anything."""
    from pycocotools import mask as rle

    closed = [p for p in (_coordinates(p, height, width) for p in polygons) if len(p) >= _MIN_COORDINATES]
    return rle.merge(rle.frPyObjects(closed, height, width)) if closed else None


def _coordinates(polygon: Any, height: int, width: int) -> NDArray[np.float64]:
    """[x0, y0, x1, y1, ...]. pycocotools' C code trusts their number and their range."""
    try:
        values = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected a polygon [x, y, x, y, ...], got {reprlib.repr(polygon)}") from None
    if values.ndim != 1 or values.size % 2:
        raise ValueError(f"expected a polygon with an even number of coordinates, got {reprlib.repr(polygon)}")
    reach = max(height, width)  # slightly outside is common; an image size away is a unit error
    if not bool(np.all((values >= -reach) & (values <= 2 * reach))):  # False for NaN too
        raise ValueError(f"polygon leaves its {width}x{height} image by more than the image's size, or is not finite")
    return values


def _decode_runs(code: dict[str, Any], height: int, width: int) -> Mask:
    runs = _checked_runs(code, height, width)
    colours = np.arange(len(runs)) % 2 == 1
    return np.repeat(colours, runs).reshape(width, height).T


def _checked_runs(code: dict[str, Any], height: int, width: int) -> list[int]:
    if list(_numbers(code.get("size"))) != [height, width]:
        raise ValueError(f"expected run lengths of size [{height}, {width}], got {reprlib.repr(code.get('size'))}")
    counts = code.get("counts")
    runs = _unpack(counts) if isinstance(counts, (str, bytes)) else _numbers(counts)
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"expected run lengths that add up to {height * width} pixels, got {sum(runs)}")
    return runs


def _numbers(values: Any) -> list[int]:
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise ValueError(f"expected a list of integers in the run lengths, got {reprlib.repr(values)}")
    if not all(isinstance(value, int) for value in values):
        raise ValueError(f"expected integers in the run lengths, got {reprlib.repr(values)}")
    return [int(value) for value in values]


def _unpack(text: str | bytes) -> list[int]:
    """Run lengths of COCO's text form: 5 bits a character, bit 5 = continues, bit 4 of the last = negative;
    from the fourth on, each run is stored as its difference from the one two before (maskApi.c, rleFrString)."""
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise ValueError("run lengths hold characters outside ASCII") from None
    symbols = [byte - 48 for byte in raw]
    if not symbols or min(symbols) < 0 or max(symbols) > 63 or symbols[-1] & 32:
        raise ValueError(f"run lengths are not in COCO's text form: {reprlib.repr(text)}")
    runs: list[int] = []
    value = shift = 0
    for symbol in symbols:
        value |= (symbol & 31) << shift
        shift += 5
        if shift > _MAX_RUN_BITS:
            raise ValueError("a run length is larger than any image")
        if symbol & 32:
            continue
        if symbol & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
