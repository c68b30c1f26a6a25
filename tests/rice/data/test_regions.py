"""Boxes stay on what they enclose through crop and mirror; regions are sampled as the paper's section 3.2 says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rice.data.regions import Crop, Draws, balanced, draw_crop, draw_positives, through_crop, visible_share

SEEDS = st.integers(0, 2**63)


@st.composite
def square_crops_and_boxes(draw: st.DrawFn) -> tuple[tuple[int, int], Crop, NDArray[np.float64]]:
    """(picture's width and height, a square crop, boxes (R, 4) in whole pixels)."""
    width, height = draw(st.integers(4, 40)), draw(st.integers(4, 40))
    edge = draw(st.integers(1, min(width, height)))
    crop = Crop(draw(st.integers(0, width - edge)), draw(st.integers(0, height - edge)), edge, edge)
    boxes = []
    for _ in range(draw(st.integers(1, 5))):
        x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append([x, y, draw(st.integers(x + 1, width)), draw(st.integers(y + 1, height))])
    return (width, height), crop, np.array(boxes, dtype=np.float64)


def rendered(frame: tuple[int, int], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(height, width): True inside the box."""
    mask = np.zeros(frame[::-1], dtype=bool)
    x1, y1, x2, y2 = box.astype(int)
    mask[y1:y2, x1:x2] = True
    return mask


def cut(mask: NDArray[np.bool_], crop: Crop) -> NDArray[np.bool_]:
    return mask[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


@given(square_crops_and_boxes(), st.integers(1, 5), st.booleans())
def test_a_box_lands_where_its_rendered_picture_lands(case: tuple, factor: int, flip: bool) -> None:
    frame, crop, boxes_R4 = case
    moved_R4 = through_crop(boxes_R4, crop, crop.width * factor, flip)
    for box, moved in zip(boxes_R4, moved_R4, strict=True):
        enlarged = cut(rendered(frame, box), crop).repeat(factor, axis=0).repeat(factor, axis=1)
        if flip:
            enlarged = enlarged[:, ::-1]
        rows, columns = np.flatnonzero(enlarged.any(axis=1)), np.flatnonzero(enlarged.any(axis=0))
        if len(rows):
            expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(moved, expected, atol=1e-12)
        else:
            assert (moved[2:] <= moved[:2]).any()


@given(square_crops_and_boxes())
def test_the_visible_share_is_the_share_of_its_pixels(case: tuple) -> None:
    frame, crop, boxes_R4 = case
    for box, share in zip(boxes_R4, visible_share(boxes_R4, crop), strict=True):
        mask = rendered(frame, box)
        assert share == pytest.approx(cut(mask, crop).sum() / mask.sum(), abs=1e-12)


@given(st.integers(1, 3000), st.integers(1, 3000), SEEDS)
def test_a_crop_lies_in_its_picture(width: int, height: int, seed: int) -> None:
    crop = draw_crop(width, height, (0.4, 1.0), (3 / 4, 4 / 3), Draws(seed, 0, 0))
    assert crop.width > 0
    assert crop.height > 0
    assert 0 <= crop.left <= width - crop.width
    assert 0 <= crop.top <= height - crop.height


def test_crops_have_the_areas_and_places_that_were_asked_for() -> None:
    width, height, scale = 1200, 1000, (0.2, 0.5)
    crops = [draw_crop(width, height, scale, (3 / 4, 4 / 3), Draws(7, 0, i)) for i in range(3000)]
    shares = np.array([c.width * c.height for c in crops]) / (width * height)
    ratios = np.log([c.width / c.height for c in crops])
    assert 0.19 < shares.min() < 0.21
    assert 0.49 < shares.max() < 0.51
    assert shares.mean() == pytest.approx(0.35, abs=0.005)
    assert ratios.mean() == pytest.approx(0, abs=0.01)
    assert ratios.std() == pytest.approx(math.log(4 / 3) / math.sqrt(3), rel=0.05)
    assert np.mean([c.left / (width - c.width) for c in crops]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([c.top / (height - c.height) for c in crops]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("width", "height", "grid"), [(128, 300, 8), (300, 128, 8), (127, 300, 1), (300, 127, 1)])
def test_pictures_of_128_pixels_and_more_are_cut_on_jpegs_blocks(width: int, height: int, grid: int) -> None:
    crops = np.array([draw_crop(width, height, (0.4, 1.0), (3 / 4, 4 / 3), Draws(7, 0, i)) for i in range(200)])
    assert np.gcd.reduce(crops, axis=0).tolist() == [grid] * 4


@pytest.mark.parametrize(
    ("size", "crop"),
    [
        ((2000, 100), (933, 0, 133, 100)),  # 4/3 of its height
        ((100, 2000), (0, 933, 100, 133)),
        ((4000, 200), (1864, 0, 264, 200)),  # 266 and (4000 - 264) / 2 = 1868 on the grid
        ((200, 4001), (0, 1864, 200, 264)),
        ((900, 1), (449, 0, 1, 1)),
        ((1, 900), (0, 449, 1, 1)),
    ],
)
def test_where_no_attempt_fits_the_crop_is_the_largest_central_one_of_an_allowed_shape(
    size: tuple[int, int], crop: tuple[int, ...]
) -> None:
    assert draw_crop(*size, (0.4, 1.0), (3 / 4, 4 / 3), Draws(7, 0, 0)) == crop


@pytest.mark.parametrize(("width", "height", "grid"), [(120, 100, 1), (160, 136, 8)])
def test_a_crop_is_the_first_of_ten_attempts_that_fits(width: int, height: int, grid: int) -> None:
    """Each draws an area, a shape in its logarithm, x and y, in this order."""
    for sample in range(50):
        attempts = []
        for area, shape, x, y in np.random.Generator(np.random.Philox(key=sample)).random((10, 4)):
            pixels, ratio = width * height * (0.5 + 0.5 * area), math.exp(math.log(4 / 3) * (2 * shape - 1))
            w, h = (round(math.sqrt(edge) / grid) * grid for edge in (pixels * ratio, pixels / ratio))
            left, top = (math.floor(at * ((edge // grid) + 1)) * grid for at, edge in ((x, width - w), (y, height - h)))
            attempts.append((left, top, w, h))
        fitting = [crop for crop in attempts if crop[2] <= width and crop[3] <= height]
        assert draw_crop(width, height, (0.5, 1.0), (3 / 4, 4 / 3), Draws(0, 0, sample)) == fitting[0]


@given(st.integers(0, 40), st.integers(1, 20), SEEDS)
def test_many_regions_give_distinct_ones_and_few_all_of_them(count: int, wanted: int, seed: int) -> None:
    chosen = balanced(count, wanted, Draws(seed, 3, 5)).tolist()
    assert len(chosen) == (wanted if count else 0)
    assert len(set(chosen)) == min(count, wanted)
    assert set(chosen) <= set(range(count))


@pytest.mark.parametrize(("count", "wanted"), [(8, 3), (3, 8)])
def test_no_region_is_preferred(count: int, wanted: int) -> None:
    rounds = 6000
    seen = np.zeros(count)
    for sample in range(rounds):
        np.add.at(seen, balanced(count, wanted, Draws(1, 0, sample)), 1)
    expected = rounds * wanted / count
    assert np.abs(seen - expected).max() < 4 * math.sqrt(expected)


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 12), SEEDS)
def test_positives_are_distinct_words_of_the_text(tokens: list[int], wanted: int, seed: int) -> None:
    ids = draw_positives(np.array(tokens, dtype=np.int32), wanted, Draws(seed, 0, 0))
    chosen = ids.tolist()
    assert ids.dtype == np.int64
    assert len(chosen) == len(set(chosen)) == min(len(set(tokens)), wanted)
    assert set(chosen) <= set(tokens)


def test_a_longer_text_gives_each_of_its_words_the_same_chance() -> None:
    seen = np.zeros(12)
    for sample in range(4000):
        seen[draw_positives(np.arange(12, dtype=np.int32), 3, Draws(2, 0, sample))] += 1
    assert np.abs(seen - 1000).max() < 4 * math.sqrt(1000)


@given(SEEDS, st.integers(0, 2**24 - 1), st.integers(0, 2**40 - 1))
@settings(max_examples=30)
def test_draws_are_numpys_own_uniforms_of_that_key(seed: int, epoch: int, sample: int) -> None:
    reference = np.random.Generator(np.random.Philox(key=(seed << 64) + (epoch << 40) + sample))
    draws = Draws(seed, epoch, sample)
    np.testing.assert_array_equal(np.concatenate([draws.uniform(3), draws.uniform(5)]), reference.random(8))


def test_seeds_and_epochs_wrap_at_64_and_24_bits() -> None:
    np.testing.assert_array_equal(Draws(-1, 2**24 + 5, 3).uniform(4), Draws(2**64 - 1, 5, 3).uniform(4))


def test_a_choice_draws_as_many_numbers_whatever_it_chooses() -> None:
    """So that what a sample draws next does not hang on the branch."""
    for count, wanted in ((8, 3), (3, 8), (5, 5), (0, 4)):
        draws, reference = Draws(1, 2, 3), Draws(1, 2, 3).uniform(20)
        balanced(count, wanted, draws)
        assert draws.uniform(1) == reference[count + wanted]
    for size in ((300, 200), (9, 900)):  # the first attempt, and none of them
        draws = Draws(1, 2, 3)
        draw_crop(*size, (0.4, 1.0), (3 / 4, 4 / 3), draws)
        assert draws.uniform(1) == Draws(1, 2, 3).uniform(41)[40]
    draws = Draws(1, 2, 3)
    draw_positives(np.zeros(0, np.int32), 4, draws)
    assert draws.uniform(1) == Draws(1, 2, 3).uniform(1)
