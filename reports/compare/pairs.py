"""Two encoders cell by cell, and one claim about them: paired differences, corrected for how many cells there are."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reports.compare.measured import Measured, Scores
from reports.compare.resample import Resampler
from reports.compare.statistics import Across, Estimate, across, holm
from reports.measurements import Cell, over_seeds
from rice.errors import RiceError

Verdict = Literal["better", "worse", "indistinguishable", "equal", "not tested"]

SIGNIFICANT = 0.05

_PLAIN = {"dataset_fingerprint": "dataset's content (fingerprint)", "protocol_version": "version of the probe"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The first encoder against the second in a cell, over the seeds that both have.

    `first`, `second`: means, and `difference` the first less the second, all as shown (fractions in percent). `p`:
    Holm's, over all cells of the comparison; None where there was nothing to test. `verdict`: of the first.
    """

    cell: Cell
    first: float
    second: float
    difference: Estimate
    p: float | None = None
    verdict: Verdict = "not tested"

    @property
    def gain(self) -> float:
        """The difference, > 0 where the first is better."""
        return self.difference.mean if self.cell.higher_is_better else -self.difference.mean

    def words(self, decimals: int) -> str:
        """'better by 1.30 points (0.40 to 2.20), p 0.010'."""
        size, points = f"{abs(self.gain):.{decimals}f}", _points(self.cell)
        if self.verdict == "equal":
            return "equal in every seed"
        if self.p is None or self.difference.interval is None:
            return f"{_signed(self.gain, decimals)} {points}; not tested: one seed, or all alike, and no items"
        ends = self.difference.interval if self.cell.higher_is_better else [-x for x in self.difference.interval[::-1]]
        if self.verdict == "worse":
            ends = [-x for x in ends[::-1]]
        between = f"({ends[0]:.{decimals}f} to {ends[1]:.{decimals}f})"
        if self.verdict != "indistinguishable":
            return f"{self.verdict} by {size} {points} {between}, {show_p(self.p)}"
        alone = self.difference.p
        before = f", alone {show_p(alone)}" if alone is not None and alone < SIGNIFICANT else ""
        return f"indistinguishable: {_signed(self.gain, decimals)} {points} {between}, {show_p(self.p)}{before}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All shared cells; `left_out`: the others and why, one text each; `over_datasets`: of metrics in percent."""

    first: str
    second: str
    pairs: list[Pair]
    left_out: list[str]
    over_datasets: Across | None


def compare_pair(stored: Measured, first: str, second: str, resampler: Resampler) -> Comparison:
    """Errors: RiceError in one line where the two share no cell, saying what differs."""
    a, b = stored.scores[first], stored.scores[second]
    shared = [cell for cell in a if cell in b and a[cell].keys() & b[cell].keys()]
    left_out = _left_out(stored, first, second)
    if not shared:
        raise RiceError(
            f"{first} and {second} share no cell: {left_out[0]}; compare results of one sweep, or run the missing cells"
        )
    shared.sort(key=lambda cell: stored.labels[cell])
    tested = _judged([difference(cell, a, b, resampler) for cell in shared])
    return Comparison(
        first=first, second=second, pairs=tested, left_out=left_out, over_datasets=_over_datasets(stored, tested)
    )


def difference(cell: Cell, a: Scores, b: Scores, resampler: Resampler) -> Pair:
    """The paired difference in a cell that both have, over the seeds that both have; not judged yet."""
    seeds = sorted(a[cell].keys() & b[cell].keys())
    ours, theirs = [a[cell][seed] for seed in seeds], [b[cell][seed] for seed in seeds]
    first, second = (over_seeds([run.value for run in runs]).mean for runs in (ours, theirs))
    estimate = resampler.summary(cell, ours, minus=theirs)
    equal = all(one.value == other.value for one, other in zip(ours, theirs, strict=True))
    verdict: Verdict = "equal" if equal else "not tested"
    return Pair(cell=cell, first=first, second=second, difference=estimate, verdict=verdict)


def _judged(pairs: Sequence[Pair]) -> list[Pair]:
    """With Holm's p-values and verdicts; pairs that are equal or cannot be tested stay as they are."""
    p_values = {k: pair.difference.p for k, pair in enumerate(pairs) if pair.verdict != "equal"}
    tested = {k: p for k, p in p_values.items() if p is not None}
    judged = list(pairs)
    for k, p in zip(tested, holm(list(tested.values())).tolist(), strict=True):
        verdict: Verdict = "indistinguishable"
        if p < SIGNIFICANT:
            verdict = "better" if pairs[k].gain > 0 else "worse"
        judged[k] = dataclasses.replace(pairs[k], p=p, verdict=verdict)
    return judged


def _over_datasets(stored: Measured, pairs: Sequence[Pair]) -> Across | None:
    """Gains in points, averaged in each dataset, since the metrics of one say nearly the same."""
    gains: dict[str, list[float]] = {}
    for pair in pairs:
        if _points(pair.cell) == "points":
            gains.setdefault(stored.datasets[pair.cell], []).append(pair.gain)
    return across([math.fsum(values) / len(values) for values in gains.values()]) if gains else None


def _left_out(stored: Measured, first: str, second: str) -> list[str]:
    """Why cells and seeds are not compared, the nearest misses first."""
    a, b = stored.scores[first], stored.scores[second]
    misses: list[tuple[int, str]] = []
    for cell in sorted(a.keys() & b.keys(), key=lambda cell: stored.labels[cell]):
        lone = a[cell].keys() ^ b[cell].keys()
        if lone:
            some = "their seeds differ" if not a[cell].keys() & b[cell].keys() else "not all seeds are shared"
            misses.append((0, f"{stored.title(cell)}: {some} ({_seeds(a, cell)} and {_seeds(b, cell)})"))
    for mine, own, other, theirs in ((a, first, second, b), (b, second, first, a)):
        misses += [_miss(stored, cell, own, other, theirs) for cell in mine if cell not in theirs]
    return list(dict.fromkeys(text for _, text in sorted(misses)))


def _miss(stored: Measured, cell: Cell, own: str, other: str, theirs: Scores) -> tuple[int, str]:
    """(in how many fields the nearest cell of the same probe and metric differs, why it is not compared)."""
    near = [other_cell for other_cell in theirs if (other_cell.probe, other_cell.metric) == (cell.probe, cell.metric)]
    if not near:
        return 100, f"{stored.title(cell)}: only {own} has it"
    fields = min((_differing(cell, other_cell) for other_cell in near), key=len)
    return len(fields), f"{cell.probe} / {cell.metric}: {own} and {other} differ in {', '.join(fields)}"


def _differing(cell: Cell, other: Cell) -> list[str]:
    """The fields in which two cells differ, as a person calls them."""
    return [_PLAIN.get(name, name) for name in Cell._fields if getattr(cell, name) != getattr(other, name)]


def _points(cell: Cell) -> str:
    """What a difference is counted in."""
    return "points" if cell.shown_unit == "%" else cell.unit


def _seeds(scores: Scores, cell: Cell) -> str:
    return ", ".join(map(str, sorted(scores[cell])))


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}"


def show_p(p: float) -> str:
    """'p 0.012', 'p < 0.001'."""
    return "p < 0.001" if p < 0.001 else f"p {p:.{3 if p < 0.1 else 2}f}"


def as_json(comparison: Comparison, stored: Measured) -> dict[str, Any]:
    """Plain numbers, as shown (fractions in percent); `low` and `high` are of the difference."""
    cells = []
    for pair in comparison.pairs:
        low, high = pair.difference.interval or (None, None)
        cells.append(
            pair.cell._asdict()
            | {"dataset": stored.datasets[pair.cell], "unit": pair.cell.shown_unit}
            | {"first": pair.first, "second": pair.second, "difference": pair.difference.mean}
            | {"low": low, "high": high, "how": pair.difference.how}
            | {"seeds": pair.difference.seeds, "items": pair.difference.items}
            | {"p": pair.difference.p, "p_holm": pair.p, "verdict": pair.verdict}
        )
    over = comparison.over_datasets
    return {
        "first": comparison.first,
        "second": comparison.second,
        "cells": cells,
        "over_datasets": None if over is None else dataclasses.asdict(over),
        "left_out": comparison.left_out,
    }
