"""Figures of matplotlib into files: as a picture and as vectors. Imports no matplotlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rice.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_figure(stem: Path, figure: "Figure", *, dpi: int, **options: Any) -> list[Path]:
    """STEM.png and STEM.pdf, each atomically; the PDF holds no date, so that equal figures are equal files.

    `options`: more of `Figure.savefig`.
    """
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("png", {"dpi": dpi}),
        ("pdf", {"metadata": {"CreationDate": None}}),
    )
    paths = []
    for kind, own in kinds:
        path = stem.with_name(f"{stem.name}.{kind}")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, **own, **options)
        paths.append(path)
    return paths


def finish_curves(axes: "Axes", ticks: Mapping[str, int], across: str, up: str) -> None:
    """What panels of curves have in common: ticks at named places, names of both axes, a faint grid, room around."""
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.margins(0.12, 0.14)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
