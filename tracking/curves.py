"""Success and precision over their thresholds as pictures, one plot each.

Shapes: T thresholds.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from probes.figures import write_figure
from tracking.protocols import PLOTS
from tracking.score import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS: dict[str, tuple[str, str, str]] = {
    "success": ("Success", "overlap threshold (IoU)", "share of frames over it"),
    "precision": ("Precision", "centre error threshold (pixels)", "share of frames within it"),
    "norm_precision": (
        "Normalised precision",
        "centre error threshold (sizes of the truth)",
        "share of frames within it",
    ),
}
_COLOUR, _MARK = "#0072B2", "#D55E00"


def write_curves(folder: Path, scores: Scores) -> list[Path]:
    """{success,precision,norm_precision}.{png,pdf} in `folder`, those that the protocol has, each atomically."""
    written = []
    for name in scores.curves:
        written += write_figure(folder / name, plot(scores, name), dpi=150)
    return written


def plot(scores: Scores, name: str) -> "Figure":
    """The curve `name` in percent of frames, its score, and the threshold that the score is read at, if at one."""
    from matplotlib.figure import Figure

    definition, curve = PLOTS[scores.protocol][name], scores.curves[name]
    title, x_label, y_label = _LABELS[name]
    figure = Figure(figsize=(5.2, 4.2))
    axes = figure.add_axes((0.13, 0.13, 0.83, 0.77))
    axes.plot(
        curve.thresholds, 100 * curve.shares, color=_COLOUR, linewidth=2, label=_legend(scores, name), clip_on=False
    )
    if definition.summary == "mark":
        x, y = curve.thresholds[definition.mark], 100 * curve.shares[definition.mark]
        axes.axvline(x, color=_MARK, linewidth=1, linestyle="--")
        label = f"{scores.values[name]:.2f} at {x:g}{' px' if name == 'precision' else ''}"
        axes.plot([x], [y], "o", color=_MARK, label=label, clip_on=False)
    if definition.rule == "at least":
        y_label = "share of frames at or over it"
    count = f"{len(scores.frames):,} sequence{'s' if len(scores.frames) != 1 else ''}"
    axes.set(xlim=(0, curve.thresholds[-1]), ylim=(0, 102), xlabel=x_label, ylabel=f"{y_label} (%)")
    axes.set_title(f"{title} by {scores.protocol}, {count}", fontsize=10.5)
    axes.grid(alpha=0.3)
    if curve.shares.mean() <= 0.5:
        axes.legend(frameon=False, loc="upper right")
    else:
        axes.legend(frameon=False, loc="lower left" if name == "success" else "lower right")
    return figure


def _legend(scores: Scores, name: str) -> str | None:
    """Where a score is read at one threshold, the mark there carries it."""
    if scores.protocol == "got10k":
        return f"AO {scores.values['ao']:.2f}"
    summary = PLOTS[scores.protocol][name].summary
    words = {"mean": "mean of the curve", "area": "area under the curve"}
    return f"{words[summary]}: {scores.values[name]:.2f}" if summary in words else None
