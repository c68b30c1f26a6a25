"""Captions of scenes, and questions about them whose answers are in the picture and nowhere else.

All of it is written from a scene's record. The answers to a kind of question are equally likely beforehand: a model
that does not see the picture can only guess. An answer is one word or number, so that no kind of question
outweighs another in training. Asked is what a small encoder can tell: shapes are only in captions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rice.data.world.actors import CATEGORIES
from rice.data.world.draws import Dice, Part
from rice.data.world.scene import Scene, SceneObject
from rice.data.world.textures import TEXTURES

Task = Literal["world_vqa", "world_count", "world_ocr"]

CONVERSATIONS = 4
"""First entry of a stream's key, beside those of rice.data.world.scene and rice.data.world.layouts_detection."""

TASKS: dict[Task, tuple[str, ...]] = {
    "world_vqa": ("texture", "side", "presence"),
    "world_count": ("count",),
    "world_ocr": ("digit",),
}
"""The kinds of questions of each benchmark."""

DESCRIBE = ("Describe the picture.", "What is in the picture?", "Write a caption of the picture.", "What do you see?")
"""Prompts that ask for the caption."""

_LARGER = 1.3
"""The largest object has at least this many times as many pixels as any other: nobody has to measure."""
_RECOGNISED = 0.7
"""Share of an object that must be seen for a question about its texture."""
_OFF_CENTRE = 0.08
"""The middle of an object at the top or bottom is at least this share of the height away from the picture's."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question. kind: see TASKS; answer: lower case."""

    kind: str
    text: str
    answer: str

    @property
    def task(self) -> Task:
        """The benchmark that asks it."""
        return next(task for task, kinds in TASKS.items() if self.kind in kinds)


def caption(scene: Scene, sides: bool = False) -> str:
    """The number of objects, the objects from the largest to the smallest, each with its place, and the digits.

    sides: a place also says left or right.
    """
    ranked = sorted(scene.objects, key=_area, reverse=True)
    place = _place_with_side if sides else _place
    names = [f"a {CATEGORIES[thing.category]} {place(scene, thing)}" for thing in ranked]
    words = [f"the digit {word.text}" for word in scene.words]
    count = f"{len(ranked)} object{'' if len(ranked) == 1 else 's'}"
    return f"{count}: {', '.join(names + words)}."


def ask(scene: Scene, part: Part, seed: int, index: int) -> list[Question]:
    """All questions that scene number `index` of a part can answer without doubt, in random order."""
    dice = Dice(CONVERSATIONS, part, seed, index)
    asked = [question for kind in _KINDS if (question := kind(scene, part, dice))]
    order = [dice.integer(0, 2**32) for _ in asked]
    return [question for _, question in sorted(zip(order, asked, strict=True), key=lambda pair: pair[0])]


def _texture(scene: Scene, _part: Part, _dice: Dice) -> Question | None:
    thing = _largest(scene)
    text = "What is the texture of the largest object?"
    return None if thing is None else Question("texture", text, _texture_of(thing))


def _side(scene: Scene, _part: Part, _dice: Dice) -> Question | None:
    """Top or bottom, of objects that are clearly either."""
    thing = _largest(scene)
    if thing is None or abs(_down(scene, thing) - 0.5) < _OFF_CENTRE:
        return None
    return Question("side", "Is the largest object at the top or at the bottom?", _top_or_bottom(scene, thing))


def _presence(scene: Scene, _part: Part, dice: Dice) -> Question | None:
    """Half of the answers are yes: whether to ask for a texture that is there is drawn first."""
    if not scene.objects:
        return None
    shown = {_texture_of(thing) for thing in scene.objects}
    recognised = {_texture_of(thing) for thing in scene.objects if thing.visibility >= _RECOGNISED}
    there = dice.chance(0.5)
    candidates = [name for name in TEXTURES if (name in recognised if there else name not in shown)]
    if not candidates:
        return None
    return Question("presence", f"Is there a {dice.choice(candidates)} object?", "yes" if there else "no")


def _count(scene: Scene, _part: Part, _dice: Dice) -> Question | None:
    return None if not scene.objects else Question("count", "How many objects are there?", str(len(scene.objects)))


def _digit(scene: Scene, _part: Part, _dice: Dice) -> Question | None:
    if len(scene.words) != 1:
        return None
    return Question("digit", "Which digit is printed?", scene.words[0].text)


_KINDS: tuple[Callable[[Scene, Part, Dice], Question | None], ...] = (
    *(_texture, _side, _presence),
    _count,
    _digit,
)


def _area(thing: SceneObject) -> int:
    return int(np.count_nonzero(thing.mask))


def _largest(scene: Scene) -> SceneObject | None:
    """None where another one is nearly as large, or where too little of it is seen."""
    ranked = sorted(scene.objects, key=_area, reverse=True)
    if not ranked or ranked[0].visibility < _RECOGNISED:
        return None
    clear = len(ranked) == 1 or _area(ranked[0]) >= _LARGER * _area(ranked[1])
    return ranked[0] if clear else None


def _texture_of(thing: SceneObject) -> str:
    return CATEGORIES[thing.category].split()[0]


def _down(scene: Scene, thing: SceneObject) -> float:
    """Middle of its box as a share of the picture's height."""
    height, _, _ = scene.image.shape
    return (thing.box[1] + thing.box[3]) / (2 * int(height))


def _top_or_bottom(scene: Scene, thing: SceneObject) -> str:
    return "top" if _down(scene, thing) < 0.5 else "bottom"


def _place(scene: Scene, thing: SceneObject) -> str:
    if abs(_down(scene, thing) - 0.5) < _OFF_CENTRE:
        return "in the middle"
    return f"at the {_top_or_bottom(scene, thing)}"


def _place_with_side(scene: Scene, thing: SceneObject) -> str:
    """One of nine places."""
    _, width, _ = scene.image.shape
    across = (thing.box[0] + thing.box[2]) / (2 * int(width))
    if abs(across - 0.5) < _OFF_CENTRE:
        return _place(scene, thing)
    side = "left" if across < 0.5 else "right"
    if abs(_down(scene, thing) - 0.5) < _OFF_CENTRE:
        return f"on the {side}"
    return f"{_place(scene, thing)} {side}"
