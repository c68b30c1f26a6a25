"""The miniature's arms in a store of results: an encoder a pretraining, called `ARM sSEED` or `ARM time sSEED`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from reports.measurements import Cell, Measurement, Run, measurements, over_seeds, rows_in
from reports.miniature.claims import NAMES
from rice.errors import RiceError

if TYPE_CHECKING:
    import pandas as pd

Budget = Literal["updates", "time"]
"""What arms are given equally much of: updates, or the time that `rice` took for them."""

BUDGETS: tuple[Budget, ...] = get_args(Budget)
YARDSTICK = "rice"
"""The arm whose time the others get: its encoders of equal updates stand in both comparisons."""

_NAME = re.compile(r"(?P<arm>[a-z-]+)(?P<time> time)? s(?P<seed>\d+)")


class Trained(NamedTuple):
    """One pretrained encoder."""

    arm: str
    budget: Budget
    seed: int

    @classmethod
    def parse(cls, name: str) -> "Trained | None":
        """Of an encoder's name; None for one that is no arm's."""
        found = _NAME.fullmatch(name)
        if found is None or found["arm"] not in NAMES:
            return None
        return cls(found["arm"], "time" if found["time"] else "updates", int(found["seed"]))

    @property
    def name(self) -> str:
        """'mlcd s0', 'mlcd time s0'."""
        return f"{self.arm}{' time' if self.budget == 'time' else ''} s{self.seed}"


@dataclass(frozen=True)
class Scores:
    """`of`: encoder -> what was measured of it, over the probe's seeds. `others`: encoders that are no arm's."""

    of: Mapping[Trained, Mapping[Cell, Measurement]]
    others: tuple[str, ...]

    def cells(self, probe: str, metric: str) -> list[Cell]:
        """Where a metric was measured: one cell a dataset, in the order of their names.

        Errors: RiceError where one dataset has several, of two configurations, say: which is meant cannot be told.
        """
        datasets: dict[str, Cell] = {}
        for measured in self.of.values():
            for cell, one in measured.items():
                if (cell.probe, cell.metric) == (probe, metric) and datasets.setdefault(one["dataset"], cell) != cell:
                    raise RiceError(
                        f"{probe} / {metric} on {one['dataset']} was measured in two ways, which differ in "
                        f"{_difference(cell, datasets[one['dataset']])}; keep the results of one in the folder"
                    )
        return [datasets[name] for name in sorted(datasets)]

    def dataset(self, cell: Cell) -> str:
        """Its name."""
        return str(next(measured[cell]["dataset"] for measured in self.of.values() if cell in measured))

    def seeds(self) -> list[int]:
        """Of pretraining."""
        return sorted({trained.seed for trained in self.of})

    def runs(self, trained: Trained, cell: Cell) -> Mapping[int, Run]:
        """By the probe's seed; none where it was not measured."""
        one = self.of.get(trained, {}).get(cell)
        return {} if one is None else one.runs

    def pretrainings(self, arm: str, budget: Budget, cell: Cell) -> dict[int, Mapping[int, Run]]:
        """Of an arm in a cell: pretraining seed -> probe's seed -> number; those without any are left out."""
        lent = "updates" if arm == YARDSTICK else budget
        found = {seed: self.runs(Trained(arm, lent, seed), cell) for seed in self.seeds()}
        return {seed: runs for seed, runs in found.items() if runs}

    def arms(self, budget: Budget) -> list[str]:
        """That were trained for a budget, in the order of NAMES; with the yardstick, where there is another one."""
        trained = {one.arm for one in self.of if one.budget == budget}
        return [arm for arm in NAMES if arm in trained or (trained and arm == YARDSTICK)]


def scores_of(frame: "pd.DataFrame") -> Scores:
    """Of a frame of `probes.results.load`.

    Errors: RiceError where one name stands for two encoders: a result of an earlier pretraining would be averaged in.
    """
    of: dict[Trained, dict[Cell, Measurement]] = {}
    others = set()
    for one in measurements(rows_in(frame)):
        trained = Trained.parse(one["encoder"])
        if trained is None:
            others.add(str(one["encoder"]))
        elif of.setdefault(trained, {}).setdefault(one.cell, one) is not one:
            raise RiceError(
                f"{one['encoder']} stands for several encoders in {one['probe']} / {one['metric']}: another "
                "pretraining, size or layer; keep the results of one in the folder"
            )
    return Scores(of, tuple(sorted(others)))


def mean_of(runs: Iterable[Run]) -> float:
    """Over a probe's seeds, in any order."""
    return over_seeds([run.value for run in runs]).mean


def _difference(one: Sequence[object], other: Sequence[object]) -> str:
    return next(name for name, a, b in zip(Cell._fields, one, other, strict=True) if a != b).replace("_", " ")
