"""Measured results beside the paper's cells: which belong where, and how their protocol differs. Never mixed silently.

A result belongs in a cell by its probe, metric and dataset name (`reports.paper.layout`), and beside a printed row by the
zoo's name of its encoder. What is known of the paper's protocol is the number of test items, the split, and the
configuration of the built-in sweep for that table.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.labels import config_differences, flattened
from reports.paper.layout import Layout, Source, ablation_labels, layout
from reports.paper.printed import TABLES, Row, number, paper
from rice.encoders.spec import EncoderReference

if TYPE_CHECKING:
    import pandas as pd

_IDENTITY = ("encoder_fingerprint", "size", "layer", "config", "protocol_version", "dataset_fingerprint", "dataset")
_NAMED = 3
"""Differences of a configuration that are spelt out."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One measured cell laid beside the paper's.

    `row`: label of the paper's row with the same encoder, "" where it has none; `line`: that row's printed line.
    `printed`: the reported value, None where there is no such row. `mean` and `spread` (ddof 1; None for one seed) over
    seeds, in the paper's units. `differs`: how the protocol differs from the paper's, in words. `keys`: of the results.
    """

    table: str
    row: str
    line: int | None
    column: str
    printed: float | None
    encoder: str
    mean: float
    spread: float | None
    seeds: int
    differs: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Measured minus reported."""
        return None if self.printed is None else self.mean - self.printed


def beside(frame: "pd.DataFrame") -> list[Beside]:
    """All cells of all tables that a frame of `probes.results.load` has something for, in the tables' order."""
    return [cell for table in TABLES for cell in _table(table, frame)]


def _table(table: str, frame: "pd.DataFrame") -> Iterator[Beside]:
    plan, rows = layout(table), {row.line: row for row in paper(table)}
    for name, source in plan.sources.items():
        found = frame[(frame["probe"] == source.probe) & (frame["metric"] == source.metric)]
        if source.datasets:
            found = found[found["dataset"].str.lower().isin(source.datasets)]
        of_plan = found["encoder"].isin(ablation_labels(table) if plan.transposed else _all_ablations())
        found = found[of_plan if plan.transposed else ~of_plan]
        yield from _cells(table, plan, rows, name, source, found)


def _cells(
    table: str, plan: Layout, rows: Mapping[int, Row], name: str, source: Source, found: "pd.DataFrame"
) -> Iterator[Beside]:
    variants = found.groupby(["encoder", *_IDENTITY], sort=True, dropna=False)
    distinct = found.groupby("encoder")[list(_IDENTITY)].nunique(dropna=False)
    for (encoder, *_), group in variants:
        first = group.iloc[0]
        row, column, label = _place(plan, rows, name, first)
        varying = [key for key in _IDENTITY if distinct.loc[encoder, key] > 1]
        configs = found.loc[found["encoder"] == encoder, "config"].unique()
        suffix = ", ".join(_shown(key, first[key], configs) for key in varying)
        times = source.times or (100.0 if first["unit"] == "fraction" else 1.0)
        values = group["value"] * times
        yield Beside(
            table=table,
            row="" if row is None else row.label,
            line=None if row is None else row.line,
            column=column,
            printed=None if row is None or column not in row.cells else number(row.cells[column]),
            encoder=f"{label} ({suffix})" if suffix else label,
            mean=float(values.mean()),
            spread=float(values.std()) if len(values) > 1 else None,
            seeds=len(values),
            differs=tuple(_differences(plan, source, first)),
            keys=tuple(group["key"]),
        )


def _place(plan: Layout, rows: Mapping[int, Row], name: str, result: "pd.Series[Any]") -> tuple[Row | None, str, str]:
    """The printed row, the column, and what names the measured row."""
    untrained = "" if result["trained"] else " (untrained)"
    if plan.transposed:
        row = next(row for row in rows.values() if row.method == name)
        return row, str(result["encoder"]).removeprefix(plan.encoder_labels), str(result["encoder"])
    zoo = _zoo_name(str(result["reference"]))
    line = next((line for line, entry in plan.encoders.items() if entry == zoo and result["trained"]), None)
    return (None if line is None else rows[line]), name, f"{result['encoder']}{untrained}"


def _zoo_name(reference: str) -> str:
    found = re.fullmatch(r"[A-Za-z0-9._-]+(@\d+)?(,layer=-?\d+)?", reference)
    return EncoderReference.parse(reference).name if found else reference


def _shown(key: str, value: object, configs: Iterable[str]) -> str:
    """What tells a variant from others of its encoder: 'epochs=24', 'size 512', 'dataset 1a2b3c4d'."""
    if key == "config":
        return config_differences(configs)[str(value)]
    return f"{key.removesuffix('_fingerprint')} {str(value)[:8] if key.endswith('fingerprint') else value}"


def _differences(plan: Layout, source: Source, result: "pd.Series[Any]") -> Iterator[str]:
    if source.caveat is not None:
        yield source.caveat
    if source.n is not None and result["n"] != source.n:
        yield f"{result['n']:,} test items instead of {source.n:,}"
    if source.split is not None and result["split"] != source.split:
        yield f"split {result['split']} instead of {source.split}"
    if plan.sweep is None:
        return
    config = flattened(json.loads(result["config"]))
    known = [own for probe, own in _protocols(plan.sweep) if probe == result["probe"]]
    apart = [[key for key in {**own, **config} if own.get(key) != config.get(key)] for own in known]
    if not known or not min(apart, key=len):
        return
    nearest = min(range(len(known)), key=lambda i: len(apart[i]))
    for key in apart[nearest][:_NAMED]:
        yield f"{key} {_value(config, key)} instead of {_value(known[nearest], key)}"
    if len(apart[nearest]) > _NAMED:
        yield f"{len(apart[nearest]) - _NAMED} more settings differ"


@functools.cache
def _all_ablations() -> frozenset[str]:
    return frozenset(label for table in TABLES for label in ablation_labels(table))


@functools.cache
def _protocols(sweep: str) -> list[tuple[str, dict[str, Any]]]:
    """(probe, identity of its configuration, flattened) of each entry of a built-in sweep."""
    from probes.protocol import identity, probe_class
    from probes.sweeps.overrides import flags, parse_config
    from probes.sweeps.sweepfile import built_in_probes

    found = []
    for entry in built_in_probes(sweep):
        config: Any = probe_class(entry.probe).Config
        parsed = identity(parse_config(config, flags(entry.overrides), f"sweep {sweep}"))
        found.append((entry.probe, flattened(json.loads(json.dumps(parsed)))))
    return found


def _value(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    return "unset" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
