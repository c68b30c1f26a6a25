"""Stored results by what they measure: encoders, cells that they share, and what a person calls both.

Two results are of one cell where they have the same probe, dataset fingerprint, metric, split, config, protocol and
its version. Only then are they ever compared.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.labels import config_differences

if TYPE_CHECKING:
    import pandas as pd

CELL = (
    *("probe", "dataset_fingerprint", "metric", "split", "config"),
    *("protocol_version", "protocol", "unit", "higher_is_better"),
)
VARIANTS = ("size", "layer", "encoder_fingerprint")
"""What tells apart encoders of one name, in the order in which a name is made longer."""

_HASH_LENGTH = 8
_NAMED = ("metric", "split", "config", "dataset_fingerprint", "protocol_version", "protocol", "unit")
_PLAIN = {"dataset_fingerprint": "dataset's content (fingerprint)", "protocol_version": "version of the probe"}


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
    def points(self) -> str:
        """What a difference is counted in."""
        return "points" if self.unit in ("fraction", "%") else self.unit

    def differs_in(self, other: "Cell") -> list[str]:
        """The fields in which two cells differ, as a person calls them."""
        return [_PLAIN.get(name, name) for name in CELL if getattr(self, name) != getattr(other, name)]


class Run(NamedTuple):
    """One seed's number, and the key of the result that it stands in."""

    value: float
    key: str


Scores = Mapping[Cell, Mapping[int, Run]]
"""Of one encoder: cell -> seed -> number."""


@dataclass(frozen=True)
class Measured:
    """All that is stored. `scores`: encoder's label -> its scores; `datasets`, `labels`: what each cell is called."""

    scores: Mapping[str, Scores]
    datasets: Mapping[Cell, str]
    labels: Mapping[Cell, tuple[str, str, str]]
    untrained: frozenset[str]

    def title(self, cell: Cell) -> str:
        """'dense / scenes / mIoU'."""
        return " / ".join(self.labels[cell])

    def shown(self, encoder: str) -> str:
        """The label, with a remark where the weights are random."""
        return f"{encoder} (untrained)" if encoder in self.untrained else encoder


def measured(frame: "pd.DataFrame") -> Measured:
    """Of rows as `probes.results.load` gives them, in any order."""
    frame = frame.sort_values(["encoder", "key", "metric", "split"], ignore_index=True)
    frame = frame.assign(label=encoder_labels(frame))
    scores: dict[str, dict[Cell, dict[int, Run]]] = {}
    datasets: dict[Cell, str] = {}
    columns = [frame[name].tolist() for name in ("label", "dataset", "seed", "value", "key", *CELL)]
    for label, dataset, seed, value, key, *fields in zip(*columns, strict=True):
        cell = Cell(*fields)
        datasets.setdefault(cell, dataset)
        scores.setdefault(label, {}).setdefault(cell, {})[seed] = Run(value, key)
    untrained = frozenset(frame.loc[~frame["trained"].astype(bool), "label"])
    return Measured(scores, datasets, _cell_labels(datasets), untrained)


def encoder_labels(frame: "pd.DataFrame") -> "pd.Series[str]":
    """Each row's encoder; with its size, layer or fingerprint where one name stands for several in a cell."""
    label = frame["encoder"].astype(str)
    cell = frame.groupby(list(CELL), dropna=False, sort=False).ngroup()
    for key in VARIANTS:
        variant = frame[key].astype(object).where(frame[key].notna(), "?")
        several = variant.groupby([label, cell], sort=False).nunique()
        mixed = label.isin(set(several[several > 1].index.get_level_values(0)))
        if mixed.any():
            label = label.where(~mixed, label + variant.map(functools.partial(_suffix, key)))
    return label


def _suffix(key: str, value: Any) -> str:
    text = str(value) if isinstance(value, str) else f"{value:g}"
    return {"size": f"@{text}", "layer": f",layer={text}"}.get(key, f" [{text[:_HASH_LENGTH]}]")


def _cell_labels(datasets: Mapping[Cell, str]) -> dict[Cell, tuple[str, str, str]]:
    """(probe, dataset, metric), longer by what differs where several cells would read the same."""
    labels = {cell: (cell.probe, dataset, cell.metric) for cell, dataset in datasets.items()}
    for field in _NAMED[1:]:
        groups: dict[tuple[str, str, str], list[Cell]] = {}
        for cell, label in labels.items():
            groups.setdefault(label, []).append(cell)
        for (probe, dataset, metric), cells in groups.items():
            if len({getattr(cell, field) for cell in cells}) > 1:
                for cell, remark in zip(cells, _remarks(field, cells), strict=True):
                    labels[cell] = (probe, dataset, f"{metric} ({remark})")
    return labels


def _remarks(field: str, cells: Sequence[Cell]) -> list[str]:
    """Short texts that tell the cells apart by a field."""
    values = [getattr(cell, field) for cell in cells]
    if field == "dataset_fingerprint":
        return [f"data {value[:_HASH_LENGTH]}" for value in values]
    if field == "config":
        labels = config_differences(values)
        return [labels[value] for value in values]
    if field == "protocol":
        distinct = sorted(set(values))
        return [f"protocol {distinct.index(value) + 1}" for value in values]
    return [f"version {value}" if field == "protocol_version" else str(value) for value in values]
