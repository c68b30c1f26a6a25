"""How far apart an image's patch tokens lie: the distribution of cosine distances over all pairs of one image (Fig. 4).

Every pair counts once, and only pairs within one image do. Images, not pairs, are the independent items: errors and
intervals resample images.

Shapes: N images, T patch tokens of an image, D width, K encoders, R bootstrap replicates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rice.errors import RiceError

Float64 = NDArray[np.float64]

BINS = 2000
"""Equal bins over [0, 2], the range of 1 - cos: each 0.001 wide."""
REPLICATES = 10_000
LEVEL = 0.95

_BLOCK_ENTRIES = 1 << 20
"""Distances in memory at once: 8 MiB."""
_REPLICATES_AT_ONCE = 500
_ROUNDING = 1e-6
"""Of a token's length: below it, fp32's rounding alone decides the direction."""


@dataclass(frozen=True)
class ImageDistances:
    """All T (T - 1) / 2 pairs of one image: counts (BINS,), the sum of the distances and of their squares."""

    histogram: NDArray[np.int64]
    total: float
    squares: float

    @property
    def pairs(self) -> int:
        """How many there are."""
        return int(self.histogram.sum())


def image_distances(tokens_TD: Float64, centre_D: Float64 | None = None) -> ImageDistances:
    """1 - cos of every pair of tokens, after `centre_D`, where it is given, is taken off each.

    In blocks of rows, so that memory stays flat in T. Errors: RiceError where a distance is not defined: fewer than two
    tokens, NaN or infinity, a token of length 0, one that is `centre_D` up to rounding.
    """
    units_TD = _directions(tokens_TD, centre_D)
    tokens = len(units_TD)
    histogram, total, squares = np.zeros(BINS, dtype=np.int64), 0.0, 0.0
    rows = max(_BLOCK_ENTRIES // tokens, 1)
    for start in range(0, tokens - 1, rows):
        stop = min(start + rows, tokens)
        distances_RT = 1.0 - units_TD[start:stop] @ units_TD[start:].T
        later = np.triu(np.ones(distances_RT.shape, dtype=bool), k=1)
        distances_P = np.clip(distances_RT[later], 0.0, 2.0)
        bins_P = np.minimum((distances_P * (BINS / 2)).astype(np.int64), BINS - 1)
        histogram += np.bincount(bins_P, minlength=BINS)
        total += float(distances_P.sum())
        squares += float(np.square(distances_P).sum())
    return ImageDistances(histogram, total, squares)


def _directions(tokens_TD: Float64, centre_D: Float64 | None) -> Float64:
    """Tokens of length 1. Errors: as `image_distances`."""
    if len(tokens_TD) < 2:
        raise RiceError(f"expected at least 2 tokens an image, got {len(tokens_TD)}; ask for a larger grid")
    if not np.isfinite(tokens_TD).all():
        raise RiceError("tokens with NaN or infinity; try another dtype or weights")
    lengths_T = np.linalg.norm(tokens_TD, axis=1)
    if not lengths_T.all():
        raise RiceError("tokens of length 0, which have no direction; try another layer or weights")
    if centre_D is None:
        units_TD: Float64 = tokens_TD / lengths_T[:, None]
        return units_TD
    rest_TD = tokens_TD - centre_D
    rests_T = np.linalg.norm(rest_TD, axis=1)
    if (rests_T <= _ROUNDING * lengths_T).any():
        raise RiceError("tokens equal to its mean token, which have no direction after centring; are they constant?")
    centred_TD: Float64 = rest_TD / rests_T[:, None]
    return centred_TD


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The distances of one encoder over N images of equal numbers of pairs.

    `histogram`: counts (BINS,). `image_means` (N,): the mean distance within each image. `std`: over all pairs.
    """

    histogram: NDArray[np.int64]
    image_means: Float64
    std: float

    @classmethod
    def of(cls, images: "list[ImageDistances]") -> "Distribution":
        """Of at least one image."""
        pairs = sum(image.pairs for image in images)
        mean = sum(image.total for image in images) / pairs
        variance = max(sum(image.squares for image in images) / pairs - mean**2, 0.0)
        return cls(
            histogram=np.sum([image.histogram for image in images], axis=0),
            image_means=np.array([image.total / image.pairs for image in images]),
            std=float(np.sqrt(variance)),
        )

    @property
    def pairs(self) -> int:
        """How many distances there are."""
        return int(self.histogram.sum())

    @property
    def mean(self) -> float:
        """Over all pairs."""
        return float(self.image_means.mean())

    @property
    def stderr(self) -> float | None:
        """Of the mean, over images; None for a single one."""
        count = len(self.image_means)
        return float(self.image_means.std(ddof=1) / np.sqrt(count)) if count > 1 else None

    def quantile(self, share: float) -> float:
        """The distance that `share` of all pairs do not exceed, by the histogram: at most a bin's width off."""
        reached = np.cumsum(self.histogram) / self.pairs
        index = int(np.searchsorted(reached, share))
        before = float(reached[index - 1]) if index else 0.0
        inside = (share - before) / (float(reached[index]) - before)
        return (index + inside) * 2 / BINS

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return {
            "mean": self.mean,
            "std": self.std,
            "stderr": self.stderr,
            "median": self.quantile(0.5),
            "q05": self.quantile(0.05),
            "q95": self.quantile(0.95),
            "image_means": self.image_means.tolist(),
            "histogram": self.histogram.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Distribution":
        """`as_json`'s values, to the bit. Errors: KeyError, TypeError or ValueError for others."""
        histogram = np.array(value["histogram"], dtype=np.int64)
        means = np.array(value["image_means"], dtype=np.float64)
        if histogram.shape != (BINS,) or histogram.sum() < 1 or means.ndim != 1 or not np.isfinite(means).all():
            raise ValueError(f"expected counts in {BINS} bins, and a mean distance of each image")
        return cls(histogram=histogram, image_means=means, std=float(value["std"]))


@dataclass(frozen=True)
class Difference:
    """The mean distance of encoder `second` minus that of `first`, on the same images, with its bootstrap interval."""

    first: int
    second: int
    mean: float
    low: float | None
    high: float | None


def paired_differences(image_means_NK: Float64, seed: int) -> list[Difference]:
    """Every pair of encoders, first before second: images are resampled, the same ones for both (percentiles, 95 %).

    Without an interval where there is a single image.
    """
    count, encoders = image_means_NK.shape
    means_RK = _resampled(image_means_NK, seed) if count > 1 else None
    found = []
    for first in range(encoders):
        for second in range(first + 1, encoders):
            mean = float((image_means_NK[:, second] - image_means_NK[:, first]).mean())
            low = high = None
            if means_RK is not None:
                ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
                low, high = map(float, np.quantile(means_RK[:, second] - means_RK[:, first], ends))
            found.append(Difference(first, second, mean, low, high))
    return found


def _resampled(image_means_NK: Float64, seed: int) -> Float64:
    """Means (R, K) over N images drawn with replacement."""
    count = len(image_means_NK)
    rng, parts = np.random.default_rng(seed), []
    for _ in range(REPLICATES // _REPLICATES_AT_ONCE):
        times_RN = rng.multinomial(count, np.full(count, 1 / count), size=_REPLICATES_AT_ONCE)
        parts.append(times_RN @ image_means_NK / count)
    means_RK: Float64 = np.concatenate(parts)
    return means_RK
