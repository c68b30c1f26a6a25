"""The boxes of `rice regions` drawn into their picture, beside the matrix of their cosine similarities."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from rice.files import atomic_write

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""Told apart by colour-blind readers (Okabe and Ito); the numbers tell apart what shares one."""
_HEIGHT = 5.0  # inches
_MOST_VALUES = 12  # boxes; more cells hold no readable number
_LONGEST_LABEL = 24
_DPI = 150


def draw(
    picture: Image.Image,
    corners_N4: NDArray[np.float32],
    labels: Sequence[str],
    similarity_NN: NDArray[np.float32],
    file: Path,
) -> None:
    """Write the page in the format of the file's ending. `corners`: xyxy, the picture's pixels."""
    left = min(max(_HEIGHT * picture.width / picture.height, 2.5), 12)
    figure = Figure(figsize=(left + _HEIGHT + 1.5, _HEIGHT + 0.5), layout="constrained")
    photo, matrix = figure.subplots(1, 2, width_ratios=(left, _HEIGHT + 0.5))
    _boxes(photo, picture, corners_N4)
    _matrix(matrix, labels, similarity_NN)
    content = io.BytesIO()  # to a file on a full disk Pillow writes half a JPEG, and says nothing
    figure.savefig(content, format=file.suffix.removeprefix("."), dpi=_DPI)
    with atomic_write(file, "wb") as stream:
        stream.write(content.getvalue())


def _boxes(axes: Axes, picture: Image.Image, corners_N4: NDArray[np.float32]) -> None:
    width, height = picture.size
    axes.imshow(np.asarray(picture), extent=(0, width, height, 0))
    axes.set_axis_off()
    for number, (x0, y0, x1, y1) in enumerate(corners_N4.tolist()):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=3))
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.8))
        tag = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.6, "pad": 1.5}
        ink = "black" if colour == "#f0e442" else "white"
        axes.text(x0, y0, str(number), color=ink, fontsize=9, ha="left", va="top", bbox=tag)


def _matrix(axes: Axes, labels: Sequence[str], similarity_NN: NDArray[np.float32]) -> None:
    count = len(labels)
    low = min(float(similarity_NN.min()), 0.9)  # of one box, too, a scale
    axes.imshow(similarity_NN, cmap="cividis", vmin=low, vmax=1.0)
    axes.set_title("cosine similarity", fontsize=10)
    axes.set_xticks(range(count), [str(number) for number in range(count)], fontsize=8)
    names = [f"{label[:_LONGEST_LABEL]} {number}".strip() for number, label in enumerate(labels)]
    axes.set_yticks(range(count), names, fontsize=8, parse_math=False)  # a label may hold dollar signs
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count > _MOST_VALUES:
        return
    for (row, column), value in np.ndenumerate(similarity_NN):
        ink = "white" if (value - low) / (1 - low) < 0.55 else "black"  # where cividis turns light
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8 if count < 9 else 7)
