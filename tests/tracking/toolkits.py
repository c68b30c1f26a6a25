"""The toolkits' definitions once more, a frame at a time in plain Python, to compare with: slow, and nothing shared.

Boxes are lists [x, y, w, h]; a truth is (boxes, absent, cover, size) with None for what is not given. Each function
returns fractions per sequence as curves; `overall` makes the scores of them.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

Box: TypeAlias = Sequence[float]
Truth: TypeAlias = tuple[list[list[float]], list[bool] | None, list[int] | None, tuple[int, int] | None]
Curves: TypeAlias = dict[str, list[float]]

NAN, INF = math.nan, math.inf
EPS = 2.0**-52


class StopsError(Exception):
    """The toolkit itself raises here."""


def divide(a: float, b: float) -> float:
    """IEEE's division."""
    if b == 0:
        return NAN if a == 0 or a != a else math.copysign(INF, a) * math.copysign(1, b)
    return a / b


def nan_in(box: Box) -> bool:
    return any(v != v for v in box)


def number_or(a: float, b: float, pick: Callable[[float, float], float]) -> float:
    """max and min of MATLAB and pandas: a number beats NaN."""
    if a != a:
        return b
    return a if b != b else pick(a, b)


def inclusive(p: Box, g: Box) -> float:
    """IoU where a box ends with the pixel x + w - 1."""
    sides = []
    for k in (0, 1):
        first = number_or(p[k], g[k], max)
        last = number_or(p[k] + p[k + 2] - 1, g[k] + g[k + 2] - 1, min)
        side = last - first + 1
        sides.append(side if side != side or side > 0 else 0.0)
    shared = sides[0] * sides[1]
    return divide(shared, p[2] * p[3] + g[2] * g[3] - shared)


def exclusive(p: Box, g: Box) -> float:
    """IoU where a box ends at x + w, with the GOT-10k toolkit's epsilon, clipped to 0..1."""
    if nan_in(p) or nan_in(g):
        return NAN
    sides = [max(0.0, min(p[k] + p[k + 2], g[k] + g[k + 2]) - max(p[k], g[k])) for k in (0, 1)]
    shared = sides[0] * sides[1]
    iou = divide(shared, p[2] * p[3] + g[2] * g[3] - shared + EPS)
    return min(1.0, max(0.0, iou))


def middle(box: Box) -> tuple[float, float]:
    return box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2


def apart(p: Box, g: Box) -> float:
    (a, b), (c, d) = middle(p), middle(g)
    return math.sqrt((a - c) * (a - c) + (b - d) * (b - d))


def apart_normed(p: Box, g: Box) -> float:
    (a, b), (c, d) = middle(p), middle(g)
    x, y = divide(a, g[2]) - divide(c, g[2]), divide(b, g[3]) - divide(d, g[3])
    return math.sqrt(x * x + y * y)


def share(values: list[float], passes: Callable[[float], bool], length: int) -> float:
    return sum(1 for value in values if passes(value)) / length


def lasot_curves(
    overlap: list[float], error: list[float], normed: list[float], length: int, steps: list[float]
) -> Curves:
    return {
        "success": [share(overlap, lambda v, t=t: v > t, length) for t in steps],
        "precision": [share(error, lambda v, t=t: v <= t, length) for t in range(51)],
        "norm_precision": [share(normed, lambda v, t=t: v <= t / 100, length) for t in range(51)],
    }


def matlab(truth: Truth, prediction: list[list[float]]) -> Curves:
    boxes, flags = truth[0], truth[1] or [False] * len(truth[0])
    if len(prediction) < len(boxes):
        raise StopsError
    given = [list(box) for box in prediction[: len(boxes)]]
    for i in range(1, len(boxes)):
        bad = nan_in(given[i]) or given[i][2] <= 0 or given[i][3] <= 0
        if bad and not nan_in(boxes[i]):
            given[i] = list(given[i - 1])
    given[0] = boxes[0]
    overlap, error, normed = [], [], []
    for p, g, flag in zip(given, boxes, flags, strict=True):
        if flag:
            continue
        valid = g[0] > 0 and g[1] > 0 and g[2] > 0 and g[3] > 0
        overlap.append(inclusive(p, g) if valid else -1)
        error.append(apart(p, g) if valid else -1)
        normed.append(apart_normed(p, g) if valid else -1)
    steps = [i * 0.05 for i in range(10)] + [0.5] + [1 - i * 0.05 for i in range(9, -1, -1)]
    return lasot_curves(overlap, error, normed, len(boxes), steps)


def pytracking(truth: Truth, prediction: list[list[float]], positive: tuple[int, ...] = (0, 1, 2, 3)) -> Curves:
    boxes, flags = truth[0], truth[1]
    given = [list(box) for box in prediction]
    if any(nan_in(p) or p[2] < 0 or p[3] < 0 for p in given) or any(map(nan_in, boxes)):
        raise StopsError
    for i in range(1, len(given)):
        if given[i][2] == 0 or given[i][3] == 0:
            given[i] = given[i - 1]
    if len(given) < len(boxes) and flags is not None:
        raise StopsError
    given = given[: len(boxes)] + [[0.0] * 4] * (len(boxes) - len(given))
    given[0] = boxes[0]
    overlap, error, normed = [], [], []
    for i, (p, g) in enumerate(zip(given, boxes, strict=True)):
        absent = flags is not None and flags[i]
        valid = all(g[k] > 0 for k in positive) and not absent
        overlap.append(inclusive(p, g) if valid else -1)
        error.append(apart(p, g) if valid else INF)
        normed.append(INF if absent else apart_normed(p, g) if valid else -1)
    if any(v != v for v in overlap):
        raise StopsError
    return lasot_curves(overlap, error, normed, len(boxes), [i * 0.05 for i in range(21)])


def ostrack(truth: Truth, prediction: list[list[float]]) -> Curves:
    return pytracking(truth, prediction, positive=(2, 3))


def got10k_lasot(truth: Truth, prediction: list[list[float]]) -> Curves:
    pairs = list(zip([truth[0][0], *prediction[1:]], truth[0], strict=False))
    pairs = [(p, g) for p, g in pairs if not nan_in(g)]
    if not pairs:
        raise StopsError
    overlap = [exclusive(p, g) for p, g in pairs]
    error = [apart(p, g) for p, g in pairs]
    normed = []
    for p, g in pairs:
        (a, b), (c, d) = middle(p), middle(g)
        x, y = (a - c) / max(1.0, g[2]), (b - d) / max(1.0, g[3])
        normed.append(math.sqrt(x * x + y * y))
    return {
        "success": [share(overlap, lambda v, t=t: v > t * 0.05, len(pairs)) for t in range(21)],
        "precision": [share(error, lambda v, t=t: v <= t, len(pairs)) for t in range(51)],
        "norm_precision": [
            share(normed, lambda v, t=t: v <= (t * 0.01 if t < 50 else 0.5), len(pairs)) for t in range(51)
        ],
    }


def rounded(box: Box) -> list[float]:
    return [v if v != v or math.isinf(v) else float(round(v)) for v in box]


def trackingnet(truth: Truth, prediction: list[list[float]] | None) -> Curves:
    boxes = [rounded(box) for box in truth[0]]
    given = [[0.0] * 4] * len(boxes) if prediction is None else [rounded(box) for box in prediction]
    overlap, error, normed = [], [], []
    for i, g in enumerate(boxes):
        p = g if i == 0 else given[i] if i < len(given) else [NAN] * 4
        overlap.append(inclusive(p, g))
        x, y = (g[0] + (g[2] + 1) / 2) - (p[0] + (p[2] + 1) / 2), (g[1] + (g[3] + 1) / 2) - (p[1] + (p[3] + 1) / 2)
        error.append(math.sqrt(x * x + y * y))
        normed.append(math.sqrt(divide(divide(x, g[2]) * x, g[2]) + divide(divide(y, g[3]) * y, g[3])))
    return {
        "success": [share(overlap, lambda v, t=t: v >= t * 0.05, len(boxes)) for t in range(21)],
        "precision": [share(error, lambda v, t=t: v <= t * 2.5, len(boxes)) for t in range(21)],
        "norm_precision": [share(normed, lambda v, t=t: v <= t * 0.025, len(boxes)) for t in range(21)],
    }


def got10k(truth: Truth, prediction: list[list[float]]) -> list[float]:
    """Overlaps of the frames that count."""
    boxes, _, cover, size = truth
    if len(prediction) != len(boxes):
        raise StopsError
    overlaps = []
    for i in range(1, len(boxes)):
        if cover is not None and cover[i] == 0:
            continue
        p, g = prediction[i], boxes[i]
        if nan_in(p) or nan_in(g):
            raise StopsError
        if size is not None:
            p, g = inside(p, size), inside(g, size)
        overlaps.append(exclusive(p, g))
    return overlaps


def inside(box: Box, size: tuple[int, int]) -> list[float]:
    corner = [min(max(box[k], 0), size[k]) for k in (0, 1)]
    return corner + [min(max(box[k + 2], 0), size[k] - corner[k]) for k in (0, 1)]


TOOLKITS: dict[str, Callable[..., Curves]] = {
    "lasot-matlab": matlab,
    "tnl2k": matlab,
    "pytracking": pytracking,
    "ostrack": ostrack,
    "got10k-lasot": got10k_lasot,
    "trackingnet": trackingnet,
}


def summary(protocol: str, plot: str, curve: list[float]) -> float:
    if protocol == "trackingnet":
        return 100 * sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 20
    if plot == "success" or (protocol == "got10k-lasot" and plot == "norm_precision"):
        return 100 * sum(curve) / len(curve)
    return 100 * curve[20]


def overall(
    protocol: str, truths: dict[str, Truth], predictions: dict[str, list[list[float]] | None]
) -> dict[str, float]:
    """Scores in percent. Errors: StopsError."""
    if protocol == "got10k":
        every = [v for name, truth in truths.items() for v in got10k(truth, predictions[name])]
        if not every:
            raise StopsError
        count = len(every)
        return {
            "ao": 100 * sum(every) / count,
            "sr_0.5": 100 * sum(v > 0.5 for v in every) / count,
            "sr_0.75": 100 * sum(v > 0.75 for v in every) / count,
        }
    curves = [TOOLKITS[protocol](truth, predictions[name]) for name, truth in truths.items()]
    scores = {}
    for plot in ("success", "precision", "norm_precision"):
        rows = [curve[plot] for curve in curves]
        if protocol in ("lasot-matlab", "tnl2k"):
            rows = [row for row in rows if sum(row) > 0] or [[0.0] * len(rows[0])]
        scores[plot] = summary(protocol, plot, [sum(column) / len(rows) for column in zip(*rows, strict=True)])
    return scores
