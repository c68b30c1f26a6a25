"""Things with a shape, a texture and two colours: drawing their looks, and painting them with light and shadow.

Shapes: H, W the image; h, w a stencil's window.
"""

from dataclasses import dataclass

import numpy as np

from rice.data.world.draws import Dice, Part
from rice.data.world.shapes import CLUTTER, SHAPES, Plane, Pose, Stencil, stamp
from rice.data.world.textures import (
    TEXTURES,
    Colour,
    Paint,
    Texture,
    coloured,
    coverage,
    draw_paint,
    draw_texture,
    tones,
)

CATEGORIES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)
"""Names by category index: neither shape, nor texture, nor colour alone tells them apart."""

_SHADOW = 0.42
_RIM = 0.14


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """Something's looks, whatever its pose. category: index into CATEGORIES, None for clutter."""

    shape: str
    category: int | None
    proportion: float
    aspect: float
    texture: Texture
    paint: Paint

    def stencil(self, pose: Pose) -> Stencil:
        """Where it is, and what of it is where."""
        return stamp(self.shape, pose, self.proportion)


@dataclass(frozen=True, slots=True)
class Light:
    """One lamp a scene. right, down: where it comes from, image frame, length 1."""

    right: float
    down: float
    strength: float


def draw_actor(dice: Dice, part: Part, palette: tuple[Colour, ...], category: int | None, pixels: float) -> Actor:
    """Looks of something about `pixels` wide; the category fixes shape and kind of texture, nothing else."""
    kind = dice.choice(TEXTURES) if category is None else TEXTURES[category % len(TEXTURES)]
    return Actor(
        shape=dice.choice(CLUTTER) if category is None else SHAPES[category // len(TEXTURES)],
        category=category,
        proportion=dice.real(0, 1),
        aspect=dice.real(0.75, 1.33),
        texture=draw_texture(dice, part, kind, pixels),
        paint=draw_paint(dice, palette),
    )


def paint_actor(image_3HW: Plane, actor: Actor, stencil: Stencil, light: Light) -> None:
    """Draw its shadow and then itself onto the image."""
    _paint_shadow(image_3HW, stencil, light)
    _, height, width = image_3HW.shape
    meet = stencil.clip(height, width)
    if meet is None:
        return
    (rows, columns), window = meet
    distance_hw, u_hw, v_hw = stencil.distance_hw[window], stencil.u_hw[window], stencil.v_hw[window]
    rgb_3hw = coloured(actor.paint, tones(actor.texture, u_hw, v_hw, stencil.pose.radius))
    rgb_3hw *= _shading(stencil, light)[window]
    target_3hw = image_3HW[:, rows, columns]
    rgb_3hw -= target_3hw
    rgb_3hw *= coverage(-distance_hw)
    target_3hw += rgb_3hw


def _shading(stencil: Stencil, light: Light) -> Plane:
    """Brighter towards the lamp, darker at the rim."""
    h, w = stencil.distance_hw.shape
    radius = np.float32(stencil.pose.radius)
    right_w = np.arange(w, dtype=np.float32) + np.float32(stencil.left + 0.5 - stencil.pose.x)
    down_h1 = (np.arange(h, dtype=np.float32) + np.float32(stencil.top + 0.5 - stencil.pose.y))[:, None]
    slope = light.strength / stencil.pose.radius
    facing_hw = right_w * np.float32(light.right * slope) + down_h1 * np.float32(light.down * slope)
    rim_hw = np.minimum(np.maximum(stencil.distance_hw / (radius * np.float32(-_RIM)), np.float32(0)), np.float32(1))
    shade_hw: Plane = (np.float32(0.72) + np.float32(0.28) * rim_hw) * (np.float32(1) + facing_hw)
    return shade_hw


def _paint_shadow(image_3HW: Plane, stencil: Stencil, light: Light) -> None:
    """The stencil itself, moved by whole pixels away from the lamp and blurred by its own distance."""
    radius = stencil.pose.radius
    down, right = round(-light.down * radius * 0.16), round(-light.right * radius * 0.16)
    _, height, width = image_3HW.shape
    meet = stencil.clip(height, width, down, right)
    if meet is None:
        return
    (rows, columns), window = meet
    blur = np.float32(-1 / (0.2 * radius + 1))
    image_3HW[:, rows, columns] *= np.float32(1) - np.float32(_SHADOW) * coverage(stencil.distance_hw[window] * blur)
