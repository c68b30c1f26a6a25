"""A table of measured cells, before it takes a format (`reports.grid`)."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from reports.grid import EMPTY, GRID_WRITERS, Entry, Format, Grid, Line, defuse
from reports.measurements import Score

_HEADERS = {"tokens": "Tokens", "gflops": "GFLOPs", "images_per_s": "Images/s"}


Place = tuple[tuple[str, ...], tuple[str, ...]]
"""The labels of a row and of a column."""


@dataclass(frozen=True)
class Cell:
    """The seeds of one configuration. `rank`: BEST of its column, SECOND, or OTHER."""

    score: Score
    rank: int


@dataclass(frozen=True)
class Table:
    """A table before it takes a format: labels are tuples with one text per key."""

    row_keys: tuple[str, ...]
    column_keys: tuple[str, ...]
    rows: list[tuple[str, ...]]
    columns: list[tuple[str, ...]]
    cells: dict[Place, Cell]
    extras: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def grid(self, decimals: int) -> Grid:
        """Equal neighbours of the upper levels of the head are spanned."""
        heads = []
        extras = _extra_headers(self)
        for level in range(len(self.column_keys)):
            last = level == len(self.column_keys) - 1
            spans = [(label, 1) for *_, label in self.columns] if last else _spans(self.columns, level)
            keys = [(key if last else "", 1) for key in self.row_keys]
            heads.append([*keys, *spans, *((extra if last else "", 1) for extra in extras)])
        lines = [self._line(row, decimals) for row in self.rows]
        return Grid(heads=heads, labels=len(self.row_keys), lines=lines, notes=self.notes)

    def _line(self, row: tuple[str, ...], decimals: int) -> Line:
        cells = [self.cells.get((row, column)) for column in self.columns]
        shown = [Entry(EMPTY) if cell is None else Entry(cell.score.text(decimals), cell.rank) for cell in cells]
        return Line((*map(Entry, row), *shown, *map(Entry, self.extras.get(row, {}).values())))


def csv_text(table: Table) -> str:
    """Plain numbers in full precision: for each column its mean, standard deviation and number of seeds."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [" / ".join(column) for column in table.columns]
    parts = [f"{name} {part}" for name in names for part in ("mean", "std", "seeds")]
    writer.writerow([*table.row_keys, *parts, *_extra_headers(table)])
    for row in table.rows:
        line: list[str] = [defuse(label) for label in row]
        for column in table.columns:
            cell = table.cells.get((row, column))
            numbers = (None, None, 0) if cell is None else (cell.score.mean, cell.score.spread, cell.score.seeds)
            line += ["" if number is None else str(number) for number in numbers]
        writer.writerow([*line, *table.extras.get(row, {}).values()])
    return file.getvalue().rstrip("\n")


def write_table(table: Table, format: Format, decimals: int) -> str:  # noqa: A002 - the flag's name
    """The table in a format; CSV takes plain numbers in full precision, whatever the decimals."""
    return csv_text(table) if format == "csv" else GRID_WRITERS[format](table.grid(decimals))


def _extra_headers(table: Table) -> list[str]:
    first = next(iter(table.extras.values()), {})
    return [_HEADERS[extra] for extra in first]


def _spans(columns: Sequence[tuple[str, ...]], level: int) -> list[tuple[str, int]]:
    """Runs of columns that are equal down to `level`: (label at that level, length)."""
    spans: list[tuple[str, int]] = []
    for i, column in enumerate(columns):
        if i and column[: level + 1] == columns[i - 1][: level + 1]:
            spans[-1] = (column[level], spans[-1][1] + 1)
        else:
            spans.append((column[level], 1))
    return spans
