"""Segmentations on their way into an evaluator: checked, and brought to a form that every engine reads alike.

Shapes: N records, C characters of all codes, Q runs of all codes.

The engines decode run lengths in C and trust them: pycocotools 2.0.11 reads uninitialised memory where a code is cut
short. Half a million masks are too many for `rice.data.segmentation`, which decodes one at a time; it words the errors.
"""

import itertools
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rice.data.segmentation import decode_segmentation
from rice.errors import RiceError

Record = dict[str, Any]
Size = tuple[int, int]

_MIN_NUMBERS = 6
_MAX_RUN_CHARACTERS = 7
_CHUNK_CHARACTERS = 1 << 22


def check_masks(
    records: Sequence[Record], size_of: Mapping[int, Size], name: Callable[[int], str], *, encode_all: bool
) -> NDArray[np.float64]:
    """Check each record's `segmentation` against its image's size (height, width). Returns areas (N,), pixels.

    Uncompressed run lengths are compressed in place. Polygons stay for the engine to fill, with area 0 here, unless
    `encode_all`. `size_of`: image id -> height, width. `name` names record k in messages.
    Errors: RiceError: no segmentation; run lengths of another size than the image, or that do not cover it; polygons
    that are not finite or far outside the image.
    """
    areas_N = np.zeros(len(records))
    coded, codes, pixels = [], [], []
    for k, record in enumerate(records):
        size = size_of[record["image_id"]]
        segmentation = _engine_form(record.get("segmentation"), size, encode_all, partial(name, k))
        record["segmentation"] = segmentation
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            coded.append(k)
            codes.append(counts if isinstance(counts, bytes) else counts.encode("utf-8", "surrogatepass"))
            pixels.append(size[0] * size[1])
    if codes:
        foreground = foreground_pixels(codes, np.asarray(pixels))
        wrong = np.flatnonzero(foreground < 0)
        if len(wrong):
            first = coded[wrong[0]]
            _report(records[first], size_of[records[first]["image_id"]], name(first), len(wrong))
        areas_N[coded] = foreground
    return areas_N


def _engine_form(segmentation: Any, size: Size, encode_all: bool, name: Callable[[], str]) -> Any:
    if isinstance(segmentation, dict) and segmentation:
        if segmentation.get("size") != list(size) and segmentation.get("size") != size:
            raise RiceError(
                f"{name()}: expected run lengths of size {list(size)}, its image's height and width, "
                f"got {reprlib.repr(segmentation.get('size'))}"
            )
        if isinstance(segmentation.get("counts"), (str, bytes)):
            return segmentation
        _decode(segmentation, size, name)
        return _masks().frPyObjects(dict(segmentation), *size)
    if not isinstance(segmentation, list) or not segmentation:
        raise RiceError(
            f"{name()}: expected a segmentation (polygons or run lengths), got {reprlib.repr(segmentation)}; "
            "score the boxes with --iou bbox"
        )
    return _polygons(segmentation, size, encode_all, name)


def _polygons(polygons: list[Any], size: Size, encode_all: bool, name: Callable[[], str]) -> Any:
    """Polygons of fewer than three points add no pixels; where they come first, pycocotools fails on them."""
    polygons = [polygon.tolist() if isinstance(polygon, np.ndarray) else polygon for polygon in polygons]
    _check_coordinates(polygons, size, name)
    enclosing = [polygon for polygon in polygons if len(polygon) >= _MIN_NUMBERS]
    if not enclosing:
        return _masks().encode(np.zeros(size, dtype=np.uint8, order="F"))
    return _masks().merge(_masks().frPyObjects(enclosing, *size)) if encode_all else enclosing


def _check_coordinates(polygons: list[Any], size: Size, name: Callable[[], str]) -> None:
    reach = max(size)
    try:
        values = [value for polygon in polygons for value in polygon]
        fine = set(map(type, values)) <= {int, float} and all(len(polygon) % 2 == 0 for polygon in polygons)
        fine = fine and (not values or (min(values) >= -reach and max(values) <= 2 * reach))
        fine = fine and not any(value != value for value in values)  # NaN hides from min and max
    except TypeError:
        fine = False
    if not fine:
        _decode(polygons, size, name)
        raise RiceError(f"{name()}: expected polygons [[x, y, x, y, ...], ...], got {reprlib.repr(polygons)}")


def _decode(segmentation: Any, size: Size, name: Callable[[], str]) -> None:
    """Errors: RiceError in the words of `rice.data.segmentation`."""
    try:
        decode_segmentation(segmentation, *size)
    except ValueError as error:
        raise RiceError(f"{name()}: {error}") from error


def _report(record: Record, size: Size, name: str, count: int) -> None:
    others = f" ({count} masks are damaged)" if count > 1 else ""
    try:
        decode_segmentation(record["segmentation"], *size)
    except ValueError as error:
        raise RiceError(f"{name}: {error}{others}") from error
    raise RiceError(f"{name}: run lengths do not cover the image{others}")


def _masks() -> Any:
    from pycocotools import mask

    return mask


def foreground_pixels(codes: Sequence[bytes], pixels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Foreground pixels of COCO's compressed run lengths; -1 where a code is damaged or does not cover `pixels_N`."""
    lengths_N = np.fromiter(map(len, codes), dtype=np.int64, count=len(codes))
    chunk_N = np.cumsum(lengths_N) // _CHUNK_CHARACTERS
    bounds = [0, *(np.flatnonzero(np.diff(chunk_N)) + 1).tolist(), len(codes)]
    parts = [
        _decode_chunk(b"".join(codes[start:stop]), lengths_N[start:stop], pixels_N[start:stop])
        for start, stop in itertools.pairwise(bounds)
    ]
    return np.concatenate(parts)


def _decode_chunk(text: bytes, lengths_N: NDArray[np.int64], pixels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """5 bits a character, bit 5 = continues, bit 4 of the last = negative; from the fourth run of a code on, each is
    the difference from the one two before (maskApi.c, rleFrString)."""
    foreground_N = np.full(len(lengths_N), -1, dtype=np.int64)
    filled = np.flatnonzero(lengths_N)
    if not len(filled):
        return foreground_N
    symbols_C = np.frombuffer(text, dtype=np.uint8) - np.uint8(48)  # below 48 wraps round to above 63
    last_C = np.cumsum(lengths_N[filled]) - 1
    first_C = last_C - lengths_N[filled] + 1
    sound = np.maximum.reduceat(symbols_C, first_C) < 64
    sound &= symbols_C[last_C] & 32 == 0
    ends_C = symbols_C & 32 == 0
    ends_C[last_C] = True  # keeps a damaged code from running into its neighbour
    number_of_runs = np.add.reduceat(ends_C, first_C, dtype=np.int64)
    first_run = np.cumsum(number_of_runs) - number_of_runs
    runs_Q, width_Q = _stored_runs(symbols_C, np.flatnonzero(ends_C))
    sound &= np.maximum.reduceat(width_Q, first_run) <= _MAX_RUN_CHARACTERS
    place_Q = np.arange(len(runs_Q)) - np.repeat(first_run, number_of_runs)
    odd_Q = place_Q & 1 == 1
    _undo_differences(runs_Q, np.flatnonzero(odd_Q), number_of_runs // 2)
    _undo_differences(runs_Q, np.flatnonzero(~odd_Q & (place_Q > 0)), (number_of_runs - 1) // 2)
    sound &= np.minimum.reduceat(runs_Q, first_run) >= 0
    sound &= np.add.reduceat(runs_Q, first_run) == pixels_N[filled]
    foreground = np.add.reduceat(runs_Q * odd_Q, first_run)
    foreground_N[filled[sound]] = foreground[sound]
    return foreground_N


def _stored_runs(
    symbols_C: NDArray[np.uint8], last_Q: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers as stored and their widths in characters; `last_Q`: where each ends. Most have one or two characters."""
    width_Q = np.diff(last_Q, prepend=-1)
    first_Q = last_Q - width_Q + 1
    runs_Q = (symbols_C[first_Q] & 31).astype(np.int64)
    for place in range(1, _MAX_RUN_CHARACTERS):
        longer = np.flatnonzero(width_Q > place)
        if not len(longer):
            break
        runs_Q[longer] |= (symbols_C[first_Q[longer] + place] & 31).astype(np.int64) << 5 * place
    negative = np.flatnonzero(symbols_C[last_Q] & 16)
    runs_Q[negative] -= np.int64(1) << 5 * np.minimum(width_Q[negative], _MAX_RUN_CHARACTERS)
    return runs_Q, width_Q


def _undo_differences(runs_Q: NDArray[np.int64], chain: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
    """Replace the runs at `chain` by their cumulative sums, which start anew with each code (`lengths` of each)."""
    if not len(chain):
        return
    total = np.cumsum(runs_Q[chain])
    ends = np.cumsum(lengths)
    before = np.concatenate([[0], total])[ends - lengths]
    runs_Q[chain] = total - np.repeat(before, lengths)
