"""Figures of matplotlib into files: as a picture and as vectors. Imports no matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rice.files import atomic_path

if TYPE_CHECKING:
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
