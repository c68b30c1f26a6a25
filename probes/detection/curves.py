"""Precision over recall as pictures: the mean over categories, and a sheet with a panel for each category.

Shapes: T = 10 IoU thresholds, R = 101 recalls, K categories.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.detection.score import ClassScore, Scores
from rice.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RECALLS = np.linspace(0.0, 1.0, 101)
_LINES: tuple[tuple[str, slice, str], ...] = (
    ("IoU .50", slice(0, 1), "#56B4E9"),
    ("IoU .75", slice(5, 6), "#E69F00"),
    ("IoU .50:.95", slice(None), "#000000"),
)
_COLUMNS = 8
_PANELS = 96
"""On one sheet."""
_STEP = 1.45
"""Distance of two panels of size 1."""


def write_curves(folder: Path, scores: Scores) -> list[Path]:
    """precision_recall.{png,pdf} and precision_recall_classes.{png,pdf} in `folder`, each atomically.

    The PDF of the classes has as many pages as they need; the PNG is its first, with the most frequent of the truth.
    Without an instance in the truth, axes stay empty.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    sheets = [class_sheet(scores, number) for number in range(_pages(scores))]
    for name, figures in (("precision_recall", [mean_curves(scores)]), ("precision_recall_classes", sheets)):
        with atomic_path(folder / f"{name}.png") as path:
            figures[0].savefig(path, format="png", dpi=150)
        with atomic_path(folder / f"{name}.pdf") as path, PdfPages(path, metadata={"CreationDate": None}) as pdf:
            for figure in figures:
                pdf.savefig(figure)
    return [
        folder / f"{name}.{kind}"
        for name, kind in itertools.product(("precision_recall", "precision_recall_classes"), ("png", "pdf"))
    ]


def mean_curves(scores: Scores) -> "Figure":
    """Mean over the categories that the truth has, at IoU .50, .75 and over all ten thresholds."""
    figure = _figure(5.2, 4.2)
    axes = figure.add_axes((0.12, 0.13, 0.84, 0.77))
    present = _present(scores)
    for label, chosen, colour in _LINES:
        if present:
            precision_R = scores.precision[chosen][:, :, present].mean(axis=(0, 2))
            label = f"{label}: AP {precision_R.mean():.3f}"
            axes.plot(_RECALLS, precision_R, color=colour, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=_title(scores))
    axes.grid(alpha=0.3)
    if present:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "the truth has no instance", ha="center")
    return figure


def class_sheet(scores: Scores, page: int = 0) -> "Figure":
    """A panel for each category of the truth, most instances first; both axes of a panel run from 0 to 1.

    All panels share one pair of axes, moved about: a thousand pairs take matplotlib minutes.
    """
    ordered = sorted(_present(scores), key=lambda k: (-scores.per_class[k].instances, k))
    shown = ordered[page * _PANELS : (page + 1) * _PANELS]
    rows = max(1, math.ceil(len(shown) / _COLUMNS))
    figure = _figure(1.5 * _COLUMNS, 1.5 * rows + 0.9)
    axes = figure.add_axes((0.02, 0.02, 0.96, 1 - 0.8 / (1.5 * rows + 0.9)))
    corners_K2 = np.array([(k % _COLUMNS * _STEP, -(k // _COLUMNS) * _STEP) for k in range(len(shown))]).reshape(-1, 2)
    _draw_panels(axes, corners_K2, [scores.per_class[k] for k in shown])
    for label, chosen, colour in _LINES:
        curves_KR = scores.precision[chosen][:, :, shown].mean(axis=0).T
        _draw_curves(axes, corners_K2, curves_KR, label=label, color=colour)
    axes.set(xlim=(-0.15, _COLUMNS * _STEP), ylim=(-(rows - 1) * _STEP - 0.2, _STEP), aspect="equal")
    axes.set_axis_off()
    pages = _pages(scores)
    figure.suptitle(_title(scores) + (f", page {page + 1} of {pages}" if pages > 1 else ""), x=0.02, ha="left")
    if shown:
        figure.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=len(_LINES), frameon=False)
    return figure


def _draw_panels(axes: "Axes", corners_K2: NDArray[np.float64], classes: Sequence[ClassScore]) -> None:
    from matplotlib.collections import LineCollection

    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], dtype=np.float64)
    axes.add_collection(LineCollection([square + corner for corner in corners_K2], colors="0.7", linewidths=0.6))
    for (x, y), scored in zip(corners_K2, classes, strict=True):
        name = scored.name if len(scored.name) <= 18 else f"{scored.name[:17]}…"
        label: Any = f"{name}\nAP {scored.ap:.3f}, n = {scored.instances}"
        axes.text(x, y + 1.04, label, fontsize=6, va="bottom", parse_math=False)
    if len(classes):
        axes.text(0.5, -0.03, "recall 0 to 1", fontsize=5, ha="center", va="top", color="0.4")
        axes.text(-0.03, 0.5, "precision 0 to 1", fontsize=5, ha="right", va="center", rotation=90, color="0.4")


def _draw_curves(axes: "Axes", corners_K2: NDArray[np.float64], curves_KR: NDArray[np.float64], **style: Any) -> None:
    from matplotlib.collections import LineCollection

    curves = [np.stack([_RECALLS, row], axis=1) + corner for row, corner in zip(curves_KR, corners_K2, strict=True)]
    axes.add_collection(LineCollection(curves, linewidths=0.9, **style))


def _figure(width: float, height: float) -> "Figure":
    """In inches; without pyplot, which keeps figures."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _present(scores: Scores) -> list[int]:
    return [k for k, scored in enumerate(scores.per_class) if scored.ap >= 0]


def _pages(scores: Scores) -> int:
    return max(1, math.ceil(len(_present(scores)) / _PANELS))


def _title(scores: Scores) -> str:
    kind = {"bbox": "boxes", "segm": "masks"}[scores.iou]
    return f"{kind}: AP {scores.values['AP']:.3f}, {scores.images} images, {len(_present(scores))} categories"
