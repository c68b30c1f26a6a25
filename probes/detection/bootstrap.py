"""Average precision on any multiset of images, and its standard error over images.

Shapes: I images, K categories, D detections of one category, G its truth counts; T = 10 IoU thresholds; R rows of image
weights (bootstrap replicates); P true positives of one category at one threshold.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from probes.detection.evaluators import THRESHOLDS
from probes.detection.score_inputs import FREQUENCIES
from probes.detection.score_items import Items, items, read_items, write_items

__all__ = ["Items", "ap_of", "class_ap", "items", "read_items", "replicates", "standard_error", "write_items"]

_RECALLS = np.linspace(0.0, 1.0, 101)
_THRESHOLDS_OF = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
_REPLICATES_AT_ONCE = 32


def ap_of(table: Items, weights: NDArray[np.number] | None = None) -> dict[str, float]:
    """AP, AP50, AP75 (LVIS: APr, APc, APf too), all areas, with image i counted weights[i] >= 0 times (None: once).

    Fractions, -1 where no instance is left, as the evaluator. With ones, the evaluator's own figures.
    """
    weights_I = np.ones(len(table.image_ids)) if weights is None else np.asarray(weights, dtype=np.float64)
    values = replicates(table, weights_I[None])
    return {name: float(value_R[0]) if np.isfinite(value_R[0]) else -1.0 for name, value_R in values.items()}


def standard_error(table: Items, replicates: int = 200, seed: int = 0) -> dict[str, float]:
    """Standard error over images of each figure of `ap_of`: bootstrap, multinomial weights, fixed seed.

    A replicate leaves out categories of which it drew no instance. NaN for a single image, or where nothing is judged.
    """
    n = len(table.image_ids)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, replicates, _REPLICATES_AT_ONCE):
        size = min(_REPLICATES_AT_ONCE, replicates - start)
        weights_RI = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        parts.append(class_ap(table, weights_RI))
    values = _summaries(table, np.concatenate(parts))
    return {name: _deviation(value_R) if n > 1 else float("nan") for name, value_R in values.items()}


def replicates(table: Items, weights_RI: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The figures of `ap_of` (R,) for each row of image weights; NaN where no instance is left."""
    return _summaries(table, class_ap(table, weights_RI))


def _deviation(values_R: NDArray[np.float64]) -> float:
    finite_R = values_R[np.isfinite(values_R)]
    return float(finite_R.std(ddof=1)) if len(finite_R) > 1 else float("nan")


def _summaries(table: Items, ap_RKT: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Means over categories and thresholds, (R,); NaN where no category has an instance."""
    values = {name: _mean(ap_RKT[:, :, chosen]) for name, chosen in _THRESHOLDS_OF.items()}
    if any(table.frequencies):
        groups = np.array(table.frequencies)
        values |= {f"AP{letter}": _mean(ap_RKT[:, groups == letter]) for letter in FREQUENCIES}
    return values


def _mean(ap_RKT: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over all that is not NaN; NaN where all is."""
    flat = ap_RKT.reshape(len(ap_RKT), -1)
    judged = np.isfinite(flat)
    total, number = np.where(judged, flat, 0.0).sum(axis=1), judged.sum(axis=1)
    mean: NDArray[np.float64] = np.divide(total, number, out=np.full(len(flat), np.nan), where=number > 0)
    return mean


def class_ap(table: Items, weights_RI: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average precision (R, K, T) for each row of image weights; NaN where a category has no instance."""
    ap_RKT = np.full((len(weights_RI), len(table.category_ids), THRESHOLDS), np.nan)
    for k, chosen_D, truth_G in _by_category(table):
        instances_R = weights_RI[:, table.truth_image[truth_G]] @ table.truth_count[truth_G].astype(np.float64)
        present = instances_R > 0
        weights_RD = weights_RI[:, table.image[chosen_D]]
        seen_RD = np.cumsum(weights_RD, axis=1)
        for t in range(THRESHOLDS):
            matched_D = table.matched[chosen_D] >> t & 1 == 1
            ignored_D = table.ignored[chosen_D] >> t & 1 == 1
            ap_R = _average_precision(weights_RD, seen_RD, matched_D, ignored_D, instances_R)
            ap_RKT[present, k, t] = ap_R[present]
    return ap_RKT


def _by_category(table: Items) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Category, its detections by descending score (ties in the images' order, as the evaluators), its truth counts."""
    order_D = np.lexsort((-table.score, table.category))
    bounds = np.searchsorted(table.category[order_D], np.arange(len(table.category_ids) + 1))
    order_G = np.argsort(table.truth_category, kind="stable")
    truth_bounds = np.searchsorted(table.truth_category[order_G], np.arange(len(table.category_ids) + 1))
    for k in range(len(table.category_ids)):
        truth_G = order_G[truth_bounds[k] : truth_bounds[k + 1]]
        if len(truth_G):
            yield k, order_D[bounds[k] : bounds[k + 1]], truth_G


def _average_precision(
    weights_RD: NDArray[np.float64],
    seen_RD: NDArray[np.float64],
    matched_D: NDArray[np.bool_],
    ignored_D: NDArray[np.bool_],
    instances_R: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean of the interpolated precision at 101 recalls (R,).

    Precision changes the outcome only where a true positive raises the recall: recall threshold j is first reached at
    one of them, and takes the highest precision from there on. `seen_RD` counts all detections so far.
    """
    true_P = np.flatnonzero(matched_D & ~ignored_D)
    if not len(true_P):
        return np.zeros(len(weights_RD))
    found_RP = np.cumsum(weights_RD[:, true_P], axis=1)
    seen_RP = seen_RD[:, true_P]
    skipped_D = np.flatnonzero(ignored_D)
    if len(skipped_D):
        skipped_RD = np.cumsum(weights_RD[:, skipped_D], axis=1)
        before_P = np.searchsorted(skipped_D, true_P)
        seen_RP = seen_RP - np.where(before_P > 0, skipped_RD[:, before_P - 1], 0.0)
    precision_RP = np.divide(found_RP, seen_RP, out=np.zeros_like(found_RP), where=seen_RP > 0)
    envelope_RP = np.maximum.accumulate(precision_RP[:, ::-1], axis=1)[:, ::-1]
    recall_RP = found_RP / np.where(instances_R > 0, instances_R, 1.0)[:, None]
    reached_RP = np.searchsorted(_RECALLS, recall_RP, side="right")
    ap_R: NDArray[np.float64] = (np.diff(reached_RP, axis=1, prepend=0) * envelope_RP).sum(axis=1) / len(_RECALLS)
    return ap_R
