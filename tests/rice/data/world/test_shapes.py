"""Stencils agree with the polygons and circles that they stand for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon

from rice.data.world.draws import TURN
from rice.data.world.shapes import CLUTTER, SHAPES, Pose, box_stencil, stamp


def corners(shape: str, proportion: float) -> np.ndarray:
    """The outline in the unit frame, v down, from the definition in words."""
    if shape == "square":
        return 0.85 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    if shape == "triangle":
        angles = np.radians([-90, 30, 150])
        return 1.16 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)  # inscribed circle of 0.58
    if shape == "cross":
        a = 0.26 + 0.12 * proportion
        return np.array(
            [[-a, -1], [a, -1], [a, -a], [1, -a], [1, a], [a, a], [a, 1], [-a, 1], [-a, a], [-1, a], [-1, -a], [-a, -a]]
        )
    radii = np.array([1.12, 0.40 + 0.12 * proportion] * 5)
    angles = np.radians(-90 + 36 * np.arange(10))
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def object_frame(pose: Pose, stencil_shape: tuple[int, int], top: int, left: int) -> np.ndarray:
    """Unit-frame coordinates (h, w, 2) of pixel centres, in float64 with real trigonometry."""
    rows, columns = np.mgrid[: stencil_shape[0], : stencil_shape[1]]
    x, y = columns + left + 0.5 - pose.x, rows + top + 0.5 - pose.y
    angle = 2 * math.pi * pose.turn / TURN
    u = (x * math.cos(angle) + y * math.sin(angle)) / pose.radius / math.sqrt(pose.aspect)
    v = (y * math.cos(angle) - x * math.sin(angle)) / pose.radius * math.sqrt(pose.aspect)
    return np.stack([u, v], axis=-1)


poses = st.builds(
    Pose,
    x=st.floats(-20, 150),
    y=st.floats(-20, 150),
    turn=st.integers(0, TURN - 1),
    radius=st.floats(5, 60),
    aspect=st.floats(0.7, 1.4),
)


@pytest.mark.parametrize("shape", ["square", "triangle", "star", "cross"])
@given(pose=poses, proportion=st.floats(0, 1))
def test_masks_are_their_polygons(shape: str, pose: Pose, proportion: float) -> None:
    stencil = stamp(shape, pose, proportion)
    points_hw2 = object_frame(pose, stencil.distance_hw.shape, stencil.top, stencil.left)
    expected = Polygon(corners(shape, proportion)).contains_points(points_hw2.reshape(-1, 2))
    wrong = stencil.inside_hw.ravel() != expected
    assert np.abs(stencil.distance_hw.ravel()[wrong]).max(initial=0) < 1e-2  # only on the outline itself


@given(pose=poses, proportion=st.floats(0, 1))
def test_discs_and_rings_are_their_circles(pose: Pose, proportion: float) -> None:
    for shape, hole in (("disc", 0.0), ("ring", 0.4 + 0.2 * proportion)):
        stencil = stamp(shape, pose, proportion)
        radius_hw = np.linalg.norm(object_frame(pose, stencil.distance_hw.shape, stencil.top, stencil.left), axis=-1)
        expected_hw = (radius_hw < 1) & (radius_hw > hole) if hole else radius_hw < 1
        wrong_hw = stencil.inside_hw != expected_hw
        assert np.abs(stencil.distance_hw[wrong_hw]).max(initial=0) < 1e-2


@pytest.mark.parametrize("shape", [*SHAPES, *CLUTTER])
@given(pose=poses, proportion=st.floats(0, 1))
def test_windows_hold_the_whole_shape(shape: str, pose: Pose, proportion: float) -> None:
    inside_hw = stamp(shape, pose, proportion).inside_hw
    assert inside_hw[1:-1, 1:-1].any()
    assert not inside_hw[[0, -1]].any()
    assert not inside_hw[:, [0, -1]].any()


@given(
    x=st.floats(-9, 40),
    y=st.floats(-9, 40),
    half=st.tuples(st.floats(1, 20), st.floats(1, 9)),
    turn=st.integers(0, TURN),
)
def test_signs_are_turned_rectangles(x: float, y: float, half: tuple[float, float], turn: int) -> None:
    stencil = box_stencil(x, y, turn, *half)
    points_hw2 = object_frame(Pose(x, y, turn, 1), stencil.distance_hw.shape, stencil.top, stencil.left)
    expected_hw = (np.abs(points_hw2) < half).all(axis=-1)
    wrong_hw = stencil.inside_hw != expected_hw
    assert np.abs(stencil.distance_hw[wrong_hw]).max(initial=0) < 1e-3


@given(pose=poses, height=st.integers(1, 130), width=st.integers(1, 130), move=st.tuples(*[st.integers(-9, 9)] * 2))
def test_clipping_is_pasting(pose: Pose, height: int, width: int, move: tuple[int, int]) -> None:
    stencil = stamp("disc", pose)
    expected_HW = np.zeros((height, width), dtype=bool)
    for row, column in np.argwhere(stencil.inside_hw):
        y, x = row + stencil.top + move[0], column + stencil.left + move[1]
        if 0 <= y < height and 0 <= x < width:
            expected_HW[y, x] = True
    pasted_HW = np.zeros((height, width), dtype=bool)
    meet = stencil.clip(height, width, *move)
    if meet is not None:
        pasted_HW[meet[0]] = stencil.inside_hw[meet[1]]
    np.testing.assert_array_equal(pasted_HW, expected_HW)
