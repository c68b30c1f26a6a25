"""Scenes: records with image, objects and words, and how a scene is drawn.

Shapes: H, W the image. Boxes: xyxy, whole pixels, right and bottom excluded. Everything but the image is equal on
every machine; the image differs by at most 2 levels, and by more only where fonts are drawn differently.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rice.data.world.actors import CATEGORIES, Actor, Light, draw_actor, paint_actor
from rice.data.world.background import PLAIN, draw_background
from rice.data.world.draws import Dice, Part, cos_sin
from rice.data.world.shapes import Plane, Pose, Stencil
from rice.data.world.textures import Colour, draw_palette
from rice.data.world.words import EM_SHARE, Print, Word, draw_print, paint_print

Box = tuple[int, int, int, int]
Mask_HW = NDArray[np.bool_]
Image_HW3 = NDArray[np.uint8]

SCENES, CROPS, CLIPS = 0, 1, 2
"""First entry of a stream's key: no kind of record shares its draws with another."""

_TRIES = 10
_LEAST_PIXELS = 16
_NOISE_DEVIATION = 104.5
"""Of the sum of two uniform bytes."""


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What a scene holds. Ranges include both ends; radius and em (of words) are shares of the image's shorter side.

    digits: a single digit in the place of each word; its font is held out as a word's, it is not.
    visible: least share of an object that is seen, where it is drawn at all.
    plain: chance of a part of the background to have no texture.
    made_up: chance of a word that is not held out to be spelt at random (`rice.data.world.spelling`), so that a reader
    cannot know the words by heart.
    """

    height: int = 128
    width: int = 128
    objects: tuple[int, int] = (4, 8)
    clutter: tuple[int, int] = (1, 4)
    words: tuple[int, int] = (0, 2)
    radius: tuple[float, float] = (0.09, 0.24)
    em: tuple[float, float] = EM_SHARE
    digits: bool = False
    visible: float = 0.35
    plain: float = PLAIN
    made_up: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class SceneObject:
    """One visible object.

    category: index into CATEGORIES; identity: the same thing in all frames of a clip; depth: 0 is the farthest;
    mask: its visible pixels, shared with no other object; box: tight around them; visibility: their share of all
    its pixels, hidden ones and those outside the image included.
    """

    category: int
    identity: int
    depth: int
    mask: Mask_HW
    box: Box
    visibility: float


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture (H, W, 3) of RGB bytes and what it shows, the farthest object first."""

    image: Image_HW3
    objects: tuple[SceneObject, ...]
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An actor at its place, with what is visible of it."""

    actor: Actor
    stencil: Stencil
    mask: Mask_HW
    visibility: float


class Occlusion:
    """Pixels that are already taken, while a scene is built from front to back."""

    def __init__(self, height: int, width: int) -> None:
        self.free_HW: Mask_HW = np.ones((height, width), dtype=np.bool_)

    def visible(self, stencil: Stencil) -> tuple[int, float]:
        """Number and share of the stencil's pixels that would be seen."""
        meet = stencil.clip(*self.free_HW.shape)
        if meet is None:
            return 0, 0.0
        image, window = meet
        inside_hw = stencil.inside_hw
        seen = int(np.count_nonzero(inside_hw[window] & self.free_HW[image]))
        return seen, seen / max(int(np.count_nonzero(inside_hw)), 1)

    def take(self, stencil: Stencil) -> tuple[Mask_HW, float]:
        """Hide what is behind the stencil; returns its visible pixels (H, W) and their share, as `visible` has it."""
        mask_HW = np.zeros_like(self.free_HW)
        meet = stencil.clip(*self.free_HW.shape)
        if meet is None:
            return mask_HW, 0.0
        image, window = meet
        inside_hw = stencil.inside_hw
        seen_hw = inside_hw[window] & self.free_HW[image]
        mask_HW[image] = seen_hw
        self.free_HW[image] &= ~inside_hw[window]
        return mask_HW, int(np.count_nonzero(seen_hw)) / max(int(np.count_nonzero(inside_hw)), 1)


def draw_scene(config: SceneConfig, part: Part, seed: int, index: int) -> Scene:
    """Scene number `index` of a part of the world."""
    dice = Dice(SCENES, part, seed, index)
    palette = draw_palette(dice)
    occlusion = Occlusion(config.height, config.width)
    prints = _place_prints(dice, part, config, palette, occlusion)
    count = dice.integer(*config.objects)
    categories: list[int | None] = [_any_category(dice) for _ in range(count)]
    for _ in range(dice.integer(*config.clutter)):
        categories.insert(dice.integer(0, len(categories)), None)
    placed = _place_actors(dice, part, config, palette, occlusion, categories)
    return _picture(dice, part, config, palette, placed, prints)


def draw_crop(size: int, part: Part, seed: int, index: int, plain: float = PLAIN) -> tuple[Scene, int]:
    """A square picture of one object before others and clutter, and its category: `index` modulo their number.

    plain: chance of a part of the background to have no texture.
    """
    dice = Dice(CROPS, part, seed, index)
    config = SceneConfig(height=size, width=size, radius=(0.14, 0.34), plain=plain)
    palette = draw_palette(dice)
    occlusion = Occlusion(size, size)
    category, radius = index % len(CATEGORIES), size * dice.real(0.25, 0.36)
    actor = draw_actor(dice, part, palette, category, 2 * radius)
    x, y = (size * dice.real(0.42, 0.58) for _ in range(2))
    main = _place(actor, occlusion, actor.stencil(Pose(x, y, dice.turn(), radius, actor.aspect)))
    behind: list[int | None] = [None if dice.chance(0.5) else _any_category(dice) for _ in range(dice.integer(1, 3))]
    placed = [main, *_place_actors(dice, part, config, palette, occlusion, behind)]
    return _picture(dice, part, config, palette, placed, []), category


def _any_category(dice: Dice) -> int:
    return dice.integer(0, len(CATEGORIES) - 1)


def _place_prints(
    dice: Dice, part: Part, config: SceneConfig, palette: tuple[Colour, ...], occlusion: Occlusion
) -> list[Print]:
    """Words lie in front of everything, apart from each other; a word that finds no room is left out."""
    prints: list[Print] = []
    taken = Occlusion(config.height, config.width)
    tries = _TRIES if config.digits else 1
    for _ in range(dice.integer(*config.words)):
        printed = next(filter(None, (_fitting(dice, part, config, palette, taken) for _ in range(tries))), None)
        if printed is None:
            continue
        plate = printed.plate()
        taken.take(plate)
        if printed.word.plate:
            occlusion.take(plate)
        prints.append(printed)
    return prints


def _fitting(
    dice: Dice, part: Part, config: SceneConfig, palette: tuple[Colour, ...], taken: Occlusion
) -> Print | None:
    """A word, where there is room for its whole sign."""
    height, width, em = config.height, config.width, config.em
    printed = draw_print(dice, part, height, width, palette, config.made_up, em, config.digits)
    plate = printed.plate()
    return printed if taken.visible(plate)[0] == np.count_nonzero(plate.inside_hw) else None


def _place_actors(
    dice: Dice,
    part: Part,
    config: SceneConfig,
    palette: tuple[Colour, ...],
    occlusion: Occlusion,
    categories: list[int | None],
) -> list[Placed]:
    """From front to back, each where enough of it can be seen; what finds no such place is left out."""
    edge = min(config.height, config.width)
    placed: list[Placed] = []
    for category in categories:
        share = dice.real(0, 1)
        radius = edge * (config.radius[0] + (config.radius[1] - config.radius[0]) * share * share)
        actor = draw_actor(dice, part, palette, category, 2 * radius)
        for _ in range(_TRIES):
            stencil = actor.stencil(_draw_pose(dice, config, radius, actor.aspect, placed))
            pixels, visibility = occlusion.visible(stencil)
            if visibility >= config.visible and pixels >= _LEAST_PIXELS:
                placed.append(_place(actor, occlusion, stencil))
                break
    return placed


def _draw_pose(dice: Dice, config: SceneConfig, radius: float, aspect: float, placed: list[Placed]) -> Pose:
    """Anywhere, or, more often than chance would have it, half behind something that is there already."""
    if placed and dice.chance(0.5):
        front = dice.choice(placed).stencil.pose
        cos, sin = cos_sin(dice.turn())
        away = (front.radius + radius) * dice.real(0.45, 0.95)
        x, y = front.x + away * cos, front.y + away * sin
    else:
        x, y = dice.real(0, 1) * config.width, dice.real(0, 1) * config.height
    return Pose(x, y, dice.turn(), radius, aspect)


def _place(actor: Actor, occlusion: Occlusion, stencil: Stencil) -> Placed:
    return Placed(actor, stencil, *occlusion.take(stencil))


def _picture(
    dice: Dice,
    part: Part,
    config: SceneConfig,
    palette: tuple[Colour, ...],
    placed: list[Placed],
    prints: list[Print],
) -> Scene:
    image_3HW = draw_background(dice, part, config.height, config.width, palette, config.plain)
    light = draw_light(dice)
    for thing in reversed(placed):
        paint_actor(image_3HW, thing.actor, thing.stencil, light)
    for printed in prints:
        paint_print(image_3HW, printed)
    labelled = [thing for thing in reversed(placed) if thing.actor.category is not None]
    objects = tuple(record(thing, depth, depth) for depth, thing in enumerate(labelled))
    return Scene(expose(image_3HW, dice, dice), objects, tuple(printed.word for printed in prints))


def record(thing: Placed, identity: int, depth: int) -> SceneObject:
    """The record of an object, not of clutter, with at least one visible pixel."""
    if thing.actor.category is None:
        raise ValueError("clutter has no record")
    rows = np.flatnonzero(thing.mask.any(axis=1))
    columns = np.flatnonzero(thing.mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return SceneObject(thing.actor.category, identity, depth, thing.mask, box, thing.visibility)


def outline(mask_HW: Mask_HW) -> Mask_HW:
    """The mask's own pixels with a neighbour outside it."""
    inner_HW = np.zeros_like(mask_HW)
    inner_HW[1:-1, 1:-1] = mask_HW[:-2, 1:-1] & mask_HW[2:, 1:-1] & mask_HW[1:-1, :-2] & mask_HW[1:-1, 2:]
    return mask_HW & ~inner_HW


def draw_light(dice: Dice) -> Light:
    """A lamp at any side."""
    right, down = cos_sin(dice.turn())
    return Light(right, down, dice.real(0.05, 0.3))


def expose(image_3HW: Plane, camera: Dice, noise: Dice) -> Image_HW3:
    """The camera: uneven light, exposure and sensor noise; RGB bytes (H, W, 3). Works in place."""
    _, height, width = image_3HW.shape
    across_W = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(camera.real(-0.12, 0.12))
    down_H1 = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(camera.real(-0.12, 0.12))
    image_3HW *= (across_W + down_H1 + np.float32(1)) * np.float32(camera.real(0.85, 1.15))
    noise_3HW = noise.bytes(3, height, width).astype(np.float32)
    noise_3HW += noise.bytes(3, height, width)
    strength = np.float32(camera.real(1.5, 9) / _NOISE_DEVIATION)
    image_3HW += (noise_3HW - np.float32(255)) * strength + np.float32(0.5)
    np.clip(image_3HW, 0, 255, out=image_3HW)
    image_HW3 = np.empty((height, width, 3), dtype=np.uint8)
    for channel, plane_HW in enumerate(image_3HW.astype(np.uint8)):  # three times as fast as a transposed copy
        image_HW3[..., channel] = plane_HW
    return image_HW3
