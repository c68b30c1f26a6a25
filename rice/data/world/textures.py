"""The world's textures and colours: a texture turns a frame's coordinates into tones between two colours.

Shapes: h, w a window or an image. Tones are float32 in [0, 1], antialiased: edges are one pixel wide at every size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rice.data.world.draws import Dice, Part, cos_sin
from rice.data.world.shapes import Plane

Colour = tuple[float, float, float]

TEXTURES = ("striped", "checked", "dotted", "marbled")

_CYCLES = {False: (3, 5, 7), True: (4, 6)}
"""Periods across an object, held out or not; likewise the share of the lighter colour."""
_FILLS = {False: (0.38, 0.5, 0.62), True: (0.44, 0.56)}
_FINEST = 4.5
"""Pixels a period, at least: finer textures could not be told apart."""
_LATTICE = 16
_CONTRAST = 80.0
_COLOURS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """One texture. period: in units of the frame that it is evaluated in; fill: share of the lighter colour."""

    kind: str
    period: float
    turn: int
    fill: float
    phase: tuple[float, float]
    staggered: bool
    lattice: Plane


@dataclass(frozen=True, slots=True)
class Paint:
    """The two colours of a texture, RGB from 0 to 255."""

    dark: Colour
    light: Colour


def draw_texture(dice: Dice, part: Part, kind: str, pixels: float) -> Texture:
    """A texture for a frame of diameter 2 that is `pixels` wide, from the part's own pool of parameters."""
    cycles = min(dice.choice(_CYCLES[part.held_out]), max(pixels / _FINEST, 1.5))
    return Texture(
        kind=kind,
        period=2 / cycles,
        turn=dice.turn(),
        fill=dice.choice(_FILLS[part.held_out]),
        phase=(dice.real(0, 1), dice.real(0, 1)),
        staggered=dice.chance(0.5),
        lattice=dice.lattice(_LATTICE, _LATTICE),
    )


def tones(texture: Texture, u_hw: Plane, v_hw: Plane, unit: float) -> Plane:
    """Tones (h, w) at frame coordinates u, v; `unit` is the number of pixels to one unit of the frame."""
    cos, sin = (np.float32(value / texture.period) for value in cos_sin(texture.turn))
    s_hw = u_hw * cos + v_hw * sin + np.float32(texture.phase[0])
    t_hw = v_hw * cos - u_hw * sin + np.float32(texture.phase[1])
    return _TONES[texture.kind](texture, s_hw, t_hw, texture.period * unit)


def _wave(x_hw: Plane) -> Plane:
    """Triangle wave of period 1 from 0 to 1."""
    distance: Plane = np.abs(x_hw - np.floor(x_hw) - np.float32(0.5))
    return distance * np.float32(2)


def coverage(x_hw: Plane) -> Plane:
    """Share of a pixel covered, from the signed distance (pixels, positive inside) of its centre to the edge."""
    shifted: Plane = np.maximum(x_hw + np.float32(0.5), np.float32(0))
    return np.minimum(shifted, np.float32(1))


def _striped(texture: Texture, s: Plane, t: Plane, pixels: float) -> Plane:
    return coverage((_wave(s) - np.float32(1 - texture.fill)) * np.float32(pixels / 2))


def _checked(texture: Texture, s: Plane, t: Plane, pixels: float) -> Plane:
    """Exclusive or of two square waves; a fill other than one half makes the squares oblong."""
    s_edge = coverage((_wave(s) - np.float32(1 - texture.fill)) * np.float32(pixels / 2))
    t_edge = coverage((_wave(t) - np.float32(0.5)) * np.float32(pixels / 2))
    return s_edge + t_edge - np.float32(2) * s_edge * t_edge


def _dotted(texture: Texture, s: Plane, t: Plane, pixels: float) -> Plane:
    row: Plane = np.floor(t)
    if texture.staggered:
        s = s + row * np.float32(0.5)
    s, t = s - np.floor(s) - np.float32(0.5), t - row - np.float32(0.5)
    radius = np.float32(0.16 + 0.34 * texture.fill)
    return coverage((radius - np.sqrt(s * s + t * t)) * np.float32(pixels))


def _marbled(texture: Texture, s: Plane, t: Plane, pixels: float) -> Plane:
    """Contour bands of smooth noise, half as fine as the other textures' periods."""
    height = value_noise(texture.lattice, s * np.float32(0.75), t * np.float32(0.75))
    return coverage((_wave(height * np.float32(3)) - np.float32(1 - texture.fill)) * np.float32(pixels / 3))


_TONES: dict[str, Callable[[Texture, Plane, Plane, float], Plane]] = {
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
    "marbled": _marbled,
}


def value_noise(lattice_LL: Plane, s_hw: Plane, t_hw: Plane) -> Plane:
    """Smooth periodic noise in [0, 1]: the lattice's values, blended by smoothstep between its points."""
    s_floor, t_floor = np.floor(s_hw), np.floor(t_hw)
    s_mix, t_mix = smoothstep(s_hw - s_floor), smoothstep(t_hw - t_floor)
    rows, columns = lattice_LL.shape
    column, row = s_floor.astype(np.int32) % columns, t_floor.astype(np.int32) % rows
    next_column, next_row = (column + 1) % columns, (row + 1) % rows
    flat = lattice_LL.ravel()
    above = _blend(flat[row * columns + column], flat[row * columns + next_column], s_mix)
    below = _blend(flat[next_row * columns + column], flat[next_row * columns + next_column], s_mix)
    return _blend(above, below, t_mix)


def smoothstep(x: Plane) -> Plane:
    """3x^2 - 2x^3."""
    return x * x * (np.float32(3) - x - x)


def _blend(a: Plane, b: Plane, mix: Plane) -> Plane:
    return a + (b - a) * mix


def draw_palette(dice: Dice) -> tuple[Colour, ...]:
    """Colours of one scene, shared by its objects and its background: colour tells nothing about the category."""
    return tuple(_colour(dice) for _ in range(_COLOURS))


def _colour(dice: Dice) -> Colour:
    hue, saturation, value = dice.real(0, 6), dice.real(0.1, 0.85), dice.real(70, 245)
    ramps = (abs(hue - 3) - 1, 2 - abs(hue - 2), 2 - abs(hue - 4))
    red, green, blue = (value * (1 - saturation + saturation * min(max(ramp, 0), 1)) for ramp in ramps)
    return (red, green, blue)


def draw_paint(dice: Dice, palette: tuple[Colour, ...]) -> Paint:
    """Two colours of the palette, moved apart in brightness until the texture can be seen."""
    first, second = sorted((dice.choice(palette), dice.choice(palette)), key=brightness)
    lack = max(_CONTRAST - (brightness(second) - brightness(first)), 0) / 2
    return Paint(_shift(first, -lack), _shift(second, lack))


def brightness(colour: Colour) -> float:
    """Luma (ITU-R BT.601), 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _shift(colour: Colour, amount: float) -> Colour:
    red, green, blue = (min(max(channel + amount, 8), 247) for channel in colour)
    return (red, green, blue)


def coloured(paint: Paint, tones_hw: Plane) -> Plane:
    """RGB (3, h, w), 0 to 255. Planar: NumPy's loops over a last axis of three are slow."""
    rgb_3hw = np.empty((3, *tones_hw.shape), dtype=np.float32)
    for plane_hw, dark, light in zip(rgb_3hw, paint.dark, paint.light, strict=True):
        np.multiply(tones_hw, np.float32(light - dark), out=plane_hw)
        plane_hw += np.float32(dark)
    return rgb_3hw
