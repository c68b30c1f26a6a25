"""Measurements put into rows and columns so that a cell holds seeds of one configuration and nothing else.

The rules are those of `reports.tables.build`, applied column by column: where a cell would mix, its column is split by
what differs in it, and where that is the encoder's own, the rows are. So a column elsewhere keeps its short name.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.labels import config_differences

_COLUMN = ("probe", "dataset", "metric")
_DETAILS = ("split", "config", "protocol_version", "protocol", "dataset_fingerprint", "unit")
_ROW_DETAILS = ("size", "layer", "encoder_fingerprint")
_HASH_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric of one result. `identity` holds what a cell may not mix; `value` and `stderr` in `unit`, fractions in
    percent; `metric` as stored."""

    document: Mapping[str, Any]
    metric: Mapping[str, Any]
    identity: Mapping[str, Any]
    value: float
    stderr: float | None
    unit: str
    row: str


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


Cells = dict[tuple[Row, Column], list[Measurement]]


def measurements(documents: Iterable[Mapping[str, Any]]) -> list[Measurement]:
    """Every metric of every document."""
    return [_measurement(document, metric) for document in documents for metric in document["metrics"]]


def arrange(found: Sequence[Measurement]) -> Cells:
    """Each cell's measurements, ordered by seed: one a seed, and alike in all but the seed."""
    groups: dict[tuple[Any, ...], list[Measurement]] = defaultdict(list)
    for one in found:
        groups[tuple(one.identity[key] for key in _COLUMN)].append(one)
    columns: dict[int, Column] = {}
    mixed: dict[tuple[str, Column], list[Measurement]] = defaultdict(list)
    for name, group in groups.items():
        split = _separating(group, [()] * len(group), _DETAILS)
        labels = _labels(group, split)
        for one, label in zip(group, labels, strict=True):
            columns[id(one)] = Column(name[0], name[1], name[2], label)
            mixed[one.row, columns[id(one)]].append(one)
    split = _separating(found, [columns[id(one)] for one in found], _ROW_DETAILS)
    cells: Cells = defaultdict(list)
    for one, label in zip(found, _labels(found, split), strict=True):
        cells[Row(one.row, label), columns[id(one)]].append(one)
    return {place: sorted(group, key=lambda one: int(one.document["seed"])) for place, group in cells.items()}


def _measurement(document: Mapping[str, Any], metric: Mapping[str, Any]) -> Measurement:
    identity, scale = document["identity"], 100 if metric["unit"] == "fraction" else 1
    unit = "%" if metric["unit"] == "fraction" else metric["unit"]
    return Measurement(
        document=document,
        metric=metric,
        identity={key: identity[key] for key in (*_ROW_DETAILS, "probe", "protocol_version", "dataset_fingerprint")}
        | {"dataset": document["dataset"], "config": json.dumps(identity["config"], sort_keys=True)}
        | {"metric": metric["name"], "split": metric["split"], "protocol": metric["protocol"], "unit": unit},
        value=metric["value"] * scale,
        stderr=None if metric["stderr"] is None else metric["stderr"] * scale,
        unit=unit,
        row=document["encoder"] if document["trained"] else f"{document['encoder']} (untrained)",
    )


def _separating(found: Sequence[Measurement], columns: Sequence[Any], details: Sequence[str]) -> list[str]:
    """Those of `details`, in their order, without which some encoder's cell would mix measurements."""
    chosen: list[str] = []
    for key in details:
        seen: dict[tuple[Any, ...], Any] = {}
        for one, column in zip(found, columns, strict=True):
            cell = (one.row, column, *(one.identity[k] for k in chosen))
            if seen.setdefault(cell, one.identity[key]) != one.identity[key]:
                chosen.append(key)
                break
    return chosen


def _labels(found: Sequence[Measurement], split: Sequence[str]) -> Iterator[str]:
    """What tells each measurement's group from the others: 'grid=matched, val'. Groups that differ never share one."""
    if not split:
        yield from ("" for _ in found)
        return
    texts = [_texts(key, [one.identity[key] for one in found]) for key in split]
    joined = [", ".join(filter(None, parts)) for parts in zip(*texts, strict=True)]
    groups: dict[str, dict[tuple[Any, ...], int]] = defaultdict(dict)  # {"x": 1} and {"x": "1"} read the same
    for one, text in zip(found, joined, strict=True):
        values = tuple(one.identity[key] for key in split)
        number = groups[text].setdefault(values, len(groups[text]) + 1)
        yield text if number == 1 else f"{text} ({number})"


def _texts(key: str, values: Sequence[Any]) -> list[str]:
    if key == "config":
        short = config_differences(values)
        return [short[value] for value in values]
    if key == "protocol":  # a paragraph: numbered here, in full in the notes
        numbers = {text: i for i, text in enumerate(sorted(set(values)), start=1)}
        return [f"protocol {numbers[value]}" for value in values]
    if key.endswith("fingerprint"):
        return [f"{key.removesuffix('_fingerprint')} {value[:_HASH_LENGTH]}" for value in values]
    if key in ("split", "unit"):
        return [str(value) for value in values]
    return [f"{key.replace('_', ' ')} {'?' if value is None else value}" for value in values]
