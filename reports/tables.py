"""Stored results as a table: mean and spread over seeds, best bold, second underlined, protocols as notes.

Results that differ in anything but the seed are never averaged: where a cell would mix two configurations, datasets
or weights, the table is split by what differs, and says so.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from reports.formats import Cell, Place, Table
from reports.grid import BEST, EMPTY, OTHER, SECOND
from reports.labels import config_differences, distinct, natural, short
from reports.measurements import VARIANTS, Measurement, items_text, measurements, rows_in, separating

if TYPE_CHECKING:
    import pandas as pd

# What makes two results comparable, in the order in which a mixed cell is split. The encoder's own come last, because
# a configuration (a token grid, say) often explains a difference in size.
_COLUMNS = (
    *("metric", "split", "dataset", "probe"),
    *("config", "protocol_version", "protocol", "dataset_fingerprint", "unit"),
)
_ROWS = ("encoder", *VARIANTS)
_NAME = ("probe", "dataset", "metric")


def build(
    frame: "pd.DataFrame", rows: Sequence[str], columns: Sequence[str], extras: Sequence[str] = (), decimals: int = 2
) -> Table:
    """Group a frame of `probes.results.load` into a table. Splits mixed cells by what differs (see module).

    `decimals`: digits that will be shown; means that agree in them are equally good.
    """
    found = measurements(rows_in(frame), by=(*rows, *columns))
    split = separating(found, _texts(found, (*rows, *columns)), (*_COLUMNS, *_ROWS))
    of_row, of_column = [key for key in split if key in _ROWS], [key for key in split if key in _COLUMNS]
    row_keys, column_keys = (*rows, *of_row), (*columns, *of_column)
    in_row, in_column = _texts(found, row_keys), _texts(found, column_keys)
    row_labels, column_labels = (sorted(set(texts), key=lambda label: natural(*label)) for texts in (in_row, in_column))
    known = dict(zip(zip(in_row, in_column, strict=True), found, strict=True))
    placed = {place: known[place] for place in itertools.product(row_labels, column_labels) if place in known}
    ranks = _ranks(placed, decimals)
    notes = _notes(placed, column_labels)
    if split:
        notes.insert(0, f"Split by {', '.join((*of_row, *of_column))}: results that differ there are not averaged.")
    return Table(
        row_keys,
        column_keys,
        row_labels,
        column_labels,
        {place: Cell(one.score, ranks.get(place, OTHER)) for place, one in placed.items()},
        _extras(placed, extras),
        notes,
    )


def _texts(found: Sequence[Measurement], keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Of each measurement the keys as texts: hashes cut short, untrained encoders said so."""
    return list(zip(*(_key_texts(found, key) for key in keys), strict=True)) if keys else [()] * len(found)


def _key_texts(found: Sequence[Measurement], key: str) -> list[str]:
    values = [one[key] for one in found]
    if key == "encoder":
        return [one.encoder for one in found]
    if key == "config":
        differences = config_differences(values)
        return [differences[value] for value in values]
    if key == "unit":
        return distinct([one.cell.shown_unit for one in found], values)
    return distinct([short(key, value, EMPTY) for value in values], values)


def _ranks(placed: Mapping[Place, Measurement], decimals: int) -> dict[Place, int]:
    """Of the best and the second of each column, among what has one name; what reads the same shares a rank; one row
    has none. A column holds several metrics or datasets where these are keys of the rows.
    """
    partial = _partial(placed)
    compared: dict[tuple[str, ...], dict[Place, float]] = {}
    for place, one in placed.items():
        if place not in partial:
            shown = round(one.score.mean, decimals)
            alike = compared.setdefault((*place[1], *(one[name] for name in _NAME)), {})
            alike[place] = shown if one["higher_is_better"] else -shown
    ranks: dict[Place, int] = {}
    for values in compared.values():
        best_first = sorted(set(values.values()), reverse=True)
        for rank, value in zip((BEST, SECOND), best_first if len(values) > 1 else (), strict=False):
            ranks |= {place: rank for place, own in values.items() if own == value}
    return ranks


def _partial(placed: Mapping[Place, Measurement]) -> dict[Place, int]:
    """Cells of fewer items than others of their column (runs with a --limit), which are not ranked -> the most items.

    A count of 0 is not known.
    """
    most: dict[tuple[str, ...], int] = {}
    for (_, column), one in placed.items():
        most[column] = max(most.get(column, 0), one.items)
    return {place: most[place[1]] for place, one in placed.items() if 0 < one.items < most[place[1]]}


def _extras(placed: Mapping[Place, Measurement], extras: Sequence[str]) -> dict[tuple[str, ...], dict[str, str]]:
    of_row: dict[tuple[str, ...], list[Measurement]] = {}
    for (row, _), one in placed.items():
        of_row.setdefault(row, []).append(one)
    if not extras:
        return {}
    return {row: {extra: _range(extra, found) for extra in extras} for row, found in of_row.items()}


def _range(extra: str, found: Sequence[Measurement]) -> str:
    """'256' or '256-1024'; measured values (images/s) differ slightly, so they are shown with three digits."""
    known = [row[extra] for one in found for row in one.rows if row[extra] is not None]
    if not known:
        return EMPTY
    texts = [f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in (min(known), max(known))]
    return "-".join(dict.fromkeys(texts))


def _notes(placed: Mapping[Place, Measurement], columns: Sequence[tuple[str, ...]]) -> list[str]:
    """What n is and by which protocol, once for the columns that share it; then the cells with fewer seeds or items."""
    of_column: dict[tuple[str, ...], list[Measurement]] = {column: [] for column in columns}
    for (_, column), one in placed.items():
        of_column[column].append(one)
    said: dict[str, list[str]] = {}
    for column, found in of_column.items():
        said.setdefault(measured_by(found), []).append(" / ".join(column))
    most = max(one.score.seeds for one in placed.values())
    names = {place: ", ".join(" / ".join(labels) for labels in place) for place in placed}
    return [
        *briefly(said),
        f"Mean ± standard deviation (ddof 1) over {most} seeds." if most > 1 else "One seed.",
        *(f"{names[p]}: {one.score.seeds} of {most} seeds." for p, one in placed.items() if one.score.seeds < most),
        *(f"{names[p]}: n = {placed[p].items} of {items}, not ranked." for p, items in _partial(placed).items()),
    ]


def briefly(said: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The columns' notes. What a probe does for all of its metrics alike is said at the first of them."""
    first: dict[str, str] = {}
    for text, labels in said.items():
        name = "; ".join(labels)
        count, _, protocol = text.partition("; ")
        definition, _, rest = protocol.partition("; ")
        again = f"the rest as {first.setdefault(rest, name)}"
        yield f"{name}: {f'{count}; {definition}; {again}' if first[rest] != name and len(again) < len(rest) else text}"


def measured_by(found: Sequence[Measurement]) -> str:
    """What n is in a column, and by which protocol: 'n = 5000, %, split val2017; AP of boxes'."""
    splits, protocols = (sorted({one[name] for one in found}) for name in ("split", "protocol"))
    words = f"split{'s' if len(splits) > 1 else ''} {', '.join(splits)}"
    return f"{items_text(found)}, {found[0].cell.shown_unit}, {words}; {'; '.join(protocols)}"
