"""Clips: the same things in every frame, moving, turning, growing, crossing behind each other under a drifting camera.

Shapes: H, W a frame. A frame is a Scene whose objects keep their `identity`; what has no visible pixel in a frame is
absent from it. Motion is computed with +, -, *, / of Python floats alone, so that masks are equal on every machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rice.data.world.actors import CATEGORIES, Actor, Light, draw_actor, paint_actor
from rice.data.world.background import draw_background
from rice.data.world.draws import TURN, Dice, Part
from rice.data.world.scene import CLIPS, Occlusion, Placed, Scene, SceneObject, draw_light, expose, record
from rice.data.world.shapes import Plane, Pose, Stencil
from rice.data.world.textures import draw_palette

Point = tuple[float, float]

_CAMERA, _NOISE = 1, 2  # streams of their own, so that any frame can be drawn alone


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """What a clip holds. Ranges include both ends; radius and drift are shares of the frame's shorter side."""

    frames: int = 24
    height: int = 128
    width: int = 128
    objects: tuple[int, int] = (3, 6)
    clutter: tuple[int, int] = (0, 2)
    radius: tuple[float, float] = (0.1, 0.22)
    drift: float = 0.12


@dataclass(frozen=True, slots=True)
class Motion:
    """A quadratic Bézier curve through the scene, image pixels, with growth and spin along it.

    radius: pixels at the start and at the end; turn, spin: 1/4096 of a turn, at the start and over the whole clip.
    """

    start: Point
    bend: Point
    end: Point
    radius: tuple[float, float]
    turn: int
    spin: int

    def at(self, t: float, aspect: float) -> Pose:
        """The pose at time t, 0 at the first frame and 1 at the last."""
        corners = zip(self.start, self.bend, self.end, strict=True)
        x, y = ((1 - t) * (1 - t) * a + 2 * (1 - t) * t * b + t * t * c for a, b, c in corners)
        radius = self.radius[0] + (self.radius[1] - self.radius[0]) * t
        return Pose(x, y, (self.turn + round(self.spin * t)) % TURN, radius, aspect)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A clip that is drawn frame by frame, so that memory does not grow with its length.

    cast: actors and their paths, the nearest first; identity of an object: its place in the cast, clutter included.
    """

    config: ClipConfig
    cast: tuple[tuple[Actor, Motion], ...]
    light: Light
    background: Plane
    camera: Motion
    key: tuple[int, ...]

    def __len__(self) -> int:
        return self.config.frames

    def __iter__(self) -> Iterator[Scene]:
        return (self.frame(index) for index in range(len(self)))

    def frame(self, index: int) -> Scene:
        """Frame `index` from 0; frames may be drawn in any order."""
        t, camera = self._moment(index)
        placed = self._place(t, camera)
        image_3HW = _view(self.background, camera.x, camera.y, self.config.height, self.config.width)
        for thing in reversed(placed):
            paint_actor(image_3HW, thing.actor, thing.stencil, self.light)
        image_HW3 = expose(image_3HW, Dice(*self.key, _CAMERA), Dice(*self.key, _NOISE, index))
        return Scene(image_HW3, _records(placed), ())

    def objects(self, index: int) -> tuple[SceneObject, ...]:
        """The objects of frame `index`, the farthest first. Paints no picture, which is most of a frame's time."""
        return _records(self._place(*self._moment(index)))

    def in_view(self, index: int, identity: int) -> bool:
        """Whether a pixel of the thing lies inside frame `index`, hidden by others or not."""
        stencil = self._stencil(identity, *self._moment(index))
        meet = stencil.clip(self.config.height, self.config.width)
        return meet is not None and bool(stencil.inside_hw[meet[1]].any())

    def _moment(self, index: int) -> tuple[float, Pose]:
        """Time from 0 to 1, and the camera's pose."""
        t = index / max(self.config.frames - 1, 1)
        return t, self.camera.at(t, 1)

    def _stencil(self, identity: int, t: float, camera: Pose) -> Stencil:
        actor, path = self.cast[identity]
        pose = path.at(t, actor.aspect)
        return actor.stencil(Pose(pose.x - camera.x, pose.y - camera.y, pose.turn, pose.radius, pose.aspect))

    def _place(self, t: float, camera: Pose) -> list[Placed]:
        occlusion = Occlusion(self.config.height, self.config.width)
        placed = []
        for identity, (actor, _) in enumerate(self.cast):
            stencil = self._stencil(identity, t, camera)
            placed.append(Placed(actor, stencil, *occlusion.take(stencil)))
        return placed


def _records(placed: list[Placed]) -> tuple[SceneObject, ...]:
    """Of a cast in its order, the nearest first."""
    last = len(placed) - 1
    objects = [
        record(thing, identity, depth=last - identity)
        for identity, thing in enumerate(placed)
        if thing.actor.category is not None and thing.mask.any()
    ]
    return tuple(reversed(objects))


def draw_clip(config: ClipConfig, part: Part, seed: int, index: int) -> Clip:
    """Clip number `index` of a part of the world."""
    key = (CLIPS, part, seed, index)
    dice = Dice(*key)
    palette = draw_palette(dice)
    margin = _margin(config)
    categories: list[int | None] = [dice.integer(0, len(CATEGORIES) - 1) for _ in range(dice.integer(*config.objects))]
    for _ in range(dice.integer(*config.clutter)):
        categories.insert(dice.integer(0, len(categories)), None)
    cast: list[tuple[Actor, Motion]] = []
    for category in categories:
        path = _draw_path(dice, config, [path for _, path in cast])
        cast.append((draw_actor(dice, part, palette, category, 2 * max(path.radius)), path))
    light = draw_light(dice)
    background = draw_background(dice, part, config.height + 2 * margin, config.width + 2 * margin, palette)
    return Clip(config, tuple(cast), light, background, _draw_camera(dice, margin), key)


def _margin(config: ClipConfig) -> int:
    """Of the background around the frame, so that the camera never sees its edge."""
    return int(min(config.height, config.width) * config.drift) + 2


def _draw_camera(dice: Dice, margin: int) -> Motion:
    start, bend, end = ((dice.real(1 - margin, margin - 1), dice.real(1 - margin, margin - 1)) for _ in range(3))
    return Motion(start, bend, end, (1, 1), 0, 0)


def _draw_path(dice: Dice, config: ClipConfig, others: list[Motion]) -> Motion:
    """From side to side; every second path meets an earlier one halfway, so that things cross."""
    edge = min(config.height, config.width)
    start, end = _anywhere(dice, config), _anywhere(dice, config)
    middle = _anywhere(dice, config)
    if others and dice.chance(0.5):
        met = dice.choice(others).at(0.5, 1)
        middle = (met.x + dice.real(-0.05, 0.05) * edge, met.y + dice.real(-0.05, 0.05) * edge)
    bend = (2 * middle[0] - (start[0] + end[0]) / 2, 2 * middle[1] - (start[1] + end[1]) / 2)
    radius = edge * dice.real(*config.radius)
    growth = dice.real(0.75, 1.33)
    return Motion(start, bend, end, (radius, radius * growth), dice.turn(), dice.integer(-TURN // 2, TURN // 2))


def _anywhere(dice: Dice, config: ClipConfig) -> Point:
    """In the frame or just outside."""
    return dice.real(-0.05, 1.05) * config.width, dice.real(-0.05, 1.05) * config.height


def _view(background_3HW: Plane, x: float, y: float, height: int, width: int) -> Plane:
    """The camera's view (3, H, W), from (x, y) relative to the background's centre, blended between whole pixels."""
    left = (background_3HW.shape[2] - width) / 2 + x
    top = (background_3HW.shape[1] - height) / 2 + y
    column, row = int(left), int(top)
    across, down = np.float32(left - column), np.float32(top - row)
    window = background_3HW[:, row : row + height + 1, column : column + width + 1]
    rows = window[:, :-1] + (window[:, 1:] - window[:, :-1]) * down
    return rows[:, :, :-1] + (rows[:, :, 1:] - rows[:, :, :-1]) * across
