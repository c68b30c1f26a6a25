"""Distributions of token distances as one picture: above the tokens as given, below with the mean token taken off.

One colour an encoder; of a training run one an earlier to a later step, light to dark, and a column for each run.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.figures import write_figure
from probes.visual.tokens.distances import BINS, Distribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from probes.visual.tokens.measure import Measured

_KINDS = {"raw": "tokens as given", "centred": "mean token taken off"}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by every kind of colour vision; yellow is too light for a line."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
_LIGHT, _DARK = 0.12, 1.0
"""Of the map viridis, reversed: the first and the last step."""
_LISTED = 6
"""Steps that a legend names."""
_LABEL = 30
"""Characters of an encoder's name on a line."""
_TICK = 0.08
"""Of a panel's height."""
_BINS_PER_STD = 16
_MERGES = (20, 10, 8, 5, 4, 2, 1)
_TAIL = 0.001
_INK = "#333333"


def write_pictures(stem: Path, found: "Sequence[Measured]", caption: str) -> None:
    """{stem}.png and {stem}.pdf (vectors), each atomically."""
    write_figure(stem, plot(found, caption), dpi=160)


def plot(found: "Sequence[Measured]", caption: str) -> "Figure":
    """Densities, a column a run; a row as given and a row centred, each with one pair of axes ranges."""
    from matplotlib.figure import Figure

    columns: dict[str | None, list[Measured]] = {}
    for curves in found:
        columns.setdefault(curves.run, []).append(curves)
    width = 9.0 if len(columns) == 1 else 14.0
    figure = Figure(figsize=(width, 6.6), layout="constrained")
    figure.suptitle(caption, fontsize=9, color="#666666")
    panels = figure.subplots(2, len(columns), sharex="row", sharey="row", squeeze=False)
    for row, (kind, words) in enumerate(_KINDS.items()):
        merge = _merge([getattr(curves, kind) for curves in found])
        for column, (run, of_run) in enumerate(columns.items()):
            axes = panels[row, column]
            _panel(axes, of_run, kind, merge)
            axes.set_title(words if run is None else f"{run}: {words}", fontsize=10.5, color=_INK)
            axes.set_xlabel("cosine distance between two tokens of an image", color=_INK)
        panels[row, 0].set_ylabel("density", color=_INK)
        _limits(panels[row, 0], [getattr(curves, kind) for curves in found])
        for axes in panels[row]:
            if None in columns:
                _legend(axes, "mean ± s.d.", listed=len(found))
            else:
                _legend(axes, "step:  mean ± s.d.", listed=_LISTED)
    return figure


def _panel(axes: "Axes", found: "Sequence[Measured]", kind: str, merge: int) -> None:
    """Each density with a tick from the axis at its mean."""
    for curves, (colour, dash) in zip(found, _styles(found), strict=True):
        distribution: Distribution = getattr(curves, kind)
        centres, density = _density(distribution, merge)
        name = f"{fill(curves.label, _LABEL)}\n" if curves.step is None else f"{curves.step:,}:  "
        label = f"{name}{distribution.mean:.3f} ± {distribution.std:.3f}"
        axes.plot(centres, density, color=colour, linestyle=dash, linewidth=1.7, label=label)
        if curves.step is None:
            axes.fill_between(centres, density, color=colour, alpha=0.08, linewidth=0)
        axes.axvline(distribution.mean, 0, _TICK, color=colour, linewidth=2.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(colors=_INK, labelsize=9)


def _styles(found: "Sequence[Measured]") -> list[tuple[Any, Any]]:
    """(colour, dash) of each."""
    from matplotlib import colormaps

    if found[0].step is None:
        dashed = itertools.product(_DASHES, _COLOURS)
        return [(colour, dash) for dash, colour in itertools.islice(itertools.cycle(dashed), len(found))]
    shades = np.linspace(_LIGHT, _DARK, len(found)) if len(found) > 1 else [_DARK]
    return [(colormaps["viridis_r"](float(shade)), "-") for shade in shades]


def _merge(distributions: Sequence[Distribution]) -> int:
    """How many bins make one point: the narrowest curve keeps its shape, the others are not noisier than need be."""
    narrowest = min(distribution.std for distribution in distributions)
    fits = [merge for merge in _MERGES if merge * 2 / BINS <= narrowest / _BINS_PER_STD]
    return fits[0] if fits else 1


def _density(distribution: Distribution, merge: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bin centres and densities, whose integral over [0, 2] is 1."""
    width = merge * 2 / BINS
    counts = distribution.histogram.reshape(-1, merge).sum(axis=1)
    centres = (np.arange(len(counts), dtype=np.float64) + 0.5) * width
    density = counts.astype(np.float64) / (distribution.pairs * width)
    return centres, density


def _limits(axes: "Axes", distributions: Sequence[Distribution]) -> None:
    """From 0, or from where curves begin that stay far from it, to where they end; all but a thousandth each side."""
    low = min(distribution.quantile(_TAIL) for distribution in distributions)
    high = max(distribution.quantile(1 - _TAIL) for distribution in distributions)
    margin = 0.04 * (high - low)
    axes.set_xlim(max(low - margin, 0.0), min(high + margin, 2.0))
    axes.set_ylim(bottom=0)


def _legend(axes: "Axes", title: str, listed: int) -> None:
    """Mean ± standard deviation, beside the panel; of many steps some, the first and the last among them."""
    handles, labels = axes.get_legend_handles_labels()
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(listed, len(labels))).round().astype(int))
    legend = axes.legend(
        [handles[i] for i in chosen],
        [labels[i] for i in chosen],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        borderaxespad=0,
        frameon=False,
        fontsize=9,
        title=title,
        title_fontsize=9,
        labelcolor=_INK,
        alignment="left",
    )
    legend.get_title().set_color(_INK)
