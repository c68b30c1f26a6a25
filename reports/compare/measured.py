"""What encoders have in common to be compared by: their cells, and what a person calls both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.labels import encoder_label, remarks, short
from reports.measurements import VARIANTS, Cell, Measurement, Run, measurements, rows_in

if TYPE_CHECKING:
    import pandas as pd

_NAMED = ("split", "config", "dataset_fingerprint", "protocol_version", "protocol", "unit")
"""Beside its probe, dataset and metric, what a cell is called by where several would read the same."""

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
        return encoder_label(encoder, encoder not in self.untrained)


def measured(frame: "pd.DataFrame") -> Measured:
    """Of rows as `probes.results.load` gives them, in any order."""
    found = measurements(rows_in(frame))
    scores: dict[str, dict[Cell, dict[int, Run]]] = {}
    datasets: dict[Cell, str] = {}
    untrained = set()
    for one, label in zip(found, _encoder_labels(found), strict=True):
        datasets.setdefault(one.cell, one["dataset"])
        scores.setdefault(label, {}).setdefault(one.cell, {}).update(one.runs)
        if not one["trained"]:
            untrained.add(label)
    return Measured(scores, datasets, _cell_labels(datasets), frozenset(untrained))


def _encoder_labels(found: Sequence[Measurement]) -> list[str]:
    """Each measurement's encoder; with its size, layer or fingerprint where one name stands for several in a cell."""
    labels = [one["encoder"] for one in found]
    for key in VARIANTS:
        values: dict[tuple[str, Cell], set[Any]] = {}
        for one, label in zip(found, labels, strict=True):
            values.setdefault((label, one.cell), set()).add(one[key])
        mixed = {label for (label, _), several in values.items() if len(several) > 1}
        labels = [
            label + _suffix(key, one[key]) if label in mixed else label
            for one, label in zip(found, labels, strict=True)
        ]
    return labels


def _suffix(key: str, value: Any) -> str:
    text = short(key, value, "?")
    return {"size": f"@{text}", "layer": f",layer={text}"}.get(key, f" [{text}]")


def _cell_labels(datasets: Mapping[Cell, str]) -> dict[Cell, tuple[str, str, str]]:
    """(probe, dataset, metric), longer by what differs where several cells would read the same."""
    labels = {cell: (cell.probe, dataset, cell.metric) for cell, dataset in datasets.items()}
    for name in _NAMED:
        groups: dict[tuple[str, str, str], list[Cell]] = {}
        for cell, label in labels.items():
            groups.setdefault(label, []).append(cell)
        for (probe, dataset, metric), cells in groups.items():
            values = [getattr(cell, name) for cell in cells]
            if len(set(values)) > 1:
                for cell, remark in zip(cells, remarks(name, values), strict=True):
                    labels[cell] = (probe, dataset, f"{metric} ({remark})")
    return labels
