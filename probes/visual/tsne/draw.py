"""Spheres side by side as one picture, seen from the front: near points opaque, those behind faint.

Shapes: N objects, 3 space: x to the right, y up, z towards the viewer, before the view is turned.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.figures import write_figure
from probes.visual.tsne.separation import NEIGHBOURS, Separation
from rice.errors import RiceError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float64 = NDArray[np.float64]

COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC3311", "#7700AA", "#33BBEE", "#7A4B2A", "#B07AA1", "#B2DF8A", "#555555",
)  # fmt: skip
"""Told apart by every kind of colour vision: at least 15 in CIELAB."""
MARKERS: Mapping[str, str] = {"o": "circle", "s": "square", "D": "diamond", "X": "x"}
"""Matplotlib's name and plotly's. From the eleventh category on colours come again with the next shape."""
EYE = np.array([0.34, 0.30, 0.89])
"""Where the viewer is, as a direction from the centre; up is y."""
WARNING = (
    "In t-SNE, distances between far clusters, and the sizes of clusters, mean nothing; neighbourhoods do. "
    "Purity and silhouette are of the encoder's own features, not of this projection."
)
_INK, _PALE, _PAPER = "#333333", "#8a8a8a", "#ffffff"
_STEP = 30
"""Degrees between the graticule's lines."""
_PANEL_INCHES, _TOP_INCHES, _LEGEND_INCHES = 3.6, 0.5, 1.5
_WIDE, _LOW, _HIGH = 1.08, -1.40, 1.30
_TALL = (_HIGH - _LOW) / (2 * _WIDE)
"""A panel's window around the unit disc, and how tall it is for its width."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One encoder's sphere: points (N, 3) at its learned radius, KL(P || Q) in nats, what its features tell."""

    label: str
    points: Float64
    radius: float
    kl: float
    separation: Separation

    @property
    def directions(self) -> Float64:
        """The points as unit vectors: all spheres are drawn equally large."""
        return self.points / self.radius

    @property
    def statistics(self) -> tuple[str, ...]:
        """Short texts."""
        found = self.separation
        return (
            f"{NEIGHBOURS}-NN purity {found.purity:.3f} (chance {found.chance:.3f})",
            f"silhouette {found.silhouette:+.3f}",
            f"KL {self.kl:.2f} nats",
            f"n = {found.n:,}",
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What all panels show: category names, of each object its category's position, its ids, and one line on it all."""

    categories: Sequence[str]
    labels: NDArray[np.int64]
    images: Sequence[int]
    annotations: Sequence[int]
    caption: str

    def style(self, category: int) -> tuple[str, str]:
        """Colour and matplotlib's marker."""
        return COLOURS[category % len(COLOURS)], list(MARKERS)[category // len(COLOURS)]


def check_categories(count: int) -> None:
    """Errors: RiceError unless there are at least two, and colours and shapes for all."""
    most = len(COLOURS) * len(MARKERS)
    if not 2 <= count <= most:
        raise RiceError(f"expected --categories from 2 to {most}, which can be told apart, got {count}")


def write_pictures(stem: Path, panels: Sequence[Panel], shown: Shown) -> None:
    """{stem}.png and {stem}.pdf (vectors), each atomically."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False, "pdf.fonttype": 42}):  # a category may be called $x$
        write_figure(stem, plot(panels, shown), dpi=200, facecolor=_PAPER)


def plot(panels: Sequence[Panel], shown: Shown) -> "Figure":
    """The whole figure."""
    from matplotlib.figure import Figure

    columns = len(panels) if len(panels) <= 4 else math.ceil(len(panels) / math.ceil(len(panels) / 4))
    rows = math.ceil(len(panels) / columns)
    width = max(columns * _PANEL_INCHES, 2 * _PANEL_INCHES)
    legend_rows = math.ceil(len(shown.categories) * _LEGEND_INCHES / width)
    note = fill(WARNING, round(width * 17))
    bottom = 0.24 * legend_rows + 0.16 * (note.count("\n") + 1) + 0.3
    height = rows * _PANEL_INCHES * _TALL + _TOP_INCHES + bottom
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        rows,
        columns,
        left=0.01,
        right=0.99,
        top=1 - _TOP_INCHES / height,
        bottom=bottom / height,
        wspace=0.02,
        hspace=0.02,
    )
    for place, panel in enumerate(panels):
        _draw_panel(figure.add_subplot(grid[place // columns, place % columns]), panel, shown)
    figure.text(
        0.5, 1 - 0.22 / height, fill(shown.caption, round(width * 13)), ha="center", va="center", fontsize=9, color=_INK
    )
    figure.legend(
        handles=list(_handles(shown)),
        loc="upper center",
        bbox_to_anchor=(0.5, (bottom + 0.05) / height),
        ncols=math.ceil(len(shown.categories) / legend_rows),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    figure.text(0.5, 0.1 / height, note, ha="center", va="bottom", fontsize=7.5, color=_PALE, linespacing=1.4)
    return figure


def _handles(shown: Shown) -> Iterator[Any]:
    from matplotlib.lines import Line2D

    for category, name in enumerate(shown.categories):
        colour, marker = shown.style(category)
        yield Line2D([], [], color=colour, marker=marker, linestyle="", markersize=6, label=fill(name[:60], 24))


def _draw_panel(axes: "Axes", panel: Panel, shown: Shown) -> None:
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-_WIDE, _WIDE)
    axes.set_ylim(_LOW, _HIGH)
    _draw_ball(axes)
    for line_L3 in graticule():
        _draw_line(axes, line_L3 @ view().T)
    _draw_points(axes, panel.directions @ view().T, shown)
    label = fill(panel.label, 34)
    axes.text(0, 1.1, label, ha="center", va="bottom", fontsize=11, fontweight="bold", color=_INK)
    first, *others = panel.statistics
    text = f"{first}\n{'   '.join(others)}"
    axes.text(0, -1.09, text, ha="center", va="top", fontsize=8.5, color=_INK, linespacing=1.5)


def _draw_ball(axes: "Axes") -> None:
    """A shaded disc, of circles: it stays a vector."""
    from matplotlib.patches import Circle

    for step in range(24):
        share = step / 23
        grey = 0.90 + 0.095 * math.sqrt(share)
        centre = -0.22 * share, 0.26 * share
        axes.add_patch(
            Circle(centre, 1 - 0.66 * share, color=(grey, grey, min(grey + 0.006, 1)), linewidth=0, zorder=0)
        )
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#c4c4c8", linewidth=0.8, zorder=1))


def _draw_line(axes: "Axes", line_L3: Float64) -> None:
    """The part in front stronger than the part behind."""
    for front, colour, width in ((False, "#e2e2e6", 0.4), (True, "#cfcfd6", 0.6)):
        seen_L = line_L3[:, 2] >= 0 if front else line_L3[:, 2] < 0
        x, y = (np.where(seen_L, line_L3[:, axis], np.nan) for axis in (0, 1))
        axes.plot(x, y, color=colour, linewidth=width, zorder=2, solid_capstyle="round")


def _draw_points(axes: "Axes", points_N3: Float64, shown: Shown) -> None:
    """From behind to the front, so that near points cover far ones; the far half like behind milk glass."""
    from matplotlib.colors import to_rgb

    for marker in dict.fromkeys(shown.style(category)[1] for category in range(len(shown.categories))):
        of_marker = np.array([shown.style(category)[1] == marker for category in shown.labels])
        for front in (False, True):
            chosen = np.flatnonzero(of_marker & ((points_N3[:, 2] >= 0) == front))
            chosen = chosen[np.argsort(points_N3[chosen, 2])]
            colours = [to_rgb(shown.style(category)[0]) for category in shown.labels[chosen]]
            axes.scatter(
                points_N3[chosen, 0],
                points_N3[chosen, 1],
                s=11 + 9 * points_N3[chosen, 2] if front else 7,
                c=colours,
                marker=marker,
                alpha=0.95 if front else 0.13,
                linewidths=0.25 if front else 0,
                edgecolors="white",
                zorder=4 if front else 3,
            )


def view() -> Float64:
    """(3, 3): from the sphere's coordinates to the viewer's, z towards him."""
    towards = EYE / np.linalg.norm(EYE)
    right = np.cross([0, 1, 0], towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])


def graticule() -> Iterator[Float64]:
    """Circles of latitude and longitude on the unit sphere, (L, 3) each; the poles lie on y."""
    turn = np.linspace(0, 2 * math.pi, 181)
    for degrees in range(-90 + _STEP, 90, _STEP):
        latitude = math.radians(degrees)
        height = np.full_like(turn, math.sin(latitude))
        yield np.stack([math.cos(latitude) * np.sin(turn), height, math.cos(latitude) * np.cos(turn)], axis=1)
    for degrees in range(0, 180, _STEP):
        longitude = math.radians(degrees)
        out = np.cos(turn)
        yield np.stack([out * math.sin(longitude), np.sin(turn), out * math.cos(longitude)], axis=1)
