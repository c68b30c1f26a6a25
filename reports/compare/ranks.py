"""All encoders in all columns, ranked as far as noise allows."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.compare.measured import Measured
from reports.compare.pairs import SIGNIFICANT, difference
from reports.compare.resample import Resampler
from reports.compare.statistics import Estimate, MeanRanks, holm, mean_ranks, rank_ranges
from reports.measurements import Cell
from rice.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """An encoder in a column: its score as shown (fractions in percent), best and worst rank, and of how many."""

    cell: Cell
    score: Estimate
    best: int
    worst: int
    rivals: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of 95 %; what is a fraction stays one."""
        interval = self.score.interval
        if interval is None or self.cell.unit != "fraction":
            return interval
        return max(0.0, interval[0]), min(100.0, interval[1])

    def text(self, decimals: int) -> str:
        """'41.20 ± 0.31 (1-3)'."""
        rank = str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"
        return self.score.text(decimals) + (f" ({rank})" if self.rivals else "")


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """`encoders`: the best mean rank first. `complete`: columns that all encoders have, which mean ranks are over."""

    encoders: list[str]
    columns: list[Cell]
    ranked: dict[tuple[str, Cell], Ranked]
    complete: list[Cell]
    mean_ranks: MeanRanks | None
    mean_rank_of: dict[str, int]
    """Encoder -> its place in `mean_ranks`."""


def rank_all(stored: Measured, resampler: Resampler, progress: Progress) -> Ranking:
    """Every column by itself, Holm's correction over its pairs of encoders; then mean ranks over datasets."""
    columns = sorted(stored.labels, key=lambda cell: (stored.labels[cell], cell))
    ranked: dict[tuple[str, Cell], Ranked] = {}
    for cell in progress.track(columns, "compare encoders"):
        ranked |= _column(stored, cell, resampler)
    names = sorted(stored.scores)
    complete = [cell for cell in columns if all((name, cell) in ranked for name in names)]
    ranks, order = None, names
    if complete and len(names) > 1:
        signed_KC = [[_signed(ranked[name, cell], cell) for cell in complete] for name in names]
        datasets = [stored.datasets[cell] for cell in complete]
        ranks = mean_ranks(signed_KC, datasets, resampler.resamples, resampler.seed)
        order = [name for _, name in sorted(zip(ranks.means, names, strict=True))]
    return Ranking(
        encoders=order,
        columns=columns,
        ranked=ranked,
        complete=complete,
        mean_ranks=ranks,
        mean_rank_of={name: index for index, name in enumerate(names)},
    )


def _signed(ranked: Ranked, cell: Cell) -> float:
    return ranked.score.mean if cell.higher_is_better else -ranked.score.mean


def _column(stored: Measured, cell: Cell, resampler: Resampler) -> dict[tuple[str, Cell], Ranked]:
    """Ranges of ranks in a column."""
    names = [name for name, scores in stored.scores.items() if cell in scores]
    tests: dict[tuple[int, int], tuple[float, float]] = {}
    for i, j in itertools.combinations(range(len(names)), 2):
        a, b = stored.scores[names[i]], stored.scores[names[j]]
        if a[cell].keys() & b[cell].keys():
            pair = difference(cell, a, b, resampler)
            if pair.difference.p is not None:
                tests[i, j] = pair.gain, pair.difference.p
    better_KK = np.zeros((len(names), len(names)), dtype=np.bool_)
    for (i, j), p in zip(tests, holm([p for _, p in tests.values()]).tolist(), strict=True):
        if p < SIGNIFICANT:
            better_KK[(i, j) if tests[i, j][0] > 0 else (j, i)] = True
    found = {}
    for name, (best, worst) in zip(names, rank_ranges(better_KK), strict=True):
        runs = stored.scores[name][cell]
        score = resampler.summary(cell, [runs[seed] for seed in sorted(runs)])
        found[name, cell] = Ranked(cell=cell, score=score, best=best, worst=worst, rivals=len(names) - 1)
    return found


def as_json(ranking: Ranking, stored: Measured) -> dict[str, Any]:
    """Plain numbers, as shown (fractions in percent)."""
    columns = [
        cell._asdict()
        | {"dataset": stored.datasets[cell], "unit": cell.shown_unit}
        | {
            "encoders": {
                name: _ranked_json(ranking.ranked[name, cell])
                for name in ranking.encoders
                if (name, cell) in ranking.ranked
            }
        }
        for cell in ranking.columns
    ]
    ranks = ranking.mean_ranks
    if ranks is None:
        return {"encoders": ranking.encoders, "columns": columns, "mean_ranks": None}
    rows = {}
    for name, index in ranking.mean_rank_of.items():
        low, high = (None, None) if ranks.intervals is None else ranks.intervals[index]
        rows[name] = {"mean": ranks.means[index], "low": low, "high": high}
    overall = {"datasets": ranks.datasets, "friedman": ranks.friedman, "encoders": rows}
    return {"encoders": ranking.encoders, "columns": columns, "mean_ranks": overall}


def _ranked_json(entry: Ranked) -> dict[str, Any]:
    low, high = entry.interval or (None, None)
    return {
        "mean": entry.score.mean,
        "spread": entry.score.spread,
        "low": low,
        "high": high,
        "how": entry.score.how,
        "seeds": entry.score.seeds,
        "items": entry.score.items,
        "best_rank": entry.best,
        "worst_rank": entry.worst,
    }
