"""Textures have the period, the share and the softness that they say, and the test part's own parameters."""

import numpy as np
import pytest

from rice.data.world.background import draw_background, fractal_noise
from rice.data.world.draws import Dice, Part
from rice.data.world.textures import (
    TEXTURES,
    Texture,
    brightness,
    coloured,
    draw_paint,
    draw_palette,
    draw_texture,
    tones,
    value_noise,
)


def plane(size: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
    axis = ((np.arange(size) + 0.5) / unit).astype(np.float32)
    return np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))


def texture(kind: str, fill: float = 0.4, turn: int = 0, staggered: bool = False) -> Texture:
    return Texture(kind, 0.5, turn, fill, (0.1, 0.7), staggered, Dice(3).lattice(16, 16))


@pytest.mark.parametrize("kind", ["striped", "checked", "dotted"])
def test_regular_textures_repeat_after_their_period(kind: str) -> None:
    tones_HW = tones(texture(kind), *plane(160, 40.0), 40.0)  # 20 pixels a period
    np.testing.assert_allclose(tones_HW[:, 20:], tones_HW[:, :-20], atol=1e-4)
    np.testing.assert_allclose(tones_HW[20:], tones_HW[:-20], atol=1e-4)


@pytest.mark.parametrize("fill", [0.38, 0.5, 0.62])
def test_stripes_are_straight_and_take_their_share(fill: float) -> None:
    tones_HW = tones(texture("striped", fill), *plane(160, 40.0), 40.0)
    np.testing.assert_allclose(tones_HW, np.broadcast_to(tones_HW[0], tones_HW.shape), atol=1e-4)
    assert tones_HW.mean() == pytest.approx(fill, abs=0.02)
    assert tones(texture("checked", fill), *plane(160, 40.0), 40.0).mean() == pytest.approx(0.5, abs=0.02)
    radius = 0.16 + 0.34 * fill
    assert tones(texture("dotted", fill), *plane(160, 40.0), 40.0).mean() == pytest.approx(np.pi * radius**2, abs=0.02)


def test_a_quarter_turn_turns_stripes() -> None:
    upright = tones(texture("striped"), *plane(160, 40.0), 40.0)
    lying = tones(texture("striped", turn=1024), *plane(160, 40.0), 40.0)
    assert upright.std(axis=0).max() < 1e-3 < lying.std(axis=0).max()
    assert lying.std(axis=1).max() < 1e-3


@pytest.mark.parametrize("kind", TEXTURES)
def test_tones_are_antialiased_at_every_size(kind: str) -> None:
    for unit in (20.0, 200.0):
        tones_HW = tones(texture(kind, turn=300), *plane(400, unit), unit)
        assert tones_HW.dtype == np.float32
        assert 0 <= tones_HW.min() < 0.02
        assert 0.98 < tones_HW.max() <= 1
        assert np.abs(np.diff(tones_HW, axis=1)).max() <= 1
        partly = ((tones_HW > 0.01) & (tones_HW < 0.99)).mean()
        assert 0 < partly < 12 / unit


def test_value_noise_passes_through_its_lattice_and_repeats() -> None:
    lattice = Dice(1).lattice(5, 7)
    s, t = np.meshgrid(np.arange(-7, 14, dtype=np.float32), np.arange(-5, 10, dtype=np.float32))
    np.testing.assert_allclose(value_noise(lattice, s, t), np.tile(lattice, (3, 3)), atol=1e-6)
    between = value_noise(lattice, np.float32([[0.5]]), np.float32([[0.0]]))
    assert between[0, 0] == pytest.approx((lattice[0, 0] + lattice[0, 1]) / 2, abs=1e-6)


def test_fractal_noise_is_smooth_and_spreads() -> None:
    noise_HW = fractal_noise(Dice(2), 256, 192, octaves=4)
    assert noise_HW.shape == (256, 192)
    assert noise_HW.min() >= 0
    assert noise_HW.max() <= 1
    assert noise_HW.std() > 0.08
    assert np.abs(np.diff(noise_HW, axis=0)).max() < 0.06


def test_the_two_colours_of_a_texture_can_be_told_apart() -> None:
    dice = Dice(4)
    for _ in range(200):
        paint = draw_paint(dice, draw_palette(dice))
        assert brightness(paint.light) - brightness(paint.dark) > 55
        assert all(0 <= channel <= 255 for channel in (*paint.dark, *paint.light))
    rgb_3hw = coloured(paint, np.float32([[0, 1]]))
    np.testing.assert_allclose(rgb_3hw[:, 0].T, [paint.dark, paint.light], atol=1e-3)


def test_the_test_part_has_its_own_parameters() -> None:
    def pool(part: Part) -> set[tuple[float, float]]:
        dice = Dice(6)
        drawn = [draw_texture(dice, part, "striped", pixels=1000) for _ in range(200)]
        return {(round(2 / texture.period), texture.fill) for texture in drawn}

    train, test = pool(Part.TRAIN), pool(Part.TEST)
    assert train == pool(Part.PRETRAIN)
    assert {cycles for cycles, _ in train}.isdisjoint(cycles for cycles, _ in test)
    assert {fill for _, fill in train}.isdisjoint(fill for _, fill in test)


@pytest.mark.parametrize("part", list(Part))
def test_backgrounds_have_any_size_and_stay_in_range(part: Part) -> None:
    for index, (height, width) in enumerate([(64, 64), (48, 130), (200, 33), (97, 101)]):
        dice = Dice(part, index)
        canvas_3HW = draw_background(dice, part, height, width, draw_palette(dice))
        assert canvas_3HW.shape == (3, height, width)
        assert np.isfinite(canvas_3HW).all()
        assert canvas_3HW.min() >= 0
        assert canvas_3HW.max() < 350  # the camera clips
        assert canvas_3HW.std() > 3
