"""Stored results as a table: mean and spread over seeds, best bold, second underlined, protocols as notes.

Results that differ in anything but the seed are never averaged: where a cell would mix two configurations, datasets
or weights, the table is split by what differs, and says so.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.formats import Cell, Table
from reports.grid import EMPTY
from reports.labels import config_differences, natural

if TYPE_CHECKING:
    import pandas as pd

# What makes two results comparable, in the order in which a mixed cell is split. The encoder's own come last, because
# a configuration (a token grid, say) often explains a difference in size.
_COLUMN_IDENTITY = ("metric", "split", "dataset", "probe")
_DETAILS = ("config", "protocol_version", "protocol", "dataset_fingerprint", "unit")
_ROW_IDENTITY = ("encoder", "size", "layer", "encoder_fingerprint")
_HASH_LENGTH = 8


def build(
    frame: "pd.DataFrame", rows: Sequence[str], columns: Sequence[str], extras: Sequence[str] = (), decimals: int = 2
) -> Table:
    """Group a frame of `probes.results.load` into a table. Splits mixed cells by what differs (see module).

    `decimals`: digits that will be shown; means that agree in them are equally good.
    """
    frame = _in_percent(frame.assign(config=frame["config"].map(config_differences(frame["config"].unique()))))
    row_keys, column_keys = list(rows), list(columns)
    _split_mixed(frame, row_keys, column_keys)
    split = [k for k in (*row_keys, *column_keys) if k not in (*rows, *columns)]
    frame = _with_labels(frame, [*row_keys, *column_keys])

    scores = frame.groupby([*row_keys, *column_keys], sort=True, dropna=False).agg(
        mean=("value", "mean"), spread=("value", "std"), seeds=("seed", "nunique"), better=("higher_is_better", "first")
    )
    ranks = _ranks(scores, column_keys, decimals)
    cells: dict[tuple[tuple[str, ...], tuple[str, ...]], Cell] = {}
    for key, score, rank in zip(scores.index, scores.itertuples(), ranks, strict=True):
        key = key if isinstance(key, tuple) else (key,)
        row, column = tuple(key[: len(row_keys)]), tuple(key[len(row_keys) :])
        spread = float(score.spread) if score.seeds > 1 else None
        cells[row, column] = Cell(float(score.mean), spread, int(score.seeds), int(rank))
    table = Table(
        tuple(row_keys),
        tuple(column_keys),
        sorted({row for row, _ in cells}, key=lambda row: natural(*row)),
        sorted({column for _, column in cells}, key=lambda column: natural(*column)),
        cells,
        _extras(frame, row_keys, extras),
    )
    notes = _notes(frame, table, column_keys)
    if split:
        notes.insert(0, f"Split by {', '.join(split)}: results that differ there are not averaged.")
    return dataclasses.replace(table, notes=notes)


def _in_percent(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Fractions as the field prints them: in percent."""
    fraction = frame["unit"] == "fraction"
    value = frame["value"].where(~fraction, frame["value"] * 100)
    return frame.assign(value=value, unit=frame["unit"].where(~fraction, "%"))


def _split_mixed(frame: "pd.DataFrame", rows: list[str], columns: list[str]) -> None:
    """Add keys to `rows` and `columns`, in place, until no cell mixes results that differ in more than the seed."""
    for candidates, target in ((_COLUMN_IDENTITY, columns), (_DETAILS, columns), (_ROW_IDENTITY, rows)):
        for key in candidates:
            if key in rows or key in columns:
                continue
            distinct = frame.groupby([*rows, *columns], dropna=False)[key].nunique(dropna=False)
            if (distinct > 1).any():
                target.append(key)


def _with_labels(frame: "pd.DataFrame", keys: Sequence[str]) -> "pd.DataFrame":
    """The keys as texts: hashes cut short, untrained encoders said so."""
    labels = {}
    for key in keys:
        text = frame[key].astype(object).where(frame[key].notna(), EMPTY).astype(str)
        labels[key] = text.str[:_HASH_LENGTH] if key.endswith("fingerprint") else text
    if "encoder" in labels:
        labels["encoder"] = labels["encoder"].where(frame["trained"].astype(bool), labels["encoder"] + " (untrained)")
    return frame.assign(**labels)


def _ranks(scores: "pd.DataFrame", column_keys: Sequence[str], decimals: int) -> "pd.Series[int]":
    """0 for the best of a column, 1 for the second, 2 else; what reads the same shares a rank; one row has none."""
    shown = scores["mean"].round(decimals)
    signed = shown.where(scores["better"].astype(bool), -shown)
    groups = signed.groupby(level=list(column_keys), dropna=False)
    ranks = (groups.rank(method="dense", ascending=False) - 1).clip(upper=2)
    return ranks.where(groups.transform("size") > 1, 2).astype(int)


def _extras(
    frame: "pd.DataFrame", row_keys: Sequence[str], extras: Sequence[str]
) -> dict[tuple[str, ...], dict[str, str]]:
    found: dict[tuple[str, ...], dict[str, str]] = {}
    if not extras:
        return found
    for key, group in frame.groupby(list(row_keys), sort=True, dropna=False):
        row = tuple(key) if isinstance(key, tuple) else (key,)
        found[row] = {extra: _range(group[extra]) for extra in extras}
    return found


def _range(values: "pd.Series[float]") -> str:
    """'256' or '256-1024'; measured values (images/s) differ slightly, so they are shown with three digits."""
    known = values.dropna()
    if known.empty:
        return EMPTY
    texts = [f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in (known.min(), known.max())]
    return "-".join(dict.fromkeys(texts))


def _notes(frame: "pd.DataFrame", table: Table, column_keys: Sequence[str]) -> list[str]:
    """One note a column: what n is and by which protocol; then the cells with fewer seeds than the others."""
    notes = []
    for key, group in frame.groupby(list(column_keys), sort=True, dropna=False):
        label = " / ".join(key if isinstance(key, tuple) else (key,))
        sizes = sorted(set(group["n"]))
        count = f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]}"
        protocols = "; ".join(dict.fromkeys(group["protocol"]))
        notes.append(f"{label}: {count}, {group['unit'].iloc[0]}, split {group['split'].iloc[0]}; {protocols}")
    most = max(cell.seeds for cell in table.cells.values())
    few = [(row, column, cell) for (row, column), cell in table.cells.items() if cell.seeds < most]
    notes.append(
        f"Mean ± standard deviation (ddof 1) over {most} seed{'s' if most > 1 else ''}." if most > 1 else "One seed."
    )
    notes += [f"{' / '.join(row)}, {' / '.join(column)}: {cell.seeds} of {most} seeds." for row, column, cell in few]
    return notes
