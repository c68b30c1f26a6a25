"""Measurements put into rows and columns of a page, one a cell.

The rules are those of `reports.tables.build`, applied column by column: where a cell would mix, its column is split by
what differs in it, and where that is the encoder's own, the rows are. So a column elsewhere keeps its short name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.labels import distinct, remarks
from reports.measurements import VARIANTS, Measurement, separating

_DETAILS = ("split", "config", "protocol_version", "protocol", "dataset_fingerprint", "unit")


@dataclass(frozen=True)
class Column:
    """`variant` says what tells the column from others of its probe, dataset and metric; empty where there are none."""

    probe: str
    dataset: str
    metric: str
    variant: str = ""


@dataclass(frozen=True)
class Row:
    """An encoder as it is labelled; `variant` as a column's."""

    label: str
    variant: str = ""


Cells = dict[tuple[Row, Column], Measurement]


def arrange(found: Sequence[Measurement]) -> Cells:
    """Each measurement in its cell."""
    groups: dict[Column, list[Measurement]] = {}
    for one in found:
        groups.setdefault(Column(one["probe"], one["dataset"], one["metric"]), []).append(one)
    placed: list[tuple[Measurement, Column]] = []
    for name, group in groups.items():
        variants = _variants(group, separating(group, [one.encoder for one in group], _DETAILS))
        columns = [Column(name.probe, name.dataset, name.metric, variant) for variant in variants]
        placed += zip(group, columns, strict=True)
    ordered = [one for one, _ in placed]
    split = separating(ordered, [(one.encoder, column) for one, column in placed], VARIANTS)
    variants = _variants(ordered, split)
    return {(Row(one.encoder, variant), column): one for (one, column), variant in zip(placed, variants, strict=True)}


def _variants(found: Sequence[Measurement], split: Sequence[str]) -> list[str]:
    """What tells each measurement's group from the others: 'grid=matched, val'. Groups that differ never share one."""
    if not split:
        return [""] * len(found)
    values = [tuple(one[name] for name in split) for one in found]
    texts = [remarks(name, column) for name, column in zip(split, zip(*values, strict=True), strict=True)]
    return distinct([", ".join(filter(None, parts)) for parts in zip(*texts, strict=True)], values)
