"""Captions of scenes, and questions about them whose answers are in the picture and nowhere else.

All of it is written from a scene's record. The answers to a kind of question are equally likely beforehand: a model
that does not see the picture can only guess. An answer is one word or number, so that no kind of question
outweighs another in training; words are spelt in small letters, and whole in captions only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rice.data.world.actors import CATEGORIES
from rice.data.world.draws import Dice, Part
from rice.data.world.scene import Scene, SceneObject
from rice.data.world.textures import TEXTURES
from rice.data.world.words import MADE_UP, draw_text

Task = Literal["world_vqa", "world_count", "world_ocr"]

CONVERSATIONS = 4
"""First entry of a stream's key, beside those of rice.data.world.scene and rice.data.world.layouts_detection."""

TASKS: dict[Task, tuple[str, ...]] = {
    "world_vqa": ("shape", "texture", "side", "presence"),
    "world_count": ("count",),
    "world_ocr": ("choice", "length", "number"),
}
"""The kinds of questions of each benchmark."""

DESCRIBE = ("Describe the picture.", "What is in the picture?", "Write a caption of the picture.", "What do you see?")
"""Prompts that ask for the caption."""

LONGEST_ASKED = 5
"""Letters of a word that is to be read, at most."""
_SHORTEST_COUNTED = 3
_SHARE_OF_NUMBERS = 0.2
"""Among the words, roughly; so many of the others are asked about beside them."""
_LARGER = 1.3
"""The largest object has at least this many times as many pixels as any other: nobody has to measure."""
_RECOGNISED = 0.7
"""Share of an object that must be seen for a question about its shape or texture."""
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


def caption(scene: Scene) -> str:
    """The number of objects, the objects from the largest to the smallest, each with its place, and the words."""
    ranked = sorted(scene.objects, key=_area, reverse=True)
    names = [f"a {CATEGORIES[thing.category]} {_place(scene, thing)}" for thing in ranked]
    words = [f"the word {word.text.lower()}" for word in scene.words]
    count = f"{len(ranked)} object{'' if len(ranked) == 1 else 's'}"
    return f"{count}: {', '.join(names + words)}."


def ask(scene: Scene, part: Part, seed: int, index: int) -> list[Question]:
    """All questions that scene number `index` of a part can answer without doubt, in random order."""
    dice = Dice(CONVERSATIONS, part, seed, index)
    asked = [question for kind in _KINDS if (question := kind(scene, part, dice))]
    order = [dice.integer(0, 2**32) for _ in asked]
    return [question for _, question in sorted(zip(order, asked, strict=True), key=lambda pair: pair[0])]


def _shape(scene: Scene, _part: Part, _dice: Dice) -> Question | None:
    thing = _largest(scene)
    return None if thing is None else Question("shape", "What shape is the largest object?", _shape_of(thing))


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
    shown = {_texture_of(thing) for thing in scene.objects}
    recognised = {_texture_of(thing) for thing in scene.objects if thing.visibility >= _RECOGNISED}
    there = dice.chance(0.5)
    candidates = [name for name in TEXTURES if (name in recognised if there else name not in shown)]
    if not candidates:
        return None
    return Question("presence", f"Is there a {dice.choice(candidates)} object?", "yes" if there else "no")


def _count(scene: Scene, _part: Part, _dice: Dice) -> Question:
    return Question("count", "How many objects are there?", str(len(scene.objects)))


def _choice(scene: Scene, part: Part, dice: Dice) -> Question | None:
    """The word, and another one that might as well be printed, in random order."""
    text = _only_word(scene)
    if text is None:
        return None
    while (other := draw_text(dice, part, MADE_UP, LONGEST_ASKED)) == text:
        pass
    answer = "a" if dice.chance(0.5) else "b"
    first, second = (text, other) if answer == "a" else (other, text)
    return Question("choice", f"What is printed: a. {first} or b. {second}?", answer)


def _length(scene: Scene, _part: Part, _dice: Dice) -> Question | None:
    text = _only_word(scene)
    if text is None or len(text) < _SHORTEST_COUNTED:
        return None
    return Question("length", "How many characters does the word have?", str(len(text)))


def _number(scene: Scene, _part: Part, dice: Dice) -> Question | None:
    """Asked about all numbers, and about as many of the words."""
    text = _only_word(scene)
    if text is None or (text.isalpha() and not dice.chance(_SHARE_OF_NUMBERS)):
        return None
    return Question("number", "Is there a word or a number?", "word" if text.isalpha() else "number")


_KINDS: tuple[Callable[[Scene, Part, Dice], Question | None], ...] = (
    *(_shape, _texture, _side, _presence),
    _count,
    *(_choice, _length, _number),
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


def _shape_of(thing: SceneObject) -> str:
    return CATEGORIES[thing.category].split()[1]


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


def _only_word(scene: Scene) -> str | None:
    return scene.words[0].text.lower() if len(scene.words) == 1 else None
