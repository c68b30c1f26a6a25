"""Referring expressions of scenes: "the striped disc left of the ring"; true, and of one thing beyond doubt.

A noun is a category, a shape, a texture ("the striped one") or "object". A clause (rice.data.world.clauses) adds a
place, a size or a relation to a thing that has a name of its own. Palettes are random: there are no colours to name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from rice.data.world.actors import CATEGORIES
from rice.data.world.clauses import Clause, Thing, plain_clauses, relations, things_of
from rice.data.world.draws import Dice, Part
from rice.data.world.scene import Scene
from rice.data.world.shapes import SHAPES
from rice.data.world.textures import TEXTURES

T = TypeVar("T")
ExpressionKind = Literal["name", "place", "size", "relation", "pair", "none"]

EXPRESSIONS = 5
"""First entry of a stream's key, beside those of scenes, crops, clips, federation and conversations."""

_EACH = 3
"""Most expressions of a kind in a scene."""
_NEEDED = 0.5
"""Chance of a clause that is needed, where there are others too: those of nouns that would do alone."""
_ANYTHING = "object"

_Key = tuple[str, object]


@dataclass(frozen=True, slots=True)
class Expression:
    """A text, and the objects that it names.

    objects: places in the scene's objects, ascending: two of a "pair", nothing of "none", else exactly one.
    """

    text: str
    objects: tuple[int, ...]
    kind: ExpressionKind


def expressions(scene: Scene, part: Part, seed: int, index: int) -> list[Expression]:
    """Expressions of scene number `index` of a part, in random order, at most three of each kind.

    Those of one kind name different objects. About half of the places and relations are needed: without them the noun
    would fit other objects too. Nothing fits an absent noun, an absent place or relation of something that is there,
    or a relation to something absent.
    """
    dice = Dice(EXPRESSIONS, part, seed, index)
    things = things_of(scene)
    nouns = _nouns(things)
    needed: dict[_Key, list[Expression]] = {}
    idle: dict[_Key, list[Expression]] = {}
    for key, expression, telling in _found(things, nouns):
        (needed if telling else idle).setdefault(key, []).append(expression)
    drawn: dict[ExpressionKind, list[Expression]] = {}
    for key in _shuffled(dice, sorted({*needed, *idle}, key=repr)):
        telling = key in needed and (key not in idle or dice.chance(_NEEDED))
        expression = dice.choice((needed if telling else idle)[key])
        drawn.setdefault(expression.kind, []).append(expression)
    absent = _absent(dice, nouns)
    drawn["none"] = _shuffled(dice, drawn.get("none", []) + absent)
    return _shuffled(dice, [expression for kind in sorted(drawn) for expression in drawn[kind][:_EACH]])


def _nouns(things: Sequence[Thing]) -> dict[str, list[int]]:
    """What fits each noun that fits anything."""
    nouns: dict[str, list[int]] = {}
    for index, thing in enumerate(things):
        for noun in (f"{thing.texture} {thing.shape}", thing.shape, f"{thing.texture} one", _ANYTHING):
            nouns.setdefault(noun, []).append(index)
    return nouns


def _found(things: Sequence[Thing], nouns: Mapping[str, list[int]]) -> Iterator[tuple[_Key, Expression, bool]]:
    """Every expression without doubt, with what it stands for in a draw, and whether all its words are needed."""
    names = {noun: members[0] for noun, members in nouns.items() if len(members) == 1 and noun != _ANYTHING}
    clauses = [*plain_clauses(), *(c for noun, index in names.items() for c in relations(things[index], noun))]
    for noun, members in nouns.items():
        if noun in names:
            yield ("name", members[0]), Expression(f"the {noun}", (members[0],), "name"), True
        if len(members) == 2:
            yield ("pair", tuple(members)), Expression(f"both {_plural(noun)}", tuple(members), "pair"), True
        for clause in clauses:
            fitting = _fitting(things, members, clause)
            if fitting is not None and len(fitting) <= 2:
                expression = _expression(noun, clause, fitting)
                key = clause.said if expression.kind == "none" else fitting
                yield (expression.kind, key), expression, len(members) > len(fitting)


def _fitting(things: Sequence[Thing], members: Sequence[int], clause: Clause) -> tuple[int, ...] | None:
    """Those of `members` that the clause fits; None where there is doubt about any."""
    fitting = []
    for index in members:
        verdict = clause.fits(things[index], [things[other] for other in members if other != index])
        if verdict is None:
            return None
        fitting += [index] if verdict else []
    return tuple(fitting)


def _expression(noun: str, clause: Clause, objects: tuple[int, ...]) -> Expression:
    if len(objects) == 2:
        return Expression(" ".join(filter(None, ("both", _plural(noun), clause.after))), objects, "pair")
    text = " ".join(filter(None, ("the", clause.before, noun, clause.after)))
    return Expression(text, objects, clause.said if objects else "none")


def _absent(dice: Dice, nouns: Mapping[str, object]) -> list[Expression]:
    """Something that is not there, though half of its name may be; something that relates to another such thing."""
    shown = [noun for noun in nouns if noun != _ANYTHING]
    every = (*CATEGORIES, *SHAPES, *(f"{texture} one" for texture in TEXTURES))
    missing = [noun for noun in every if noun not in nouns]
    if not shown or not missing:
        return []
    relation = dice.choice(list(relations(None, dice.choice(missing))))
    name = Expression(f"the {dice.choice(missing)}", (), "none")
    return [name, _expression(dice.choice(shown), relation, ())]


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("ss") else f"{noun}s"


def _shuffled(dice: Dice, items: Sequence[T]) -> list[T]:
    order = [dice.integer(0, 2**32) for _ in items]
    return [item for _, item in sorted(zip(order, items, strict=True), key=lambda pair: pair[0])]
