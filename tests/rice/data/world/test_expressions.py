"""Every expression, read back and tried on every object by other measures, fits the objects that it names and no other.

The reader here is more lenient than the writer: it takes a thing as left of another by one pixel's difference of their
masks' means, where the writer asks for a share of the picture between the middles of boxes. So no expression is near
a tie.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from rice.data.world import CATEGORIES, Part, Scene, SceneConfig, SceneObject, draw_scene
from rice.data.world.expressions import Expression, expressions

GOLDEN = "4732efe7a6a3df183b04301c7e07957fd64c2b49828cf87537b16b5868cc58c9"
"""Of the expressions below: they are those of every other machine. See test_scene.py."""

CONFIGS = [
    SceneConfig(height=96, width=96, objects=(3, 6), clutter=(0, 0), words=(0, 0), visible=0.6),
    SceneConfig(height=80, width=120, objects=(1, 9), words=(0, 0)),
]

_NOUN = r"(?:(?:striped|checked|dotted|marbled) )?(?:disc|ring|square|triangle|star|cross|object|one)(?:s|es)?"
_PLAIN = rf"(the|both) (?:(\w+most|\w+est|\w+er) )?({_NOUN})"
_PLACE = r"on the left|on the right|at the top|at the bottom"
_GRAMMAR = re.compile(rf"{_PLAIN}(?: ({_PLACE})| (left of|right of|above|below|nearest to) the ({_NOUN}))?")


def cases() -> Iterator[tuple[Scene, Expression]]:
    for config in CONFIGS:
        for part in Part:
            for index in range(60):
                scene = draw_scene(config, part, 11, index)
                yield from ((scene, expression) for expression in expressions(scene, part, 11, index))


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Scene, Expression]]:
    return list(cases())


def mean(thing: SceneObject) -> NDArray[np.float64]:
    """Right and down, of the visible pixels."""
    return np.argwhere(thing.mask).mean(axis=0)[::-1]


def gap(one: SceneObject, other: SceneObject) -> float:
    """Between the nearest two pixels."""
    a, b = (np.argwhere(thing.mask) for thing in (one, other))
    return float(np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1).min()))


def fits_noun(thing: SceneObject, noun: str) -> bool:
    texture, shape = CATEGORIES[thing.category].split()
    words = [word.removesuffix("es") if word.endswith("sses") else word.removesuffix("s") for word in noun.split()]
    said = {"cros": "cross"}
    return all(said.get(word, word) in (texture, shape, "object", "one") for word in words)


_EXTREMES: dict[str, Callable[[SceneObject], float]] = {
    "leftmost": lambda thing: mean(thing)[0],
    "rightmost": lambda thing: -mean(thing)[0],
    "topmost": lambda thing: mean(thing)[1],
    "bottommost": lambda thing: -mean(thing)[1],
    "largest": lambda thing: -thing.mask.sum(),
    "larger": lambda thing: -thing.mask.sum(),
    "smallest": lambda thing: thing.mask.sum(),
    "smaller": lambda thing: thing.mask.sum(),
}


def read(scene: Scene, text: str) -> list[int]:
    """What the text names, by trying it on every object."""
    match = _GRAMMAR.fullmatch(text)
    assert match, text
    _, extreme, noun, place, relation, anchor_noun = match.groups()
    found = [index for index, thing in enumerate(scene.objects) if fits_noun(thing, noun)]
    if extreme and found:
        assert len(found) == 2 if extreme in ("larger", "smaller") else len(found) > 1
        return [min(found, key=lambda index: _EXTREMES[extreme](scene.objects[index]))]
    if place:
        half = np.array(scene.image.shape[1::-1]) / 2
        found = [index for index in found if _beside(mean(scene.objects[index]) - half, place.split()[-1])]
    if relation:
        anchors = [index for index, thing in enumerate(scene.objects) if fits_noun(thing, anchor_noun)]
        assert len(anchors) < 2
        return _related(scene, found, relation, anchors[0]) if anchors else []
    return found


def _related(scene: Scene, found: list[int], relation: str, anchor: int) -> list[int]:
    others, origin = [index for index in found if index != anchor], scene.objects[anchor]
    assert found != [anchor], "related to itself"
    if relation != "nearest to":
        offsets = {index: mean(scene.objects[index]) - mean(origin) for index in others}
        return [index for index in others if _beside(offsets[index], relation.split()[0])]
    nearest = sorted(others, key=lambda index: math.dist(mean(scene.objects[index]), mean(origin)))[:1]
    gaps = [gap(scene.objects[index], origin) for index in others]
    assert not nearest or gap(scene.objects[nearest[0]], origin) == min(gaps)
    return nearest


def _beside(offset: NDArray[np.float64], side: str) -> bool:
    right, down = offset
    return bool({"left": right < 0, "right": right > 0, "top": down < 0, "above": down < 0}.get(side, down > 0))


def test_each_names_what_a_reader_finds(drawn: list[tuple[Scene, Expression]]) -> None:
    for scene, expression in drawn:
        assert read(scene, expression.text) == list(expression.objects), expression


def test_one_thing_is_named_but_for_pairs_and_what_is_not_there(drawn: list[tuple[Scene, Expression]]) -> None:
    for _, expression in drawn:
        assert len(expression.objects) == {"pair": 2, "none": 0}.get(expression.kind, 1)
        assert expression.text.startswith("both ") == (expression.kind == "pair")


def test_relations_are_clear_by_the_boxes(drawn: list[tuple[Scene, Expression]]) -> None:
    """A tenth of the picture apart, and more along the relation's axis than across it."""
    for scene, expression in drawn:
        match = _GRAMMAR.fullmatch(expression.text)
        assert match
        if expression.kind != "relation" or match[5] == "nearest to":
            continue
        (anchor,) = (thing for thing in scene.objects if fits_noun(thing, match[6]))
        height, width, _ = scene.image.shape
        one, other = (
            np.array([(t.box[0] + t.box[2]) / width, (t.box[1] + t.box[3]) / height]) / 2
            for t in (scene.objects[expression.objects[0]], anchor)
        )
        along = 0 if match[5] in ("left of", "right of") else 1
        apart = np.abs(one - other)
        assert apart[along] > 0.1
        assert apart[along] >= apart[1 - along]


def test_no_kind_dominates_and_each_has_several_forms(drawn: list[tuple[Scene, Expression]]) -> None:
    counts = Counter(expression.kind for scene, expression in drawn if 3 <= len(scene.objects) <= 6)
    assert set(counts) == {"name", "place", "size", "relation", "pair", "none"}
    assert max(counts.values()) < 0.25 * counts.total()
    assert min(counts.values()) > 0.08 * counts.total()
    words = Counter(word for _, expression in drawn for word in expression.text.split())
    for forms in (
        ("left", "right", "above", "below", "nearest", "top", "bottom"),
        ("leftmost", "rightmost", "topmost", "bottommost"),
        ("larger", "smaller", "largest", "smallest"),
    ):
        assert min(words[form] for form in forms) > 0.25 * max(words[form] for form in forms)


def test_about_half_of_the_clauses_are_needed(drawn: list[tuple[Scene, Expression]]) -> None:
    """The others are true of a thing that its noun alone would name."""
    needed = []
    for scene, expression in drawn:
        match = _GRAMMAR.fullmatch(expression.text)
        if match and expression.kind in ("place", "relation"):
            needed.append(len(read(scene, f"the {match[3]}")) > 1)
    assert 0.4 < np.mean(needed) < 0.75


def test_no_text_is_twice_in_a_scene_and_no_kind_names_a_thing_twice(drawn: list[tuple[Scene, Expression]]) -> None:
    for keys in (
        Counter((id(scene), expression.text) for scene, expression in drawn),
        Counter((id(scene), e.kind, e.objects) for scene, e in drawn if e.kind != "none"),
    ):
        assert set(keys.values()) == {1}


def test_a_picture_of_nothing_has_no_expressions() -> None:
    empty = Scene(np.zeros((64, 64, 3), dtype=np.uint8), (), ())
    assert expressions(empty, Part.TRAIN, 0, 0) == []


def blocks(*boxes: tuple[int, int, int, int], categories: list[str] | None = None) -> Scene:
    """A picture of 64 x 64 with a rectangle for each box, of the given categories or of the first ones."""
    things = []
    for index, (left, top, right, bottom) in enumerate(boxes):
        mask = np.zeros((64, 64), dtype=bool)
        mask[top:bottom, left:right] = True
        category = index if categories is None else CATEGORIES.index(categories[index])
        things.append(SceneObject(category, index, index, mask, (left, top, right, bottom), 1.0))
    return Scene(np.zeros((64, 64, 3), dtype=np.uint8), tuple(things), ())


def test_a_picture_of_everything_has_nothing_absent() -> None:
    scene = blocks(*((0, 2 * index, 64, 2 * index + 2) for index in range(len(CATEGORIES))))
    drawn = [expression for index in range(20) for expression in expressions(scene, Part.TRAIN, 0, index)]
    assert {expression.kind for expression in drawn} >= {"name", "place", "none"}
    for expression in drawn:
        assert read(scene, expression.text) == list(expression.objects), expression


@pytest.mark.parametrize(("left", "said"), [(10, False), (40, True)])
def test_nearest_is_said_where_middles_and_gaps_agree(left: int, said: bool) -> None:
    """The star's middle is farther from the disc than the ring's; where it is long, its end is the nearest."""
    categories = ["striped disc", "dotted ring", "dotted star"]
    scene = blocks((0, 28, 8, 36), (14, 20, 20, 30), (left, 32, 60, 40), categories=categories)
    drawn = [expression for index in range(60) for expression in expressions(scene, Part.TRAIN, 0, index)]
    nearest = {expression.objects for expression in drawn if "nearest to the striped disc" in expression.text}
    assert nearest == ({(1,)} if said else set())


def test_expressions_are_those_of_every_other_machine(drawn: list[tuple[Scene, Expression]]) -> None:
    text = "\n".join(f"{expression.text} {expression.objects}" for _, expression in drawn)
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN
