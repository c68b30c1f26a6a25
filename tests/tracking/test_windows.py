"""A window shows what a zero-padded crop, resized in float64, shows; boxes and pixels share one geometry."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tracking.windows import Window, clip_box

Frame = NDArray[np.uint8]


def noise(height: int, width: int, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_hand(window: Window, frame: Frame, size: int) -> NDArray[np.float64]:
    """Pixel by pixel, float64: half-pixel centres, the border's pixels repeated, black beyond the frame."""
    height, width, _ = frame.shape

    def pixel(row: int, column: int) -> NDArray[np.float64]:
        row, column = (min(max(k, 0), window.side - 1) for k in (row, column))
        y, x = window.top + row, window.left + column
        inside = 0 <= y < height and 0 <= x < width
        return frame[y, x].astype(np.float64) if inside else np.zeros(3)

    cut = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            v, u = ((k + 0.5) * window.side / size - 0.5 for k in (i, j))
            row, column = math.floor(v), math.floor(u)
            down, right = v - row, u - column
            above = (1 - right) * pixel(row, column) + right * pixel(row, column + 1)
            below = (1 - right) * pixel(row + 1, column) + right * pixel(row + 1, column + 1)
            cut[i, j] = (1 - down) * above + down * below
    return cut


windows = st.builds(Window, st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 90))


@settings(max_examples=150, deadline=None)
@given(windows, st.integers(1, 33), st.integers(1, 33), st.integers(1, 12))
@example(Window(-4, 3, 9), 20, 20, 12)  # enlarged beyond each border
@example(Window(3, -4, 9), 20, 20, 12)
@example(Window(15, 3, 9), 20, 20, 12)
@example(Window(3, 15, 9), 20, 20, 12)
@example(Window(0, 0, 9), 20, 20, 12)  # and up to each
@example(Window(11, 11, 9), 20, 20, 12)
def test_a_cut_is_the_padded_crop_resized_to_a_grey_level(window: Window, height: int, width: int, size: int) -> None:
    frame = noise(height, width)
    found = window.cut(frame, size)
    assert (found.shape, found.dtype) == ((size, size, 3), np.uint8)
    assert np.abs(found - by_hand(window, frame, size)).max() <= 1 + 1e-9  # PIL cuts the fraction off


@pytest.mark.parametrize("frame", [(64, 64), (1, 1), (3, 200)])
def test_a_window_of_a_hundred_thousand_pixels_takes_little_memory(frame: tuple[int, int]) -> None:
    picture = noise(*frame)
    for left, top in ((-50_000, -50_000), (0, 0), (-99_990, 5), (2**19, 0)):
        window = Window(left, top, 100_000)
        tracemalloc.start()
        found = window.cut(picture, 16)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20
        assert np.abs(found - by_hand(window, picture, 16)).max() <= 1


@settings(max_examples=100, deadline=None)
@given(st.builds(Window, st.integers(-40, 40), st.integers(-40, 40), st.integers(1, 80)), st.integers(1, 40))
def test_at_its_own_scale_a_window_is_the_padded_picture_to_the_last_row_and_column(window: Window, edge: int) -> None:
    frame = noise(edge, edge + 3) | 1  # nothing of it is black
    expected = np.zeros((window.side, window.side, 3), np.uint8)
    for row in range(window.side):
        for column in range(window.side):
            y, x = window.top + row, window.left + column
            if 0 <= y < edge and 0 <= x < edge + 3:
                expected[row, column] = frame[y, x]
    np.testing.assert_array_equal(window.cut(frame, window.side), expected)
    assert window.meets(edge, edge + 3) == bool(expected.any())


@pytest.mark.parametrize("offset", [-64, 64, -1000, 1000])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_window_beside_the_frame_is_black(offset: int, axis: int) -> None:
    place = [0, 0]
    place[axis] = offset
    window = Window(*place, 64)
    assert not window.meets(64, 64)
    assert not window.cut(np.full((64, 64, 3), 255, np.uint8), 8).any()


@pytest.mark.parametrize(
    ("box", "factor"),
    [
        ((10, 20, 30, 12), 4.0),
        ((0, 0, 1, 1), 2.0),
        ((5.3, 7.9, 0.2, 90.1), 3.0),
        ((-30.5, 200, 8, 8), 2.5),
        ((60.9, 7.1, 8, 8), 2.5),
        ((7.1, 60.9, 8, 8), 2.5),
    ],
)
def test_a_window_has_ostracks_edge_and_its_centre_is_the_boxes_to_half_a_pixel(
    box: tuple[float, ...], factor: float
) -> None:
    window = Window.around(box, factor)
    wanted = math.sqrt(box[2] * box[3]) * factor
    assert wanted <= window.side < wanted + 1
    assert abs(window.left + window.side / 2 - (box[0] + box[2] / 2)) <= 0.5
    assert abs(window.top + window.side / 2 - (box[1] + box[3] / 2)) <= 0.5


def test_a_window_is_at_least_a_pixel_and_no_wider_than_any_frame() -> None:
    assert Window.around((3, 4, 1e-9, 1e-9), 2.0).side == 1
    assert Window.around((0, 0, 1e12, 1e12), 4.0).side == 2**20


boxes = st.tuples(*[st.floats(-200, 200)] * 2, *[st.floats(0.01, 300)] * 2)


@given(st.builds(Window, st.integers(-500, 500), st.integers(-500, 500), st.integers(1, 2000)), boxes)
def test_into_a_window_and_out_again_is_the_same_box(window: Window, box: tuple[float, ...]) -> None:
    np.testing.assert_allclose(window.outside(window.inside(box)), box, rtol=0, atol=1e-9)
    np.testing.assert_allclose(window.inside(window.outside(box)), box, rtol=0, atol=1e-9)
    assert window.inside((window.left, window.top, window.side, window.side)) == (0, 0, 1, 1)


@pytest.mark.parametrize("size", [64, 128, 96])
@pytest.mark.parametrize("window", [Window(0, 0, 64), Window(-13, 7, 48), Window(20, -9, 57), Window(9, 9, 30)])
def test_a_rectangle_lies_where_its_box_says(window: Window, size: int) -> None:
    x, y, width, height = 22, 17, 11, 16
    frame = np.zeros((60, 60, 3), np.uint8)
    frame[y : y + height, x : x + width] = 255
    bright = window.cut(frame, size)[..., 0] >= 128
    rows, columns = np.nonzero(bright.any(1))[0], np.nonzero(bright.any(0))[0]
    left, top, share_x, share_y = (value * size for value in window.inside((x, y, width, height)))
    found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    np.testing.assert_allclose(found, (left, top, left + share_x, top + share_y), rtol=0, atol=1)


@pytest.mark.parametrize("edge", ["row", "column"])
def test_the_last_row_and_column_of_the_frame_are_shown(edge: str) -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[(-1, slice(None)) if edge == "row" else (slice(None), -1)] = 255
    for window in (Window(0, 0, 32), Window(10, 10, 40)):
        found = window.cut(frame, 2 * window.side)[..., 0]
        last = 2 * (31 - (window.top if edge == "row" else window.left))
        line = found[last : last + 2] if edge == "row" else found[:, last : last + 2]
        assert line.max() >= 190


def ostracks_clip(box: tuple[float, ...], height: int, width: int, margin: float) -> list[float]:
    """As lib/utils/box_ops.py reads."""
    x1, y1, w, h = box
    x2, y2 = x1 + w, y1 + h
    x1 = min(max(0, x1), width - margin)
    x2 = min(max(margin, x2), width)
    y1 = min(max(0, y1), height - margin)
    y2 = min(max(margin, y2), height)
    return [x1, y1, max(margin, x2 - x1), max(margin, y2 - y1)]


@given(boxes, st.integers(10, 150), st.integers(10, 150), st.sampled_from([1.0, 5.0, 10.0]))
def test_clipping_is_ostracks_in_frames_that_hold_the_margin(
    box: tuple[float, ...], height: int, width: int, margin: float
) -> None:
    np.testing.assert_allclose(clip_box(box, height, width, margin), ostracks_clip(box, height, width, margin))


@given(boxes, st.integers(1, 20), st.integers(1, 20))
def test_a_clipped_box_lies_in_its_frame_and_has_an_area_however_small_that_is(
    box: tuple[float, ...], height: int, width: int
) -> None:
    x, y, box_width, box_height = clip_box(box, height, width, 10.0)
    assert min(x, y) >= 0
    assert x + box_width <= width + 1e-9
    assert y + box_height <= height + 1e-9
    assert box_width >= min(10, width)
    assert box_height >= min(10, height)


def test_a_box_of_one_pixel_is_cut_and_comes_back() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[12, 25] = 255
    window = Window.around((25, 12, 1, 1), 4.0)
    assert window.side == 4
    found = window.cut(frame, 16)[..., 0]
    rows, columns = np.nonzero(found >= 128)
    x, y, width, height = window.inside((25, 12, 1, 1))
    assert abs(columns.mean() + 0.5 - 16 * (x + width / 2)) <= 0.5
    assert abs(rows.mean() + 0.5 - 16 * (y + height / 2)) <= 0.5
