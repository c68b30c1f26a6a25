"""Exact percentiles of a stream that is read twice, in memory that does not depend on its length.

Shapes: N values, K columns. A float32's bits, suitably flipped, sort as an unsigned integer: a histogram of the upper
16 bits finds the bin of each rank, a second one of the lower 16 bits inside that bin finds the value itself.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rice.errors import RiceError

Stream = Callable[[], Iterable[NDArray[np.float32]]]
_BINS = 1 << 16


def percentiles(stream: Stream, quantiles: Sequence[float]) -> NDArray[np.float64]:
    """(Q, K): for each quantile in [0, 1], the value at rank floor(quantile * (N - 1)) of each column.

    `stream()` yields chunks (N_i, K), the same at each of two calls; numpy calls this percentile `method="lower"`.
    Errors: RiceError for an empty stream.
    """
    upper_KB = _histograms(stream)
    counts_K = upper_KB.sum(axis=1)
    if not counts_K.size or not counts_K[0]:
        raise RiceError("there is no value to take percentiles of")
    ranks = [int(np.floor(quantile * (int(counts_K[0]) - 1))) for quantile in quantiles]
    below_KB = np.cumsum(upper_KB, axis=1)
    columns = range(len(upper_KB))
    bins_QK = np.array([[np.searchsorted(below_KB[k], rank, side="right") for k in columns] for rank in ranks])
    lower_QKB = np.zeros((*bins_QK.shape, _BINS), np.int64)
    for chunk in stream():
        keys_NK = _sortable(chunk)
        for (q, k), chosen in np.ndenumerate(bins_QK):
            inside = keys_NK[:, k][keys_NK[:, k] >> 16 == chosen]
            lower_QKB[q, k] += np.bincount(inside & (_BINS - 1), minlength=_BINS)
    keys_QK = np.empty(bins_QK.shape, np.uint32)
    for (q, k), chosen in np.ndenumerate(bins_QK):
        rank_inside = ranks[q] - (below_KB[k, chosen - 1] if chosen else 0)
        low = np.searchsorted(np.cumsum(lower_QKB[q, k]), rank_inside, side="right")
        keys_QK[q, k] = (int(chosen) << 16) | int(low)
    return _value(keys_QK).astype(np.float64)


def _histograms(stream: Stream) -> NDArray[np.int64]:
    total_KB = np.zeros((0, _BINS), np.int64)
    for chunk in stream():
        bins_NK = _sortable(chunk) >> 16
        counts = np.stack([np.bincount(column, minlength=_BINS) for column in bins_NK.T])
        total_KB = total_KB + counts if len(total_KB) else counts
    return total_KB


def _sortable(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    negative = bits >> 31 == 1
    return np.where(negative, ~bits, bits | np.uint32(1 << 31))


def _value(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    negative = keys >> 31 == 0
    return np.where(negative, ~keys, keys & np.uint32((1 << 31) - 1)).view(np.float32)
