"""Frame by frame, how near a prediction is to the truth, by each toolkit's own rules.

Shapes: N frames of the truth, M of the prediction. Boxes are x, y, width, height in the benchmark's own coordinates:
LaSOT counts pixels from 1, and whether x is over 0 matters to some toolkits. Orders of operations are the toolkits'
too, since a last bit decides at a threshold.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rice.errors import RiceError
from tracking.protocols import Protocol, Values_N
from tracking.sequence import Boxes_N4, Flags_N

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """One sequence. boxes: (N, 4), not finite or without an area where the benchmark has none.

    absent: (N,) the target is not to be seen. cover: (N,) GOT-10k's visible share in eighths. size: width, height of
    the frames in pixels. None where they are not given.
    """

    boxes: Boxes_N4
    absent: Flags_N | None = None
    cover: NDArray[np.int64] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """The frames of one sequence that a toolkit looks at, K of them.

    overlap, error (px), norm_error: (K,); NaN passes no threshold. length: what hits are divided by.
    counted: frames with a truth to be found. remarks: what was done to the sequence, for people.
    """

    overlap: Values_N
    error: Values_N
    norm_error: Values_N
    length: float
    counted: int
    remarks: tuple[str, ...] = ()


def frames_of(protocol: Protocol, name: str, truth: Truth, prediction_M4: Boxes_N4 | None) -> Frames:
    """By `protocol`'s rules. None is a missing file, which only `trackingnet` forgives.

    Errors: RiceError naming the sequence and the frame, where the toolkit itself stops.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if prediction_M4 is None and protocol != "trackingnet":
            raise RiceError(f"{name}: expected predictions, got none")
        prediction_M4 = np.zeros_like(truth.boxes) if prediction_M4 is None else prediction_M4
        return _TOOLKITS[protocol](name, truth, prediction_M4)


def _matlab(name: str, truth: Truth, prediction_M4: Boxes_N4) -> Frames:
    """LaSOT's and TNL2K's toolkits. A frame without a valid truth has the error -1, a hit."""
    boxes_N4, absent_N = truth.boxes, _absent(truth)
    prediction_N4, remarks = _cut(name, boxes_N4, prediction_M4)
    bad_N = _has_nan(prediction_N4) | (prediction_N4[:, 2:] <= 0).any(axis=1)
    prediction_N4 = _repeat_previous(prediction_N4, bad_N & ~_has_nan(boxes_N4))
    prediction_N4[0] = boxes_N4[0]
    valid_N = (boxes_N4 > 0).all(axis=1)
    overlap_N = np.where(valid_N, _inclusive_iou(prediction_N4, boxes_N4, skip_nan=True), -1.0)
    error_N = np.where(valid_N, _distance(_centres(prediction_N4), _centres(boxes_N4)), -1.0)
    norm_N = np.where(valid_N, _norm_distance(prediction_N4, boxes_N4), -1.0)
    if (~valid_N & ~absent_N).any():
        remarks += ("frames that are not absent and have no valid truth hit in both precisions",)
    return Frames(
        overlap=overlap_N[~absent_N],
        error=error_N[~absent_N],
        norm_error=norm_N[~absent_N],
        length=len(boxes_N4) + _EPS,
        counted=int((valid_N & ~absent_N).sum()),
        remarks=remarks,
    )


def _pytracking(name: str, truth: Truth, prediction_M4: Boxes_N4, first_value: int = 0) -> Frames:
    """A truth is valid when its values from `first_value` on are over 0. Absent flags switch to its LaSOT rules."""
    boxes_N4 = truth.boxes
    _refuse(_has_nan(boxes_N4), name, "a truth without NaN", boxes_N4)
    _refuse(_has_nan(prediction_M4), name, "a prediction without NaN", prediction_M4)
    _refuse(np.any(prediction_M4[:, 2:] < 0, axis=1), name, "a prediction with width and height >= 0", prediction_M4)
    prediction_N4, remarks = _cut(name, boxes_N4, prediction_M4, short=truth.absent is None)
    zero_M = (prediction_N4[:, 2:] == 0).any(axis=1)
    prediction_N4, padding = _pad(_repeat_previous(prediction_N4, zero_M), len(boxes_N4), 0.0)
    prediction_N4[0] = boxes_N4[0]
    absent_N = _absent(truth)
    valid_N = (boxes_N4[:, first_value:] > 0).all(axis=1) & ~absent_N
    overlap_N = np.where(valid_N, _inclusive_iou(prediction_N4, boxes_N4, skip_nan=False), -1.0)
    _refuse(np.isnan(overlap_N), name, "a prediction that is not infinite", prediction_N4)
    norm_N = np.where(valid_N, _norm_distance(prediction_N4, boxes_N4), -1.0)
    if (~valid_N & ~absent_N).any():
        remarks += ("frames that are not absent and have no valid truth hit in norm. precision",)
    return Frames(
        overlap=overlap_N,
        error=np.where(valid_N, _distance(_centres(prediction_N4), _centres(boxes_N4)), np.inf),
        norm_error=np.where(absent_N, np.inf, norm_N),
        length=len(boxes_N4),
        counted=int(valid_N.sum()),
        remarks=remarks + (("missing last predictions are zero boxes",) if padding else ()),
    )


def _got10k_lasot(name: str, truth: Truth, prediction_M4: Boxes_N4) -> Frames:
    length = min(len(truth.boxes), len(prediction_M4))
    known_N = ~_has_nan(truth.boxes[:length])
    if not known_N.any():
        raise RiceError(f"{name}: expected a frame with a truth among the first {length}, got NaN in all")
    prediction_N4 = prediction_M4[:length].copy()
    prediction_N4[0] = truth.boxes[0]
    boxes_K4, prediction_K4 = truth.boxes[:length][known_N], prediction_N4[known_N]
    centre_K2, offset_K2 = _centres(boxes_K4), _centres(prediction_K4)
    edges_K2 = np.maximum(1.0, boxes_K4[:, 2:])
    remarks = ("truth and prediction differ in length and are cut to the shorter",)
    return Frames(
        overlap=_exclusive_iou(prediction_K4, boxes_K4),
        error=_distance(offset_K2, centre_K2),
        norm_error=np.sqrt((((offset_K2 - centre_K2) / edges_K2) ** 2).sum(axis=1)),
        length=len(boxes_K4),
        counted=len(boxes_K4),
        remarks=remarks if len(truth.boxes) != len(prediction_M4) else (),
    )


def _trackingnet(name: str, truth: Truth, prediction_M4: Boxes_N4) -> Frames:
    """A prediction that ends early misses from there on: NaN is not even at least 0."""
    boxes_N4 = np.round(truth.boxes)
    prediction_N4, padding = _pad(np.round(prediction_M4[: len(boxes_N4)]), len(boxes_N4), np.nan)
    prediction_N4[0] = boxes_N4[0]
    delta_N2, edges_N2 = _centres(boxes_N4) - _centres(prediction_N4), boxes_N4[:, 2:]
    longer = len(prediction_M4) > len(boxes_N4)
    remarks = ("predictions longer than the truth are cut",) if longer else ()
    return Frames(
        overlap=_inclusive_iou(prediction_N4, boxes_N4, skip_nan=True),
        error=np.sqrt((delta_N2**2).sum(axis=1)),
        norm_error=np.sqrt((delta_N2 / edges_N2 * delta_N2 / edges_N2).sum(axis=1)),
        length=len(boxes_N4),
        counted=len(boxes_N4),
        remarks=remarks + (("missing last predictions miss",) if padding else ()),
    )


def _got10k(name: str, truth: Truth, prediction_M4: Boxes_N4) -> Frames:
    """The first frame is dropped; only overlaps are defined."""
    if len(prediction_M4) != len(truth.boxes):
        raise RiceError(f"{name}: expected {len(truth.boxes)} predictions, one a frame, got {len(prediction_M4)}")
    shown_N = np.arange(len(truth.boxes)) > 0
    if truth.cover is not None:
        shown_N &= truth.cover > 0
    boxes_N4, prediction_N4 = truth.boxes, prediction_M4
    if truth.size is not None:
        boxes_N4, prediction_N4 = _clip(boxes_N4, truth.size), _clip(prediction_N4, truth.size)
    overlap_N = _exclusive_iou(prediction_N4, boxes_N4)
    _refuse(shown_N & _has_nan(boxes_N4), name, "a finite truth where a frame counts", truth.boxes)
    _refuse(shown_N & np.isnan(overlap_N), name, "a finite prediction where a frame counts", prediction_M4)
    nothing = np.empty(0)
    counted = int(shown_N.sum())
    return Frames(overlap=overlap_N[shown_N], error=nothing, norm_error=nothing, length=counted, counted=counted)


_TOOLKITS: dict[Protocol, Callable[[str, Truth, Boxes_N4], Frames]] = {
    "got10k": _got10k,
    "lasot-matlab": _matlab,
    "tnl2k": _matlab,
    "pytracking": _pytracking,
    "ostrack": functools.partial(_pytracking, first_value=2),
    "got10k-lasot": _got10k_lasot,
    "trackingnet": _trackingnet,
}


def _absent(truth: Truth) -> Flags_N:
    return np.zeros(len(truth.boxes), dtype=np.bool_) if truth.absent is None else truth.absent


def _has_nan(boxes_N4: Boxes_N4) -> Flags_N:
    flags_N: Flags_N = np.any(np.isnan(boxes_N4), axis=1)
    return flags_N


def _cut(
    name: str, boxes_N4: Boxes_N4, prediction_M4: Boxes_N4, *, short: bool = False
) -> tuple[Boxes_N4, tuple[str, ...]]:
    """At most N predictions; fewer only where `short` allows it."""
    length = len(boxes_N4)
    if len(prediction_M4) < length and not short:
        raise RiceError(f"{name}: expected {length} predictions, one a frame, got {len(prediction_M4)}")
    longer = len(prediction_M4) > length
    return prediction_M4[:length], (("predictions longer than the truth are cut",) if longer else ())


def _pad(prediction_M4: Boxes_N4, length: int, value: float) -> tuple[Boxes_N4, int]:
    """(length, 4), and how many boxes were added."""
    missing = length - len(prediction_M4)
    return np.concatenate([prediction_M4, np.full((missing, 4), value)]), missing


def _repeat_previous(prediction_N4: Boxes_N4, bad_N: Flags_N) -> Boxes_N4:
    """Each bad box becomes the last one before it that is not; the first box stays as it is."""
    source_N = np.where(bad_N, 0, np.arange(len(bad_N)))
    return prediction_N4[np.maximum.accumulate(source_N)]


def _inclusive_iou(a_N4: Boxes_N4, b_N4: Boxes_N4, *, skip_nan: bool) -> Values_N:
    """Of boxes whose last pixel is x + w - 1. `skip_nan`: the larger of NaN and a number is the number, as in MATLAB
    and pandas.
    """
    larger, smaller = (np.fmax, np.fmin) if skip_nan else (np.maximum, np.minimum)
    first_N2 = larger(a_N4[:, :2], b_N4[:, :2])
    last_N2 = smaller(a_N4[:, :2] + a_N4[:, 2:] - 1, b_N4[:, :2] + b_N4[:, 2:] - 1)
    shared_N = np.maximum(last_N2 - first_N2 + 1, 0).prod(axis=1)
    iou_N: Values_N = shared_N / (a_N4[:, 2:].prod(axis=1) + b_N4[:, 2:].prod(axis=1) - shared_N)
    return iou_N


def _exclusive_iou(a_N4: Boxes_N4, b_N4: Boxes_N4) -> Values_N:
    """Of boxes that end at x + w, as the GOT-10k toolkit has it, 0 to 1."""
    first_N2 = np.maximum(a_N4[:, :2], b_N4[:, :2])
    last_N2 = np.minimum(a_N4[:, :2] + a_N4[:, 2:], b_N4[:, :2] + b_N4[:, 2:])
    shared_N = np.maximum(last_N2 - first_N2, 0).prod(axis=1)
    union_N = a_N4[:, 2:].prod(axis=1) + b_N4[:, 2:].prod(axis=1) - shared_N
    iou_N: Values_N = np.clip(shared_N / (union_N + _EPS), 0, 1)
    return iou_N


def _clip(boxes_N4: Boxes_N4, size: tuple[int, int]) -> Boxes_N4:
    corner_N2 = np.clip(boxes_N4[:, :2], 0, size)
    return np.concatenate([corner_N2, np.clip(boxes_N4[:, 2:], 0, np.array(size) - corner_N2)], axis=1)


def _centres(boxes_N4: Boxes_N4) -> Boxes_N4:
    return boxes_N4[:, :2] + (boxes_N4[:, 2:] - 1) / 2


def _distance(a_N2: Boxes_N4, b_N2: Boxes_N4) -> Values_N:
    distance_N: Values_N = np.sqrt(((a_N2 - b_N2) ** 2).sum(axis=1))
    return distance_N


def _norm_distance(prediction_N4: Boxes_N4, boxes_N4: Boxes_N4) -> Values_N:
    """Each centre is divided by the truth's edges before the difference is taken."""
    edges_N2 = boxes_N4[:, 2:]
    return _distance(_centres(prediction_N4) / edges_N2, _centres(boxes_N4) / edges_N2)


def _refuse(wrong_N: Flags_N, name: str, expected: str, boxes_N4: Boxes_N4) -> None:
    if wrong_N.any():
        frame = int(np.argmax(wrong_N))
        more = f" ({int(wrong_N.sum())} such frames)" if wrong_N.sum() > 1 else ""
        got = boxes_N4[frame].tolist()
        raise RiceError(f"{name}: frame {frame + 1}: expected {expected}, got {got}; correct that line{more}")
