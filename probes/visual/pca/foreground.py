"""Foreground of a video from the first principal component, as in DINOv2's figures.

Shapes: T tokens of a frame, h w patch grid. The threshold is Otsu's, over the whole video. A component's sign means
nothing, so the side is decided by place: foreground is the side that is rarer among the outermost tokens than among
all tokens, because what is filmed seldom lines the border.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.visual.pca.components import Components
from probes.visual.pca.percentile import percentiles
from probes.visual.pca.records import ArrayRecords

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

_BINS = 256
_TAILS = (0.01, 0.99)


@dataclass(frozen=True, kw_only=True)
class Foreground:
    """Tokens whose first component lies above `threshold` (or not above it, where `above` is False).

    `share`: of the foreground among the tokens that it was found on.
    """

    first: Components
    threshold: float
    above: bool
    share: float

    def mask(self, first_T1: Float32) -> Mask:
        """Values of the first component (T, 1) -> (T,): which tokens are foreground."""
        mask: Mask = (first_T1[:, 0] > self.threshold) == self.above
        return mask


def find_foreground(first: Components, projected: ArrayRecords, grid: tuple[int, int]) -> Foreground:
    """Threshold and side. `projected` holds, for each frame, the first component of its tokens as (T, 1)."""

    def values() -> Iterable[Float32]:
        return (projected.read(index) for index in range(projected.count))

    low, high = percentiles(values, _TAILS)[:, 0]
    histogram = np.zeros(_BINS, np.int64)
    for chunk in values():
        histogram += np.histogram(chunk.clip(low, high), bins=_BINS, range=(low, high))[0]
    threshold = float(low + (high - low) * otsu(histogram))
    border_T = border(grid)
    frames = [(np.mean(chunk > threshold), np.mean(chunk[border_T] > threshold)) for chunk in values()]
    everywhere, outermost = np.mean(frames, axis=0)
    above = bool(outermost <= everywhere)
    share = float(everywhere if above else 1 - everywhere)
    return Foreground(first=first, threshold=threshold, above=above, share=share)


def otsu(histogram: NDArray[np.int64]) -> float:
    """The split, as a fraction of the histogram's range, with the largest variance between the two sides (Otsu)."""
    share = histogram / histogram.sum()
    centres = (np.arange(len(histogram)) + 0.5) / len(histogram)
    below = np.cumsum(share)[:-1]
    moment = np.cumsum(share * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below - moment[:-1]) ** 2 / (below * (1 - below))
    return float(np.nan_to_num(between, nan=0.0, posinf=0.0).argmax() + 1) / len(histogram)


def border(grid: tuple[int, int]) -> Mask:
    """(T,): the outermost ring of an h x w grid, row by row."""
    ring = np.ones(grid, np.bool_)
    ring[1:-1, 1:-1] = False
    return ring.ravel()
