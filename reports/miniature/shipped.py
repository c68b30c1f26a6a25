"""The shipped encoders, made again: what a run of the same settings scored, beside what stands on their cards.

Weights are not compared: on another processor sums round otherwise, and training carries that on until nothing is equal
but the scores' distribution. So a score is asked to lie where 95 of 100 further pretrainings would, by the seeds on the
card: for their mean x, standard deviation s and number n, and a mean over m new seeds, x -+ t s sqrt(1/n + 1/m) with
n - 1 degrees of freedom, and the card's rounding. That is a strict question: a card's seeds share one teacher and its
clusters, which a run from nothing makes anew, too.
"""

import dataclasses
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reports.compare.statistics import LEVEL
from reports.miniature.claims import NAMES
from reports.miniature.scores import Scores, mean_of
from reports.miniature.settings import MiniatureConfig
from reports.miniature.tables import columns_of
from rice.encoders.zoo import ZOO

SHIPPED = ("rice", "mlcd", "unicom", "clip")
"""Arms of which an encoder is shipped, called ARM-mini."""

Place = tuple[str, str, str]
"""Probe, dataset, metric."""

_ROW = re.compile(r"\| (?P<place>[^|]+ \| [^|]+ \| [^|]+) \| [-\d.]+ \| (?P<seeds>[-\d., ]+) \|")
_ROUNDING = 0.05
"""Half a unit of the last digit on a card."""


class Again(NamedTuple):
    """A measure of a shipped encoder's arm. card: by seed, as on the card; low, high: where `found`, the mean over this
    run's seeds, is expected; all in percent."""

    arm: str
    place: Place
    card: Sequence[float]
    low: float
    high: float
    found: float

    @property
    def is_within(self) -> bool:
        """Whether it was made again."""
        return self.low <= self.found <= self.high


def as_shipped(config: MiniatureConfig) -> bool:
    """Whether these settings are those of the shipped encoders, but for how often each arm is trained."""
    default = MiniatureConfig()
    return dataclasses.replace(config, seeds=default.seeds, equal_time=default.equal_time) == default


def made_again(scores: Scores) -> list[Again]:
    """Each measure that stands on a card and was measured here, at equal updates."""
    found = []
    for arm in SHIPPED:
        card = read_card(Path(str(ZOO[f"{arm}-mini"].shipped)) / "README.md")
        for cell in (column.cell for column in columns_of(scores) if column.cell is not None):
            runs = scores.pretrainings(arm, "updates", cell)
            place = cell.probe, scores.dataset(cell), cell.metric
            if runs and len(card.get(place, ())) > 1:
                low, high = expected(card[place], len(runs))
                mean = statistics.fmean(mean_of(own.values()) for own in runs.values())
                found.append(Again(NAMES[arm], place, card[place], low, high, mean))
    return found


def read_card(path: Path) -> dict[Place, list[float]]:
    """The last column of a card's table, which `benchmarks/ship_miniature.py` writes: scores by seed."""
    rows = map(_ROW.fullmatch, path.read_text(encoding="utf-8").splitlines())
    return {_place(row["place"]): [float(text) for text in row["seeds"].split(",")] for row in rows if row}


def expected(card: Sequence[float], seeds: int) -> tuple[float, float]:
    """Where the mean over so many new seeds lies in 95 of 100 runs, were scores normal."""
    from scipy.special import stdtrit

    wide = float(stdtrit(len(card) - 1, (1 + LEVEL) / 2)) * statistics.stdev(card)
    margin = wide * math.sqrt(1 / len(card) + 1 / seeds) + _ROUNDING
    mean = statistics.fmean(card)
    return mean - margin, mean + margin


def _place(text: str) -> Place:
    probe, dataset, metric = text.split(" | ")
    return probe, dataset, metric
