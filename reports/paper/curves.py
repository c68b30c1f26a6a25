"""Table 5 as curves: a panel for each hyperparameter, reported solid, measured dashed with standard deviations."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.figures import finish_curves, write_figure
from reports.paper.beside import Beside
from reports.paper.layout import layout
from reports.paper.printed import TABLES, Row, number, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = tuple(table for table in TABLES if table.startswith("5"))
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "D")
_SCALES = {"OCRBench": 10.0}
"""OCRBench counts to 1,000; a tenth of it has the range of the others."""


def write_curves(folder: Path, measured: Sequence[Beside] = ()) -> list[Path]:
    """table5.png and table5.pdf (vector) in `folder`, each atomically; of `measured` only what belongs in Table 5."""
    return write_figure(folder / "table5", curves(measured), dpi=160)


def curves(measured: Sequence[Beside] = ()) -> "Figure":
    """The four panels; a hyperparameter's values are evenly spaced, as they are nearly so in logarithms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.9), layout="constrained")
    for axes, table in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        _panel(axes, table, [cell for cell in measured if cell.table == table])
    return figure


def _panel(axes: "Axes", table: str, own: Sequence[Beside]) -> None:
    plan, rows = layout(table), paper(table)
    places = {column: x for x, column in enumerate(plan.columns)}
    reported = [[number(row.cells[column]) / _scale(row) for column in plan.columns] for row in rows]
    for row, values, colour, marker in zip(rows, reported, _COLOURS, _MARKERS, strict=True):
        label = row.method if _scale(row) == 1 else f"{row.method} / {_scale(row):g}"
        style: dict[str, Any] = {"color": colour, "marker": marker}
        axes.plot(list(places.values()), values, markersize=5, label=label, **style)
        _mark_best(axes, row.cells[plan.columns[values.index(max(values))]], values, reported, colour)
        cells = sorted((c for c in own if c.line == row.line and c.column in places), key=lambda c: places[c.column])
        if cells:
            means = [c.score.mean / _scale(row) for c in cells]
            spreads = [(c.score.spread or 0.0) / _scale(row) for c in cells]
            axes.errorbar(
                [places[c.column] for c in cells], means, spreads, label=f"{label}, measured", linestyle="--",
                markersize=6, markerfacecolor="white", capsize=3, **style,
            )  # fmt: skip
    finish_curves(axes, places, f"({table[1]}) {plan.groups[0][0]}", "score (%)" if table == "5d" else "AP (%)")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _mark_best(axes: "Axes", text: str, values: list[float], all_: list[list[float]], colour: str) -> None:
    """The best number above its point, or below where another curve runs just above."""
    best = values.index(max(values))
    span = max(map(max, all_)) - min(map(min, all_))
    crowded = any(0 < other[best] - values[best] < 0.09 * span for other in all_)
    offset = (0, -14 if crowded else 7)
    axes.annotate(text, (best, values[best]), offset, textcoords="offset points", ha="center", fontsize=8, color=colour)


def _scale(row: Row) -> float:
    return _SCALES.get(row.method, 1.0)
