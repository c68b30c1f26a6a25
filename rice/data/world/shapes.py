"""The world's shapes, as signed distances evaluated on a pose's own pixel window.

Shapes: h, w the window. Object frame: origin at the centre, radius 1, v down. Image frame: pixels, y down, the centre
of pixel (row 0, column 0) at (0.5, 0.5).

Masks must be equal on every machine: only +, -, *, /, sqrt, minimum, maximum and comparisons of float32, each rounded
correctly by IEEE 754, and angles from a rounded table (rice.data.world.draws).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rice.data.world.draws import cos_sin

Plane = NDArray[np.float32]

SHAPES = ("disc", "ring", "square", "triangle", "star", "cross")
CLUTTER = ("blob", "bar")
"""Things that occlude and are occluded like objects, and belong to no category."""

_REACH = 1.25
"""No shape leaves this circle of its unit frame."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a shape lies. x, y: centre, image pixels; turn: 1/4096 of a turn; radius: pixels; aspect: u over v."""

    x: float
    y: float
    turn: int
    radius: float
    aspect: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Stencil:
    """A shape on its window, which may lie partly outside the image.

    top, left: of the window in image pixels. distance_hw: to the outline in pixels, negative inside.
    u_hw, v_hw: object frame, in radii, turned with the object but not stretched.
    """

    pose: Pose
    top: int
    left: int
    distance_hw: Plane
    u_hw: Plane
    v_hw: Plane

    @property
    def inside_hw(self) -> NDArray[np.bool_]:
        """Pixels whose centre lies inside the outline: the definition of the world's masks."""
        return self.distance_hw < 0

    def clip(self, height: int, width: int, down: int = 0, right: int = 0) -> tuple[tuple[slice, slice], ...] | None:
        """(slices of the image, slices of the window) where they meet, with the window moved; None if nowhere."""
        h, w = self.distance_hw.shape
        top, left = self.top + down, self.left + right
        rows, columns = (max(top, 0), min(top + h, height)), (max(left, 0), min(left + w, width))
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            return None
        window = slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left)
        return (slice(*rows), slice(*columns)), window


def stamp(shape: str, pose: Pose, proportion: float = 0.5) -> Stencil:
    """The stencil of a shape. `proportion`, from [0, 1], varies what a shape leaves open, e.g. how thick a ring is."""
    reach = math.ceil(pose.radius * _REACH * max(pose.aspect, 1 / pose.aspect)) + 1
    top, left, u_hw, v_hw = _frame(pose, reach)
    stretch = math.sqrt(pose.aspect)
    unit_hw = _DISTANCES[shape](u_hw * np.float32(1 / stretch), v_hw * np.float32(stretch), proportion)
    distance_hw = unit_hw * np.float32(pose.radius)
    return Stencil(pose, top, left, distance_hw, u_hw, v_hw)


def box_stencil(x: float, y: float, turn: int, half_width: float, half_height: float) -> Stencil:
    """The stencil of a turned rectangle, for signs. Its frame's unit is one pixel."""
    reach = math.ceil(math.sqrt(half_width * half_width + half_height * half_height)) + 1
    pose = Pose(x, y, turn, 1)
    top, left, u_hw, v_hw = _frame(pose, reach)
    distance_hw = np.maximum(np.abs(u_hw) - np.float32(half_width), np.abs(v_hw) - np.float32(half_height))
    return Stencil(pose, top, left, distance_hw, u_hw, v_hw)


def _frame(pose: Pose, reach: int) -> tuple[int, int, Plane, Plane]:
    """Top and left of the window that reaches so many pixels around the centre, and its object coordinates."""
    top, left = math.floor(pose.y) - reach, math.floor(pose.x) - reach
    x_w = np.arange(2 * reach + 1, dtype=np.float32) + np.float32(left + 0.5 - pose.x)
    y_h1 = (np.arange(2 * reach + 1, dtype=np.float32) + np.float32(top + 0.5 - pose.y))[:, None]
    cos, sin = (np.float32(value / pose.radius) for value in cos_sin(pose.turn))
    return top, left, x_w * cos + y_h1 * sin, y_h1 * cos - x_w * sin


def _disc(u: Plane, v: Plane, _: float) -> Plane:
    return _round(u, v, 0, 0, 1)


def _ring(u: Plane, v: Plane, proportion: float) -> Plane:
    hole = 0.4 + 0.2 * proportion
    return np.abs(np.sqrt(u * u + v * v) - np.float32((1 + hole) / 2)) - np.float32((1 - hole) / 2)


def _square(u: Plane, v: Plane, _: float) -> Plane:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.85)


def _triangle(u: Plane, v: Plane, _: float) -> Plane:
    """Equilateral, tip up."""
    return np.maximum(v, np.abs(u) * np.float32(0.8660254) - v * np.float32(0.5)) - np.float32(0.58)


def _star(u: Plane, v: Plane, proportion: float) -> Plane:
    """Five-pointed: the plane folded onto one edge by two mirrors (I. Quilez, 2D distance functions)."""
    u, v = np.abs(u), -v
    for side in (1, -1):  # mirrors at 36 and -36 degrees
        beyond = _positive(u * np.float32(0.809017 * side) - v * np.float32(0.58778525))
        u, v = u - beyond * np.float32(1.618034 * side), v + beyond * np.float32(1.1755705)
    u, v = np.abs(u), v - np.float32(1.12)
    notch = 0.40 + 0.12 * proportion
    edge_u, edge_v = 0.58778525 * notch, 0.809017 * notch - 1.12
    length = math.sqrt(edge_u * edge_u + edge_v * edge_v)
    return u * np.float32(-edge_v / length) + v * np.float32(edge_u / length)


def _cross(u: Plane, v: Plane, proportion: float) -> Plane:
    arm, reach = np.float32(0.26 + 0.12 * proportion), np.float32(1)
    u, v = np.abs(u), np.abs(v)
    across: Plane = np.maximum(u - reach, v - arm)
    upright: Plane = np.maximum(u - arm, v - reach)
    return np.minimum(across, upright)


def _blob(u: Plane, v: Plane, proportion: float) -> Plane:
    """Three overlapping discs."""
    shift = 0.25 + 0.2 * proportion
    left, right, top = _round(u, v, -shift, 0.2, 0.6), _round(u, v, shift, 0.3, 0.5), _round(u, v, 0.1, -shift, 0.65)
    return np.minimum(np.minimum(left, right), top)


def _bar(u: Plane, v: Plane, proportion: float) -> Plane:
    """A capsule, four to seven times as long as wide."""
    half = 0.14 + 0.1 * proportion
    along = _positive(np.abs(u) - np.float32(1 - half))
    return np.sqrt(along * along + v * v) - np.float32(half)


def _round(u: Plane, v: Plane, at_u: float, at_v: float, radius: float) -> Plane:
    u, v = u - np.float32(at_u), v - np.float32(at_v)
    return np.sqrt(u * u + v * v) - np.float32(radius)


def _positive(x: Plane) -> Plane:
    return np.maximum(x, np.float32(0))


_DISTANCES: dict[str, Callable[[Plane, Plane, float], Plane]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "blob": _blob,
    "bar": _bar,
}
