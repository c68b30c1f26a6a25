"""The paper's tables as it prints them, derived cells recomputed, with measured rows below the reported ones.

Bold is the best of a group of reported rows, by the numbers shown; measured rows are never ranked among them.
"""

import csv
import functools
import io
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reports.grid import BEST, EMPTY, OTHER, Entry, Grid, Line, defuse
from reports.paper.beside import Beside
from reports.paper.layout import Layout, layout
from reports.paper.printed import KEYS, Row, number, paper, reproduces
from reports.paper.rules import Average, averages, derived

_CSV_HEADER = (
    *("table", *KEYS, "column", "line", "printed", "recomputed"),
    *("encoder", "measured", "std", "seeds", "difference", "protocol differs", "results"),
)


def paper_grid(table: str, measured: Sequence[Beside] = ()) -> Grid:
    """One of `reports.paper.printed.TABLES`; of `measured` (`reports.paper.beside`) what belongs in it is appended.

    A derived cell that the paper prints otherwise shows both numbers. A measured cell whose protocol differs from the
    paper's has a note with the difference.
    """
    plan, rows = layout(table), paper(table)
    writer = _Writer(plan, rows)
    lines = list(writer.reported())
    own = [cell for cell in measured if cell.table == table]
    if own:
        lines += [Line((Entry("Measured, not reported"),), "block"), *writer.measured(own)]
    notes = [*writer.legend(bool(own)), *(f"{mark}: {text}" for text, mark in writer.marks.items())]
    names = [*(head for _, head in plan.keys), *plan.columns]
    return Grid(heads=_heads(plan), labels=len(plan.keys), lines=lines, names=names, notes=notes, caption=plan.caption)


def paper_csv(table: str, measured: Sequence[Beside] = ()) -> str:
    """One line a cell, plain numbers: what is printed, what derived cells are when recomputed, what was measured."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    rows = paper(table)
    recomputed = derived(rows)
    for row in rows:
        for column, text in row.cells.items():
            value = recomputed.get((row.line, column))
            keys = (row.block, row.method, row.tower, row.resolution, row.llm)
            again = "" if value is None else f"{value:.4f}"
            writer.writerow([table, *map(defuse, keys), column, row.line, float(number(text)), again, *[""] * 7])
    for cell in measured:
        if cell.table == table:
            score = [cell.score.mean, cell.score.spread, cell.score.seeds, cell.difference]
            facts = [defuse(cell.encoder), *score, "; ".join(cell.differs), " ".join(cell.keys)]
            writer.writerow([table, *[""] * 5, cell.column, cell.line, "", "", *facts])
    return file.getvalue().rstrip("\n")


def _heads(plan: Layout) -> list[list[tuple[str, int]]]:
    keys = [(head, 1) for _, head in plan.keys]
    upper = [("", 1) for _ in keys] + [(group, len(columns)) for group, columns in plan.groups]
    lower = keys + [(column.removeprefix(f"{group} "), 1) for group, columns in plan.groups for column in columns]
    return [upper, lower]


@dataclass
class _Writer:
    """Lines of one table; collects the notes that its cells refer to."""

    plan: Layout
    rows: Sequence[Row]
    marks: dict[str, str] = field(default_factory=dict)

    @functools.cached_property
    def values(self) -> dict[tuple[int, str], float]:
        """(line, column) -> what is shown: derived cells recomputed, others as printed."""
        printed = {(row.line, column): number(text) for row in self.rows for column, text in row.cells.items()}
        return printed | derived(self.rows)

    @functools.cached_property
    def rules(self) -> list[Average]:
        """How the averages follow."""
        return averages(self.rows)

    def reported(self) -> Iterator[Line]:
        """The paper's lines in order."""
        best, block = self._best(), ""
        for row in self.rows:
            if row.block != block and not self.plan.transposed:
                yield Line((Entry(row.block),), "block")
            block = row.block
            labels = [Entry(getattr(row, key)) for key, _ in self.plan.keys]
            if row.is_gain:
                labels = [Entry(self._gain_label(row)), *(Entry("") for _ in labels[1:])]
            cells = [self._reported_cell(row, column, best) for column in self.plan.columns]
            yield Line((*labels, *cells), "gain" if row.is_gain else "row")

    def measured(self, own: Sequence[Beside]) -> Iterator[Line]:
        """A line for each encoder (or, where columns are encoders, for each score), and its gain over the paper's."""
        groups: dict[tuple[int | None, str], list[Beside]] = {}
        for cell in own:
            groups.setdefault((cell.line, "" if self.plan.transposed else cell.encoder), []).append(cell)
        for (line, encoder), cells in groups.items():
            of_column = {cell.column: cell for cell in cells}
            row = next((row for row in self.rows if row.line == line), None)
            means = self._with_averages({column: cell.score.mean for column, cell in of_column.items()})
            entries = [self._measured_cell(column, means, of_column) for column in self.plan.columns]
            yield Line((*self._measured_labels(row, encoder), *entries))
            gains = [self._gain_cell(column, means, row) for column in self.plan.columns]
            if any(entry.text for entry in gains):
                labels = [Entry("↑ measured vs reported"), *(Entry("") for _ in self.plan.keys[1:])]
                yield Line((*labels, *gains), "gain")

    def legend(self, own: bool) -> list[str]:
        """What the notations mean."""
        within = {"group": "its group", "block": "its block", "all": "its column", "row": "its row"}[self.plan.best]
        legend = [f"Reported by the paper; bold: best of {within}."]
        if self.rules:
            legend.append("Averages and differences are recomputed from the printed cells; in brackets: as printed.")
        if own:
            legend.append(
                "Measured: mean ± standard deviation (ddof 1) over seeds; a difference is measured minus reported."
            )
        return legend

    def _best(self) -> set[tuple[int, str]]:
        """(line, column) of the cells that are bold, by the numbers as shown."""
        groups: dict[object, list[tuple[float, tuple[int, str]]]] = {}
        group = 0
        for row in self.rows:
            group += row.is_gain
            for column, text in row.cells.items():
                if row.is_gain:
                    continue
                within = {"group": group, "block": row.block, "all": 0, "row": row.line}[self.plan.best]
                key = within if self.plan.best == "row" else (within, column)
                value = round(self.values[row.line, column], _decimals(text))
                groups.setdefault(key, []).append((value, (row.line, column)))
        return {
            cell for group_ in groups.values() for value, cell in group_ if value == max(group_)[0] and len(group_) > 1
        }

    def _gain_label(self, row: Row) -> str:
        """Table 2 prints the mean of its differences before their label."""
        if "Avg" not in row.cells:
            return row.method
        return f"Avg: {_signed(self.values[row.line, 'Avg'], _decimals(row.cells['Avg']))} {row.method}"

    def _reported_cell(self, row: Row, column: str, best: set[tuple[int, str]]) -> Entry:
        text = row.cells.get(column)
        if text is None:
            return Entry(EMPTY)
        value, decimals = self.values[row.line, column], _decimals(text)
        apart = not reproduces(text, value)
        shown = _signed(value, decimals) if row.is_gain else f"{value:.{decimals}f}" if apart else text
        return Entry(f"{shown} [{text}]" if apart else shown, BEST if (row.line, column) in best else OTHER)

    def _measured_labels(self, row: Row | None, encoder: str) -> list[Entry]:
        if row is None:
            return [Entry(encoder), *(Entry("") for _ in self.plan.keys[1:])]
        labels = {key: getattr(row, key) for key, _ in self.plan.keys}
        if not self.plan.transposed:
            labels[self.plan.keys[0][0]] = encoder
        return [Entry(text) for text in labels.values()]

    def _measured_cell(self, column: str, means: Mapping[str, float], of_column: Mapping[str, Beside]) -> Entry:
        if column not in means:
            return Entry(EMPTY)
        decimals, cell = self._column_decimals(column), of_column.get(column)
        if cell is None:  # an average of measured cells
            return Entry(f"{means[column]:.{decimals}f}", mark=self._marks_of(self._averaged(column, of_column)))
        return Entry(cell.score.text(decimals), mark=self._marks_of([cell]))

    def _averaged(self, column: str, of_column: Mapping[str, Beside]) -> list[Beside]:
        rule = next(rule for rule in self.rules if rule.column == column)
        return [of_column[name] for name in rule.of]

    def _gain_cell(self, column: str, means: Mapping[str, float], row: Row | None) -> Entry:
        if row is None or column not in means or column not in row.cells:
            return Entry("")
        reported = self.values[row.line, column]
        return Entry(_signed(means[column] - reported, self._column_decimals(column)))

    def _with_averages(self, means: dict[str, float]) -> dict[str, float]:
        for rule in self.rules:
            value = rule.recompute(means)
            means |= {} if value is None else {rule.column: value}
        return means

    def _column_decimals(self, column: str) -> int:
        return max(_decimals(row.cells[column]) for row in self.rows if column in row.cells)

    def _marks_of(self, cells: Iterable[Beside]) -> str:
        texts = dict.fromkeys("; ".join(cell.differs) for cell in cells if cell.differs)
        return ",".join(self._mark(f"another protocol than the paper's: {text}") for text in texts)

    def _mark(self, text: str) -> str:
        """The letter of a note: a, b, ..., z, aa, ...; equal texts share one."""
        if text not in self.marks:
            count, letters = len(self.marks), string.ascii_lowercase
            repeat, index = divmod(count, len(letters))
            self.marks[text] = letters[index] * (repeat + 1)
        return self.marks[text]


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _signed(value: float, decimals: int) -> str:
    """'+0.40', '-1.27', '+0'."""
    return f"{round(value, decimals) + 0.0:+.{decimals}f}"
