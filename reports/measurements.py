"""Stored results by what they measure. Every table, page, card and comparison of them starts here.

A measurement is one metric of one configuration over its seeds. Two measurements are of one cell where they have the
same probe, dataset fingerprint, metric, split, config, protocol and its version. Only then are they ever compared.
"""

import functools
import math
import operator
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from probes.results import ORDER
from reports.labels import encoder_label

if TYPE_CHECKING:
    import pandas as pd

VARIANTS = ("size", "layer", "encoder_fingerprint")
"""What tells apart encoders of one label, in the order in which a label is made longer."""

_WHOLE = ("size", "layer", "tokens")
"""Whole numbers, which a frame holds as fractions where some are not known."""


class Cell(NamedTuple):
    """What a number measures, whoever is measured. Fields as in `probes.results.COLUMNS`."""

    probe: str
    dataset_fingerprint: str
    metric: str
    split: str
    config: str
    protocol_version: int
    protocol: str
    unit: str
    higher_is_better: bool

    @property
    def factor(self) -> int:
        """Fractions are shown in percent."""
        return 100 if self.unit == "fraction" else 1

    @property
    def shown_unit(self) -> str:
        """Of numbers as they are shown."""
        return "%" if self.unit == "fraction" else self.unit


class Run(NamedTuple):
    """One seed's number as it is shown (fractions in percent), and the key of the result that it stands in."""

    value: float
    key: str


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation (ddof 1; None for one seed) over seeds."""

    mean: float
    spread: float | None
    seeds: int

    def text(self, decimals: int) -> str:
        """'41.25 ± 0.31'."""
        spread = "" if self.spread is None else f" ± {self.spread:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"


def over_seeds(values: Sequence[float]) -> Score:
    """The score of at least one seed, in any order. Equal values have themselves as their mean, and no spread."""
    count = len(values)
    if count == 1 or min(values) == max(values):
        return Score(values[0], None if count == 1 else 0.0, count)
    mean = math.fsum(values) / count
    return Score(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)), count)


@dataclass(frozen=True)
class Measurement:
    """`rows`: a result each, in the order of their seeds, alike in all that decides the number but the seed.

    A row holds the columns of `probes.results.load`, None for what is not known. `measurement[name]` is the first's.
    """

    rows: tuple[Mapping[str, Any], ...]

    def __getitem__(self, name: str) -> Any:
        return self.rows[0][name]

    @functools.cached_property
    def cell(self) -> Cell:
        """What is measured."""
        return Cell(*(self[name] for name in Cell._fields))

    @property
    def encoder(self) -> str:
        """The label, with a remark where the weights are random."""
        return encoder_label(self["encoder"], self["trained"])

    @functools.cached_property
    def runs(self) -> dict[int, Run]:
        """By seed."""
        return {row["seed"]: Run(self.cell.factor * row["value"], row["key"]) for row in self.rows}

    @property
    def items(self) -> int:
        """The most items that stand behind a seed's number; 0 where that is not known."""
        return max(int(row["n"]) for row in self.rows)

    @functools.cached_property
    def score(self) -> Score:
        """Over the seeds, as it is shown."""
        return over_seeds([run.value for run in self.runs.values()])


def measurements(rows: Iterable[Mapping[str, Any]], by: Sequence[str] = ()) -> list[Measurement]:
    """Of rows as `probes.results.rows_of` gives them, in the order of `probes.results.load`, whatever theirs is.

    `by`: columns that rows of a measurement must share, too: 'device', say, or 'seed'.
    """
    names = ("encoder", "trained", *VARIANTS, "dataset", *Cell._fields, *by)
    groups: dict[tuple[Hashable, ...], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=operator.itemgetter(*ORDER)):
        groups.setdefault(tuple([row[name] for name in names]), []).append(row)
    return [Measurement(tuple(group)) for group in groups.values()]


def separating(found: Sequence[Measurement], places: Sequence[Hashable], details: Sequence[str]) -> list[str]:
    """Those of `details`, in their order, without which some place would hold measurements that differ in them."""
    chosen: list[str] = []
    cells = list(places)
    for name in details:
        seen: dict[Hashable, Any] = {}
        if any(seen.setdefault(cell, one[name]) != one[name] for one, cell in zip(found, cells, strict=True)):
            chosen.append(name)
            cells = [(cell, one[name]) for one, cell in zip(found, cells, strict=True)]
    return chosen


def items_text(found: Sequence[Measurement]) -> str:
    """How many items stand behind a seed's number: 'n = 5000', 'n = 0 to 16'."""
    sizes = sorted({row["n"] for one in found for row in one.rows})
    return f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]}"


def rows_in(frame: "pd.DataFrame") -> Iterator[dict[str, Any]]:
    """The rows of a frame of `probes.results.load`, as `probes.results.rows_of` gives them."""
    columns = {name: _values(frame[name], whole=name in _WHOLE) for name in frame.columns}
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _values(column: "pd.Series[Any]", *, whole: bool) -> list[Any]:
    """None for what is not known. Equal texts are one object: a frame may keep a paragraph a million times."""
    if column.dtype == "str":
        places, texts = column.factorize()
        known = [*texts.tolist(), None]  # -1 is the place of what is not known
        return [known[place] for place in places.tolist()]
    there = column.notna().tolist()
    return [
        None if not known else int(value) if whole else value
        for value, known in zip(column.tolist(), there, strict=True)
    ]
