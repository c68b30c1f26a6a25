"""From stored results to what the page shows, as JSON: every repeated thing once, referred to by its place in `pool`.

    pool      texts, configurations, specs, package versions, ...
    settings  fields of a result that its seeds share, as places in `pool`: lists in the order of `setting_fields`
    results   [key, setting, seed, seconds, finished, images_per_s, peak_memory (pool)]
    rows      encoders as labelled; columns: what was measured, its unit, n and protocol for the note below the table
    cells     [row, column, mean, spread, "41.25 ± 0.31", [[result, value, stderr, n, split, protocol], ...],
               [[table, the paper's row, its column, reported value, mean in its units, how the protocol differs], ...]]
    views     columns chosen, ordered and headed as one table of the paper has them: [column, [head, ...]]

Means and spreads are in the column's unit, fractions in percent; a spread is a standard deviation (ddof 1) over seeds.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.labels import natural
from reports.measurements import Measurement
from reports.page.columns import Cells, Column, Row, arrange
from reports.paper.layout import Layout, layout
from reports.paper.printed import TABLES, paper
from reports.tables import measured_by

if TYPE_CHECKING:
    from reports.paper.beside import Beside

DECIMALS = 2
SETTING_FIELDS = (
    *("encoder", "reference", "weights", "trained", "encoder_fingerprint", "encoder_spec", "size", "layer"),
    *("tokens", "gflops", "probe", "protocol_version", "dataset", "dataset_fingerprint", "config", "run_only"),
    *("device", "versions", "commit"),
)
_TITLES = {
    "1": "Table 1: multimodal LLM",
    "2": "Table 2: referring segmentation",
    "3": "Table 3: detection",
    "4": "Table 4: tracking",
    **{f"5{part}": f"Table 5{part}: ablation" for part in "abcd"},
}


class Pool:
    """Values without repetition; equal as JSON is equal."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """Where `value` lies in `values`."""
        text = json.dumps(value, sort_keys=True)
        place = self._places.setdefault(text, len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def page_data(
    documents: Sequence[Mapping[str, Any]], found: Sequence[Measurement], besides: Iterable["Beside"] = ()
) -> dict[str, Any]:
    """See the module. `found`: the documents' measurements; `besides`: those that have a place in the paper's tables
    (`reports.paper.beside`)."""
    pool, settings = Pool(), Pool()
    cells = arrange(found)
    rows = sorted({row for row, _ in cells}, key=lambda row: natural(row.label, row.variant))
    columns = sorted({column for _, column in cells}, key=lambda c: natural(c.probe, c.dataset, c.metric, c.variant))
    numbers = {document["key"]: number for number, document in enumerate(documents)}
    placed = _place(cells, besides)
    of_row, of_column = _grouped(cells)
    row_numbers = {row: number for number, row in enumerate(rows)}
    column_numbers = {column: number for number, column in enumerate(columns)}
    return {
        "decimals": DECIMALS,
        "setting_fields": SETTING_FIELDS,
        "results": [_result(document, pool, settings) for document in documents],
        "rows": [_row(row, of_row[row]) for row in rows],
        "columns": [_column(column, of_column[column]) for column in columns],
        "cells": [
            [
                row_numbers[row],
                column_numbers[column],
                one.score.mean,
                one.score.spread,
                one.score.text(DECIMALS),
                [_seed(one, result, numbers, pool) for result in one.rows],
                [_beside(own) for own in placed.get((row, column), ())],
            ]
            for (row, column), one in cells.items()
        ],
        "views": _views(placed, column_numbers),
        "settings": settings.values,
        "pool": pool.values,
    }


def fingerprints(data: Mapping[str, Any]) -> list[set[str]]:
    """Of each row of `page_data`: the fingerprints of its encoder."""
    place = SETTING_FIELDS.index("encoder_fingerprint")
    found: list[set[str]] = [set() for _ in data["rows"]]
    for row, _, _, _, _, seeds, _ in data["cells"]:
        for result, *_ in seeds:
            found[row].add(data["pool"][data["settings"][data["results"][result][1]][place]])
    return found


def _result(document: Mapping[str, Any], pool: Pool, settings: Pool) -> list[Any]:
    config = document["identity"]["config"]
    fields = document | document["identity"]
    fields["run_only"] = {k: v for k, v in document["resolved_config"].items() if config.get(k) != v}
    setting = settings.place([pool.place(fields[name]) for name in SETTING_FIELDS])
    own = (document[name] for name in ("seed", "seconds", "finished", "images_per_s"))
    return [document["key"], setting, *own, pool.place(document["peak_memory"])]


def _grouped(cells: Cells) -> tuple[dict[Row, list[Measurement]], dict[Column, list[Measurement]]]:
    of_row: dict[Row, list[Measurement]] = {}
    of_column: dict[Column, list[Measurement]] = {}
    for (row, column), one in cells.items():
        of_row.setdefault(row, []).append(one)
        of_column.setdefault(column, []).append(one)
    return of_row, of_column


def _row(row: Row, found: Sequence[Measurement]) -> dict[str, Any]:
    first = found[0]
    return {"label": row.label, "name": first["encoder"], "variant": row.variant, "trained": first["trained"]}


def _column(column: Column, found: Sequence[Measurement]) -> dict[str, Any]:
    return {
        "levels": [column.probe, column.dataset, column.metric],
        "variant": column.variant,
        "unit": found[0].cell.shown_unit,
        "better": found[0]["higher_is_better"],
        "note": measured_by(found),
    }


def _seed(one: Measurement, result: Mapping[str, Any], numbers: Mapping[str, int], pool: Pool) -> list[Any]:
    stderr = None if result["stderr"] is None else result["stderr"] * one.cell.factor
    places = pool.place(one["split"]), pool.place(one["protocol"])
    return [numbers[result["key"]], one.runs[result["seed"]].value, stderr, result["n"], *places]


def _place(cells: Cells, besides: Iterable["Beside"]) -> "dict[tuple[Row, Column], list[Beside]]":
    """What the paper reports for each cell. A cell's results are among its Beside's, which knows the metric by name."""
    by_key: dict[str, list[tuple[Row, Column]]] = {}
    for place, one in cells.items():
        for row in one.rows:
            by_key.setdefault(row["key"], []).append(place)
    placed: dict[tuple[Row, Column], list[Beside]] = {}
    for beside in besides:
        plan = layout(beside.table)
        sources = {(source.probe, source.metric) for source in plan.sources[_name(beside, plan)].places}
        for place in dict.fromkeys(place for key in beside.keys for place in by_key[key]):
            if (place[1].probe, place[1].metric) in sources:
                placed.setdefault(place, []).append(beside)
    return placed


def _name(beside: "Beside", plan: Layout) -> str:
    """The paper's name of what was measured: of Table 5, whose columns are encoders, the row."""
    return beside.row if plan.transposed else beside.column


def _beside(one: "Beside") -> list[Any]:
    return [one.table, one.row, one.column, _printed(one), one.score.mean, list(one.differs)]


def _printed(one: "Beside") -> str | None:
    """The reported value as printed: 35.0, not 35."""
    return next((row.cells.get(one.column) for row in paper(one.table) if row.line == one.line), None)


def _views(
    placed: "Mapping[tuple[Row, Column], Sequence[Beside]]", numbers: Mapping[Column, int]
) -> list[dict[str, Any]]:
    found: dict[str, dict[str, set[int]]] = {table: {} for table in TABLES}
    for (_, column), besides in placed.items():
        for one in besides:
            found[one.table].setdefault(_name(one, layout(one.table)), set()).add(numbers[column])
    return [
        {
            "id": f"table-{table}",
            "title": _TITLES[table],
            "caption": layout(table).caption,
            "columns": [[number, heads] for name, heads in _heads(table) for number in sorted(named.get(name, ()))],
        }
        for table, named in found.items()
    ]


def _heads(table: str) -> list[tuple[str, tuple[str, str]]]:
    """(name, (group, rest of the name)) in the paper's order; the scores of Table 5 are of one group."""
    plan = layout(table)
    if plan.transposed:
        return [(name, (plan.groups[0][0], name)) for name in plan.sources]
    return [(name, (group, name.removeprefix(f"{group} "))) for group, names in plan.groups for name in names]
