"""Measured results beside the paper's cells: which belong where, and how their protocol differs. Never mixed silently.

A result belongs in a cell by its probe, metric and dataset name (`reports.paper.layout`), and beside a printed row by
the zoo's name of its encoder. What is known of the paper's protocol is the number of test items, the split, and the
configuration of the built-in sweep for that table.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.labels import flattened, natural, remarks
from reports.measurements import Measurement, Score, over_seeds
from reports.paper.layout import Layout, Source, ablation_labels, layout
from reports.paper.printed import TABLES, Row, number, paper
from rice.encoders.spec import EncoderReference

_DETAILS = ("encoder_fingerprint", "size", "layer", "config", "protocol_version", "dataset_fingerprint", "dataset")
"""Of what goes in one cell of the paper's by its encoder's label: what tells measurements apart, in order."""
_TRAINING = "training"
"""Where a result that was measured on a trained model has the configuration of that model's probe."""
_JUDGED, _THERE, _SYSTEM_PROMPT = "samples", "samples_there", "system_instruction_sha"
"""Where a result of lmms-eval says what it was asked: see `probes.import_formats.lmms_eval`."""
_NAMED = 3
"""Differences of a configuration that are spelt out."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One measured cell laid beside the paper's.

    `row`: label of the paper's row with the same encoder, "" where it has none; `line`: that row's printed line.
    `printed`: the reported value, None where there is no such row. `score` is in the paper's units. `differs`: how the
    protocol differs from the paper's, in words. `keys`: of the results.
    """

    table: str
    row: str
    line: int | None
    column: str
    printed: float | None
    encoder: str
    score: Score
    differs: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def difference(self) -> float | None:
        """Measured minus reported."""
        return None if self.printed is None else self.score.mean - self.printed


def beside(found: Sequence[Measurement]) -> list[Beside]:
    """All cells of all tables that there is a measurement for, in the tables' order."""
    return [cell for table in TABLES for cell in _table(table, found)]


def _table(table: str, found: Sequence[Measurement]) -> Iterator[Beside]:
    plan, rows = layout(table), {row.line: row for row in paper(table)}
    labels = ablation_labels(table) if plan.transposed else _all_ablations()
    for name, source in plan.sources.items():
        of_encoder: dict[str, list[Measurement]] = {}
        for one in _of(source, found):
            if (one["encoder"] in labels) == plan.transposed:
                of_encoder.setdefault(one["encoder"], []).append(one)
        for unsorted in of_encoder.values():
            group = sorted(unsorted, key=lambda one: natural(*(str(one[detail]) for detail in _DETAILS)))
            for one, suffix in zip(group, _suffixes(group), strict=True):
                yield _cell(table, plan, rows, name, source, one, suffix)


def _of(source: Source, found: Sequence[Measurement]) -> Iterator[Measurement]:
    """Measurements that belong in the source's cells, in order; parts of a mean only where the mean is not there."""
    places = {(place.probe, place.metric): place.datasets for place in source.places}
    fitting = [
        one
        for one in found
        if (datasets := places.get((one["probe"], one["metric"]))) is not None
        and (not datasets or one["dataset"].lower() in datasets)
    ]
    whole = {(one["encoder"], one["encoder_fingerprint"]) for one in fitting if one["dataset"] == source.whole}
    for one in fitting:
        is_part = one["probe"] == source.probe and one["dataset"] != source.whole
        if not (is_part and (one["encoder"], one["encoder_fingerprint"]) in whole):
            yield one


def _suffixes(group: Sequence[Measurement]) -> list[str]:
    """What tells an encoder's measurements apart: ' (epochs=24, size 512)'; empty for a single one."""
    values = {name: [one[name] for one in group] for name in _DETAILS}
    texts = [remarks(name, column) for name, column in values.items() if len(set(column)) > 1]
    return [f" ({', '.join(parts)})" for parts in zip(*texts, strict=True)] if texts else [""] * len(group)


def _cell(
    table: str, plan: Layout, rows: Mapping[int, Row], name: str, source: Source, one: Measurement, suffix: str
) -> Beside:
    row, column, label = _place(plan, rows, name, one)
    times = one.cell.factor if source.times is None else source.times
    return Beside(
        table=table,
        row="" if row is None else row.label,
        line=None if row is None else row.line,
        column=column,
        printed=None if row is None or column not in row.cells else number(row.cells[column]),
        encoder=f"{label}{suffix}",
        score=over_seeds([row["value"] * times for row in one.rows]),
        differs=tuple(_differences(plan, source, one)),
        keys=tuple(row["key"] for row in one.rows),
    )


def _place(plan: Layout, rows: Mapping[int, Row], name: str, one: Measurement) -> tuple[Row | None, str, str]:
    """The printed row, the column, and what names the measured row."""
    if plan.transposed:
        row = next(row for row in rows.values() if row.method == name)
        return row, one["encoder"].removeprefix(plan.encoder_labels), one["encoder"]
    zoo = _zoo_name(one["reference"])
    lines = [line for line, entry in plan.encoders.items() if entry == zoo and one["trained"]]
    if len({rows[line].llm for line in plan.encoders}) > 1:  # even where one of them alone has this encoder
        model = _language_model(one)
        lines = [line for line in lines if rows[line].llm.lower() in model.lower()]
    return (rows[lines[0]] if lines else None), name, one.encoder


def _language_model(one: Measurement) -> str:
    """That was trained around the encoder; "" where there is none."""
    config = json.loads(one["config"])
    return str((config.get(_TRAINING) or config).get("lm", ""))


def _zoo_name(reference: str) -> str:
    found = re.fullmatch(r"[A-Za-z0-9._-]+(@\d+)?(,layer=-?\d+)?", reference)
    return EncoderReference.parse(reference).name if found else reference


def _differences(plan: Layout, source: Source, one: Measurement) -> Iterator[str]:
    for place in source.places:
        if place.caveat is not None and place.probe == one["probe"] and not _has(one, place.unless):
            yield place.caveat
    config = json.loads(one["config"])
    if source.n is not None and one["n"] not in (0, source.n, source.n_of_task):  # 0: not known
        yield f"{one['n']:,} test items instead of {source.n:,}"
    elif source.n is None and _count(config, _JUDGED) < _count(config, _THERE):
        yield f"{_count(config, _JUDGED):,} of {_count(config, _THERE):,} questions"
    if config.get(_SYSTEM_PROMPT) is not None:
        yield "a system prompt of its own"
    if source.split is not None and one["split"] != source.split:
        yield f"split {one['split']} instead of {source.split}"
    if plan.sweep is None:
        return
    trained_apart = isinstance(config.get(_TRAINING), dict)
    config = flattened(config[_TRAINING] if trained_apart else config)
    known = [own for probe, own in _protocols(plan.sweep) if trained_apart or probe == one["probe"]]
    if trained_apart:  # what was asked is the metric's own
        known = [{key: value for key, value in own.items() if key in config} for own in known]
    apart = [[key for key in {**own, **config} if own.get(key) != config.get(key)] for own in known]
    if not known or not min(apart, key=len):
        return
    nearest = min(range(len(known)), key=lambda i: len(apart[i]))
    for key in apart[nearest][:_NAMED]:
        yield f"{key} {_value(config, key)} instead of {_value(known[nearest], key)}"
    if len(apart[nearest]) > _NAMED:
        yield f"{len(apart[nearest]) - _NAMED} more settings differ"


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) else 0


def _has(one: Measurement, setting: str | None) -> bool:
    return setting is not None and json.loads(one["config"]).get(setting) is not None


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
