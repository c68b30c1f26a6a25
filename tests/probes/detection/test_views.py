"""How pictures, boxes and masks are shown: they move together, and as PIL's own resize of the whole would."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from probes.detection.views import View, to_square

sides = st.integers(1, 90)
edges = st.sampled_from([16, 28, 64])
seeds = st.integers(0, 2**31)
JITTER = (0.1, 2.0)


def drawn(width: int, height: int, edge: int, seed: int, flip: float = 0.5) -> View:
    return View.random(width, height, edge, jitter=JITTER, flip=flip, dice=np.random.default_rng(seed))


def boxes_in(width: int, height: int, seed: int, count: int = 8) -> NDArray[np.float64]:
    dice = np.random.default_rng(seed)
    x, y = np.sort(dice.random((count, 2)) * width, 1), np.sort(dice.random((count, 2)) * height, 1)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(sides, sides, edges, seeds)
@settings(max_examples=200, deadline=None)
def test_boxes_come_back_from_a_whole_view_where_they_were(width: int, height: int, edge: int, seed: int) -> None:
    view, boxes = View.whole(width, height, edge), boxes_in(width, height, seed)
    np.testing.assert_allclose(view.boxes_back(view.boxes(boxes)), boxes, rtol=0, atol=1e-6)


@given(sides, sides, edges, seeds)
@settings(max_examples=200, deadline=None)
def test_boxes_come_back_from_a_cut_view_cut_to_what_it_shows(width: int, height: int, edge: int, seed: int) -> None:
    view, boxes = drawn(width, height, edge, seed, flip=0.0), boxes_in(width, height, seed)
    across, down = width / view.scaled[0], height / view.scaled[1]
    (x, y), (w, h) = view.offset, view.shown
    limits = np.array([x * across, y * down, (x + w) * across, (y + h) * down])
    expected = np.concatenate([boxes[:, :2].clip(limits[:2], limits[2:]), boxes[:, 2:].clip(limits[:2], limits[2:])], 1)
    np.testing.assert_allclose(view.boxes_back(view.boxes(boxes)), expected, rtol=0, atol=1e-6)


@given(sides, sides, edges, seeds)
@settings(max_examples=200, deadline=None)
def test_boxes_of_the_square_are_cut_to_the_picture_on_their_way_back(
    width: int, height: int, edge: int, seed: int
) -> None:
    back = View.whole(width, height, edge).boxes_back(boxes_in(2 * edge, 2 * edge, seed) - edge / 2)
    assert (back >= 0).all()
    assert (back <= [width, height, width, height]).all()


def test_the_way_back_from_a_mirrored_view_is_refused() -> None:
    with pytest.raises(ValueError, match="mirrored"):
        View.whole(9, 9, 16, flip=True).boxes_back(boxes_in(9, 9, 0))


@given(sides, sides, edges, seeds)
@settings(max_examples=300, deadline=None)
def test_what_is_shown_lies_inside_the_scaled_picture_and_the_square(
    width: int, height: int, edge: int, seed: int
) -> None:
    for view in (drawn(width, height, edge, seed), View.whole(width, height, edge)):
        for full, start, part in zip(view.scaled, view.offset, view.shown, strict=True):
            assert 1 <= part <= edge
            assert 0 <= start <= full - part
            assert part == min(full, edge), "a cut is as large as it can be"
        boxes = view.boxes(boxes_in(width, height, seed))
        assert (boxes >= 0).all()
        assert (boxes <= [*view.shown, *view.shown]).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()


@given(sides, sides, edges, st.floats(0.1, 2))
@settings(max_examples=200, deadline=None)
def test_the_aspect_ratio_is_kept_to_half_a_pixel(width: int, height: int, edge: int, scale: float) -> None:
    view = View.whole(width, height, edge, scale=scale)
    longer = scale * edge
    for full, side in zip(view.scaled, (width, height), strict=True):
        assert full == 1 or abs(full - side * longer / max(width, height)) <= 0.5 + 1e-9
    if scale == 1:
        assert max(view.shown) == edge


def test_a_draw_covers_the_range_of_scales_and_every_place() -> None:
    views = [drawn(60, 40, 32, seed) for seed in range(400)]
    scales = np.array([view.scaled[0] / 32 for view in views])
    assert np.quantile(scales, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0.1, 0.575, 1.05, 1.525, 2.0], abs=0.12)
    assert 150 < sum(view.flip for view in views) < 250
    places = [view.offset[0] / (view.scaled[0] - 32) for view in views if view.scaled[0] > 42]
    assert np.quantile(places, [0.0, 0.5, 1.0]) == pytest.approx([0, 0.5, 1], abs=0.1)


@given(sides, sides, edges, seeds)
@example(2, 2, 16, 58)  # a corner of one pixel, magnified
@settings(max_examples=300, deadline=None)
def test_a_rectangles_mask_and_its_box_move_together(width: int, height: int, edge: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    x0, x1 = sorted(dice.integers(0, width + 1, 2).tolist())
    y0, y1 = sorted(dice.integers(0, height + 1, 2).tolist())
    assume(x1 > x0 and y1 > y0)
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    view = drawn(width, height, edge, seed)
    shown = view.mask(mask)
    (box,) = view.boxes(np.array([[x0, y0, x1, y1]], np.float64)).tolist()
    assert shown.shape == view.shown[::-1]
    if not shown.any():
        # Nothing of it: it covers no pixel by half.
        assert min(box[2] - box[0], box[3] - box[1]) <= 1.5
        return
    columns, rows = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
    bounds = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    spill = np.array([box[0] - bounds[0], box[1] - bounds[1], bounds[2] - box[2], bounds[3] - box[3]])
    assert (spill <= 1.01).all(), "a mask reaches no farther than its box, but for the pixels that it shares"
    # A pixel of the picture fades over this many shown ones: of a corner cut thinner, none may be wholly covered.
    faded = max(view.scaled[0] / width, view.scaled[1] / height) / 2 + 0.5
    if min(box[2] - box[0], box[3] - box[1]) > max(1.5, faded):
        np.testing.assert_allclose(bounds, box, rtol=0, atol=1.01)
    # Thinner ones cover their pixels by half only where nothing else takes any of it, so they may end earlier.


def test_a_mask_is_the_pixels_that_it_covers_by_half() -> None:
    """Twice as small: each shown pixel is four, or three of them weighted by a triangle."""
    mask = np.zeros((64, 64), bool)
    mask[10:31, 20:40] = True
    view = View.whole(64, 64, 32)
    expected = np.zeros((32, 32), bool)
    expected[5:16, 10:20] = True  # row 15 is covered by half
    shown = view.mask(mask)
    np.testing.assert_array_equal(np.delete(shown, 15, 0), np.delete(expected, 15, 0))


@given(sides, sides, seeds)
@settings(max_examples=50, deadline=None)
def test_a_view_at_the_pictures_own_size_changes_nothing(width: int, height: int, seed: int) -> None:
    picture, mask = noise(width, height), np.random.default_rng(seed).random((height, width)) > 0.5
    boxes = boxes_in(width, height, seed)
    plain = View.whole(width, height, max(width, height))
    np.testing.assert_array_equal(np.asarray(plain.picture(picture)), np.asarray(picture))
    np.testing.assert_array_equal(plain.mask(mask), mask)
    np.testing.assert_allclose(plain.boxes(boxes), boxes)
    mirrored = View.whole(width, height, max(width, height), flip=True)
    np.testing.assert_array_equal(np.asarray(mirrored.picture(picture)), np.asarray(picture)[:, ::-1])
    np.testing.assert_array_equal(mirrored.mask(mask), mask[:, ::-1])
    expected = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    np.testing.assert_allclose(mirrored.boxes(boxes), expected)


@given(sides, sides, edges, seeds)
@settings(max_examples=150, deadline=None)
def test_a_picture_is_the_cut_of_pils_resize_of_the_whole(width: int, height: int, edge: int, seed: int) -> None:
    view, picture = drawn(width, height, edge, seed), noise(width, height)
    source = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else picture
    x, y = view.offset
    whole = source.resize(view.scaled, Image.Resampling.BILINEAR)
    expected = whole.crop((x, y, x + view.shown[0], y + view.shown[1]))
    difference = np.asarray(view.picture(picture)).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 2


def test_mirroring_shows_the_mirror_of_what_is_shown() -> None:
    """Of a whole view; a cut shows the other side of the picture."""
    picture = noise(50, 30)
    straight, mirrored = (View.whole(50, 30, 32, flip=flip).picture(picture) for flip in (False, True))
    np.testing.assert_array_equal(np.asarray(mirrored), np.asarray(straight)[:, ::-1])


def test_a_square_holds_the_picture_at_the_top_left_and_the_fill_elsewhere() -> None:
    fill = (0.48, 0.46, 0.41)
    part = noise(20, 12)
    square = to_square(part, 32, fill)
    assert square.shape == (3, 32, 32)
    assert square.dtype == torch.float32
    pixels = torch.from_numpy(np.array(part)).permute(2, 0, 1) / 255
    torch.testing.assert_close(square[:, :12, :20], pixels)
    padding = torch.ones(32, 32, dtype=torch.bool)
    padding[:12, :20] = False
    torch.testing.assert_close(square[:, padding], torch.tensor(fill)[:, None].expand(3, int(padding.sum())))


def test_a_grey_picture_becomes_three_equal_channels() -> None:
    square = to_square(noise(8, 8).convert("L"), 8, (0.1, 0.2, 0.3))
    assert torch.equal(square[0], square[1])
    assert torch.equal(square[1], square[2])
