"""Backgrounds: patchworks of the objects' own textures and colours under noise of several scales.

Shapes: H, W the canvas, in pixels. Nothing but a closed outline tells an object from what lies behind it. TRAIN and
PRETRAIN draw their patchworks from one family, TEST from another.
"""

import functools

import numpy as np

from rice.data.world.draws import Dice, Part, cos_sin
from rice.data.world.shapes import Plane
from rice.data.world.textures import (
    TEXTURES,
    Colour,
    Paint,
    coloured,
    coverage,
    draw_paint,
    draw_texture,
    smoothstep,
    tones,
)

_COARSEST = 3
"""Cells of the first octave of noise, along either edge."""


PLAIN = 0.25
"""Chance of a fill to have no texture but noise."""


def draw_background(
    dice: Dice, part: Part, height: int, width: int, palette: tuple[Colour, ...], plain: float = PLAIN
) -> Plane:
    """RGB canvas (3, H, W), float32, about 0 to 255. plain: see `rice.data.world.scene.SceneConfig`."""
    x_W = np.arange(width, dtype=np.float32) + np.float32(0.5)
    y_H1 = (np.arange(height, dtype=np.float32) + np.float32(0.5))[:, None]
    canvas_3HW = _fill(dice, part, x_W, y_H1, palette, plain)
    for coverage_HW in _patches(dice, part, x_W, y_H1):
        canvas_3HW += coverage_HW * (_fill(dice, part, x_W, y_H1, palette, plain) - canvas_3HW)
    relief_HW = fractal_noise(dice, height, width, octaves=4)
    canvas_3HW *= np.float32(0.7) + relief_HW * np.float32(0.55)
    return canvas_3HW


def fractal_noise(dice: Dice, height: int, width: int, octaves: int) -> Plane:
    """Smooth noise (H, W) in [0, 1]: octaves of value noise, each twice as fine and two thirds as strong."""
    total_HW = np.zeros((height, width), dtype=np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        cells = _COARSEST << octave
        lattice = dice.lattice(cells + 1, cells + 1) * np.float32(weight)
        total_HW += _interpolation(height, cells) @ lattice @ _interpolation(width, cells).T
        norm += weight
        weight *= 2 / 3
    return total_HW / np.float32(norm)


@functools.lru_cache(maxsize=64)
def _interpolation(length: int, cells: int) -> Plane:
    """(length, cells + 1): row i holds the smoothstep weights of the two lattice points around pixel i."""
    position = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / length)
    cell = np.minimum(position.astype(np.int64), cells - 1)
    mix = smoothstep(position - cell.astype(np.float32))
    weights = np.zeros((length, cells + 1), dtype=np.float32)
    weights[np.arange(length), cell] = 1 - mix
    weights[np.arange(length), cell + 1] = mix
    return weights


def _fill(dice: Dice, part: Part, x_W: Plane, y_H1: Plane, palette: tuple[Colour, ...], plain: float) -> Plane:
    """The whole canvas in noise or in one texture, bent by noise, its contrast anything between faint and full."""
    height, width = len(y_H1), len(x_W)
    unit = min(height, width) * dice.real(0.12, 0.35)
    if dice.chance(plain):
        return coloured(_faded(draw_paint(dice, palette), dice.real(0.4, 1)), fractal_noise(dice, height, width, 5))
    bend_HW = fractal_noise(dice, height, width, octaves=2) * np.float32(dice.real(0, 1.5))
    texture = draw_texture(dice, part, dice.choice(TEXTURES), 2 * unit)
    u_HW, v_HW = x_W * np.float32(1 / unit) + bend_HW, y_H1 * np.float32(1 / unit) - bend_HW
    return coloured(_faded(draw_paint(dice, palette), dice.real(0.3, 1)), tones(texture, u_HW, v_HW, unit))


def _faded(paint: Paint, strength: float) -> Paint:
    middle = [(dark + light) / 2 for dark, light in zip(paint.dark, paint.light, strict=True)]

    def toward(colour: Colour) -> Colour:
        red, green, blue = (m + (c - m) * strength for m, c in zip(middle, colour, strict=True))
        return (red, green, blue)

    return Paint(toward(paint.dark), toward(paint.light))


def _patches(dice: Dice, part: Part, x_W: Plane, y_H1: Plane) -> list[Plane]:
    """Coverages (H, W) of the patches that lie on the first fill, in painting order."""
    families = (_cells, _islands) if part.held_out else (_halves, _strata)
    return dice.choice(families)(dice, x_W, y_H1)


def _halves(dice: Dice, x_W: Plane, y_H1: Plane) -> list[Plane]:
    """Half-planes with straight borders, as walls and floors."""
    height, width = len(y_H1), len(x_W)
    planes = []
    for _ in range(dice.integer(1, 2)):
        cos, sin = cos_sin(dice.turn())
        x, y = dice.real(0.2, 0.8) * width, dice.real(0.2, 0.8) * height
        planes.append(coverage((x_W - np.float32(x)) * np.float32(cos) + (y_H1 - np.float32(y)) * np.float32(sin)))
    return planes


def _strata(dice: Dice, x_W: Plane, y_H1: Plane) -> list[Plane]:
    """Wavy horizons, as hills behind each other."""
    height, width = len(y_H1), len(x_W)
    levels = sorted(dice.real(0.15, 0.9) * height for _ in range(dice.integer(1, 3)))
    swing = [fractal_noise(dice, 1, width, octaves=3)[0] * np.float32(0.5 * height) for _ in levels]
    return [
        coverage(y_H1 - np.float32(level) + s - np.float32(0.25 * height))
        for level, s in zip(levels, swing, strict=True)
    ]


def _cells(dice: Dice, x_W: Plane, y_H1: Plane) -> list[Plane]:
    """Voronoi cells, as paving."""
    height, width = len(y_H1), len(x_W)
    sites = [(dice.real(0, 1) * width, dice.real(0, 1) * height) for _ in range(dice.integer(3, 4))]
    away = [np.sqrt(np.square(x_W - np.float32(x)) + np.square(y_H1 - np.float32(y))) for x, y in sites]
    nearest, coverages = away[0], []
    for distance_HW in away[1:]:
        coverages.append(coverage(nearest - distance_HW))
        nearest = np.minimum(nearest, distance_HW)
    return coverages


def _islands(dice: Dice, x_W: Plane, y_H1: Plane) -> list[Plane]:
    """What stands above one or two levels of smooth noise, as lakes and land."""
    height, width = len(y_H1), len(x_W)
    noise_HW = fractal_noise(dice, height, width, octaves=3)
    levels = sorted(dice.real(0.4, 0.65) for _ in range(dice.integer(1, 2)))
    return [coverage((noise_HW - np.float32(level)) * np.float32(min(height, width) / 2)) for level in levels]
