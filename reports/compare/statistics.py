"""How certain is a score, a difference of two, a ranking? Estimates over seeds and items, p-values, corrections.

Shapes: S seeds, R bootstrap replicates, K encoders, C columns. Imports neither torch nor pandas.

Two kinds of chance make a score: which seed trained the head, and which items the test holds. The usual two-level
bootstrap draws both with replacement. Of three seeds that is too narrow: the variance of what it draws is 2/3 of the
sample variance, and three values cannot tell their tail. In simulations its 95 % intervals covered a mean over 3 seeds
74 % of the time; and 99.5 % where seeds only reshuffle the items' errors, which it counts twice. So only items are
drawn here, the same ones for all seeds and encoders, and seeds enter by the variance of their mean, with Student's t on
S - 1 degrees of freedom. As in a crossed design with random seeds and items (Roe and Metz 1997, of readers and cases),

    variance = items + max(0, seeds - both),

where `items` is the bootstrap variance of the mean over seeds, `seeds` the sample variance over S, and `both` the part
of `seeds` that the items' own noise explains. Freedom is Satterthwaite's (1946). In the same simulations, with 2 to 5
seeds and 10 to 60 items, whichever source dominated, 94 to 96 % of these intervals covered.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.measurements import Score, over_seeds

LEVEL = 0.95
FEWEST_DATASETS = 6
"""With fewer, no result of Wilcoxon's test is below 0.05."""

How = Literal["seeds and items", "seeds", "items", "none"]
Values = NDArray[np.float64]

_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Estimate(Score):
    """A score, or a difference of two, and how far to trust it.

    `error`: standard error, and `freedom` its degrees of freedom; both None where nothing varies or could (one seed, no
    items). `items`: 0 where none were used.
    """

    error: float | None
    freedom: float | None
    items: int

    @property
    def how(self) -> How:
        """What the interval is over."""
        if self.error is None:
            return "none"
        if not self.items:
            return "seeds"
        return "seeds and items" if self.seeds > 1 else "items"

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, mean -+ t * error."""
        if self.error is None or self.freedom is None:
            return None
        from scipy.special import stdtrit

        margin = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.error
        return self.mean - margin, self.mean + margin

    @property
    def p(self) -> float | None:
        """Two-sided, of a mean of 0 (Student's t); below 0.05 exactly where the interval leaves 0 out."""
        if self.error is None or self.freedom is None:
            return None
        from scipy.special import stdtr

        return float(2 * stdtr(self.freedom, -abs(self.mean) / self.error))


def summary(values_S: Iterable[float], replicates_SR: ArrayLike | None = None, items: int = 0) -> Estimate:
    """The mean over seeds of a score, or of a paired difference of two (see the top of this file).

    replicates_SR: each seed's score on the same R bootstrap draws of the `items`; None: seeds alone, Student's t. A
    draw that leaves a score undefined (NaN) is dropped.
    """
    values = [float(value) for value in values_S]
    score = over_seeds(values)
    variance = 0.0 if score.spread is None else score.spread**2 / score.seeds
    parts = [(variance, score.seeds - 1)]
    if replicates_SR is not None and items > 1:
        replicates = np.asarray(replicates_SR, dtype=np.float64)
        replicates = replicates[:, np.isfinite(replicates).all(axis=0)]
        items = items if replicates.shape[1] > 1 else 0
        if items:
            over_items, both = _item_variances(replicates, items)
            parts = [(over_items, items - 1), (max(0.0, variance - both), score.seeds - 1)]
    else:
        items = 0
    error, freedom = _satterthwaite(parts)
    still = error <= _ROUNDING * max(1.0, *map(abs, values))
    return Estimate(
        score.mean,
        score.spread,
        score.seeds,
        error=None if still else error,
        freedom=None if still else freedom,
        items=items,
    )


def _item_variances(replicates_SR: Values, items: int) -> tuple[float, float]:
    """Variance over items of the mean over seeds, and the part of the seeds' that items explain.

    The bootstrap's variance of N items is (N - 1) / N of the sampling variance (Efron and Tibshirani 1993, 5.3).
    """
    seeds = len(replicates_SR)
    unbiased = items / (items - 1)
    mean_R = replicates_SR.mean(axis=0)
    both = 0.0
    if seeds > 1:
        both = float((replicates_SR - mean_R).var(axis=1, ddof=1).sum()) / (seeds * (seeds - 1))
    return unbiased * float(mean_R.var(ddof=1)), unbiased * both


def _satterthwaite(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of independent (variance, its freedom)."""
    parts = [(variance, freedom) for variance, freedom in parts if variance > 0 and freedom > 0]
    total = sum(variance for variance, _ in parts)
    if not total:
        return 0.0, 0.0
    return math.sqrt(total), total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def holm(p_values: ArrayLike) -> Values:
    """Adjusted p-values (Holm 1979): compared with 0.05, any false win among all tests has a chance of at most 5 %."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    result = np.empty_like(p)
    result[order] = np.minimum(adjusted, 1.0)
    return result


@dataclass(frozen=True, kw_only=True)
class Across:
    """Paired differences over datasets: their mean, how many are > 0 and < 0, and two tests of no difference.

    `sign`: two-sided sign test; `wilcoxon`: signed ranks. None with fewer than FEWEST_DATASETS that differ.
    """

    mean: float
    wins: int
    losses: int
    sign: float | None
    wilcoxon: float | None


def across(differences: ArrayLike) -> Across:
    """Of one difference a dataset (Demsar 2006, 3.1.3 and 3.1.4)."""
    d = np.asarray(differences, dtype=np.float64)
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    sign = signed_ranks = None
    if wins + losses >= FEWEST_DATASETS:
        from scipy.stats import binomtest, wilcoxon

        sign = float(binomtest(wins, wins + losses).pvalue)
        signed_ranks = float(wilcoxon(d[d != 0]).pvalue)
    return Across(mean=float(d.mean()), wins=wins, losses=losses, sign=sign, wilcoxon=signed_ranks)


def rank_ranges(better_KK: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Best and worst rank that each encoder may have; better_KK[i, j]: i is significantly better than j.

    One more than those that are better, and all but those that are worse: encoders that noise cannot tell apart share
    ranks (Al Mohamad, van Zwet, Solari and Goeman 2019).
    """
    count = len(better_KK)
    return [(1 + int(better_KK[:, k].sum()), count - int(better_KK[k].sum())) for k in range(count)]


@dataclass(frozen=True, kw_only=True)
class MeanRanks:
    """Per encoder its mean rank over datasets (1 is best) and 95 % interval; `friedman`: p of "all rank alike"."""

    means: list[float]
    intervals: list[tuple[float, float]] | None
    friedman: float | None
    datasets: int


def mean_ranks(scores_KC: ArrayLike, dataset_of_C: Sequence[str], resamples: int, seed: int) -> MeanRanks:
    """Ranks of each column, averaged in each dataset, then over datasets. Higher scores are better; ties share ranks.

    Metrics of one dataset say nearly the same, so that datasets are what the percentile bootstrap draws and what
    Friedman's test (Demsar 2006, 3.2.2) takes as blocks; both need FEWEST_DATASETS, the test three encoders.
    """
    from scipy.stats import friedmanchisquare, rankdata

    ranks_KC = rankdata(-np.asarray(scores_KC, dtype=np.float64), axis=0)
    names = sorted(set(dataset_of_C))
    chosen = [[c for c, name in enumerate(dataset_of_C) if name == wanted] for wanted in names]
    ranks_KD = np.stack([ranks_KC[:, columns].mean(axis=1) for columns in chosen], axis=1)
    intervals = friedman = None
    if len(names) >= FEWEST_DATASETS:
        draws_RD = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
        low_K, high_K = np.percentile(ranks_KD[:, draws_RD].mean(axis=2), [2.5, 97.5], axis=1)
        intervals = list(zip(low_K.tolist(), high_K.tolist(), strict=True))
        if len(ranks_KD) > 2 and np.ptp(ranks_KD, axis=0).any():
            friedman = float(friedmanchisquare(*ranks_KD).pvalue)
    return MeanRanks(means=ranks_KD.mean(axis=1).tolist(), intervals=intervals, friedman=friedman, datasets=len(names))
