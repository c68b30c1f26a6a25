"""What may be said of a thing beside its name, and whether it clearly fits: place, size and relations.

Positions are shares of the picture's width and height, from its top left corner.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rice.data.world.actors import CATEGORIES
from rice.data.world.scene import Scene, SceneObject, outline

Said = Literal["place", "size", "relation"]
Verdict = bool | None
"""Whether a clause fits a thing; None where a reader may be in doubt."""

_OFF = 0.08
"""Least distance of a thing on one side of the picture from the line through its middle."""
_APART = 0.12
"""Least distance, along the axis in question, of things of which one is left of or above the other."""
_GAPS_APART = 0.06
"""Least difference, in picture heights, of two things' gaps to a third that one of them is nearest to."""
_LARGER = 1.3
"""Least ratio of sizes, and of distances, of which one is larger."""
_OUTLINE = 256
"""Most points of an outline: the gap between two is within a hundredth of the picture."""

_SIDES = (
    ("on the left", "leftmost", "left of", 0, -1),
    ("on the right", "rightmost", "right of", 0, 1),
    ("at the top", "topmost", "above", 1, -1),
    ("at the bottom", "bottommost", "below", 1, 1),
)
"""Place, superlative, relation; axis (0: across, 1: down) and the direction along it."""


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """What clauses are judged by.

    middle: of its box, across and down; sizes: pixels that are seen, all its pixels with the hidden ones, its box's
    area; outline: some pixels (N, 2) at its edge, row and column; height, width: of the picture in pixels.
    """

    texture: str
    shape: str
    middle: tuple[float, float]
    sizes: tuple[float, float, float]
    outline: NDArray[np.int64]
    height: int
    width: int

    def gap(self, other: "Thing") -> float:
        """Between the nearest two points of the outlines, in picture heights."""
        squares_NM = ((self.outline[:, None] - other.outline[None]) ** 2).sum(axis=-1)
        return math.sqrt(int(squares_NM.min())) / self.height

    def distance(self, other: "Thing") -> float:
        """Between the middles, in picture heights."""
        across = (self.middle[0] - other.middle[0]) * self.width / self.height
        down = self.middle[1] - other.middle[1]
        return math.sqrt(across * across + down * down)


@dataclass(frozen=True, slots=True)
class Clause:
    """Words before or after a noun. fits: of one candidate among the others that the noun fits too."""

    said: Said
    before: str
    after: str
    fits: Callable[[Thing, Sequence[Thing]], Verdict]


def things_of(scene: Scene) -> list[Thing]:
    """The scene's objects, in order."""
    height, width, _ = scene.image.shape
    return [_thing(seen, int(height), int(width)) for seen in scene.objects]


def _thing(seen: SceneObject, height: int, width: int) -> Thing:
    left, top, right, bottom = seen.box
    pixels = int(np.count_nonzero(seen.mask))
    texture, shape = CATEGORIES[seen.category].split()
    edge_N2 = np.argwhere(outline(seen.mask))
    return Thing(
        texture=texture,
        shape=shape,
        middle=((left + right) / (2 * width), (top + bottom) / (2 * height)),
        sizes=(pixels, pixels / seen.visibility, (right - left) * (bottom - top)),
        outline=edge_N2[:: -(-len(edge_N2) // _OUTLINE)],
        height=height,
        width=width,
    )


def plain_clauses() -> Iterator[Clause]:
    """Place and size: what is said without another thing."""
    for place, superlative, _, axis, sign in _SIDES:
        yield Clause("place", "", place, _on_side(axis, sign))
        yield Clause("place", superlative, "", _most(functools.partial(_ahead, axis, sign)))
    for comparative, superlative, larger in (("larger", "largest", True), ("smaller", "smallest", False)):
        clearly = _is_larger if larger else _is_smaller
        yield Clause("size", comparative, "", _most(clearly, range(1, 2)))
        yield Clause("size", superlative, "", _most(clearly, range(2, 100)))


def relations(anchor: Thing | None, name: str) -> Iterator[Clause]:
    """What is said by means of `anchor`, called `name`; None: of something that is not there, which nothing fits."""
    for _, _, relation, axis, sign in _SIDES:
        fits = _never if anchor is None else _beside(anchor, axis, sign)
        yield Clause("relation", "", f"{relation} the {name}", fits)
    yield Clause("relation", "", f"nearest to the {name}", _never if anchor is None else _nearest(anchor))


def _ahead(axis: int, sign: int, one: Thing, other: Thing) -> bool:
    return sign * (one.middle[axis] - other.middle[axis]) >= _APART


def _is_larger(one: Thing, other: Thing) -> bool:
    """By every measure: a reader may go by what is seen, by what the whole would be, or by its extent."""
    return all(a >= _LARGER * b for a, b in zip(one.sizes, other.sizes, strict=True))


def _is_smaller(one: Thing, other: Thing) -> bool:
    return _is_larger(other, one)


def _most(clearly: Callable[[Thing, Thing], bool], others: range = range(1, 100)) -> Callable[..., Verdict]:
    """Of what surpasses all others, whose number is in `others`: nobody speaks of the largest of two, or of one."""

    def fits(one: Thing, rest: Sequence[Thing]) -> Verdict:
        if len(rest) not in others:
            return None
        if all(clearly(one, other) for other in rest):
            return True
        return False if any(clearly(other, one) for other in rest) else None

    return fits


def _on_side(axis: int, sign: int) -> Callable[..., Verdict]:
    def fits(one: Thing, _rest: Sequence[Thing]) -> Verdict:
        off = sign * (one.middle[axis] - 0.5)
        return None if abs(off) < _OFF else off > 0

    return fits


def _never(_one: Thing, _rest: Sequence[Thing]) -> Verdict:
    return False


def _beside(anchor: Thing, axis: int, sign: int) -> Callable[..., Verdict]:
    """Clearly in this direction and more so than across it; clearly not where it is in the opposite one."""

    def fits(one: Thing, rest: Sequence[Thing]) -> Verdict:
        if one is anchor:
            return _to_itself(rest)
        along = sign * (one.middle[axis] - anchor.middle[axis])
        across = abs(one.middle[1 - axis] - anchor.middle[1 - axis])
        if along >= max(_APART, across):
            return True
        return False if along <= -_APART else None

    return fits


def _nearest(anchor: Thing) -> Callable[..., Verdict]:
    """By the distance of the middles and by the gap between the outlines."""
    gap = functools.cache(anchor.gap)

    def clearly(one: Thing, other: Thing) -> bool:
        near, far = anchor.distance(one), anchor.distance(other)
        apart = far >= max(near + _APART, near * _LARGER)
        return apart and gap(other) >= gap(one) + _GAPS_APART

    most = _most(clearly)

    def fits(one: Thing, rest: Sequence[Thing]) -> Verdict:
        if one is anchor:
            return _to_itself(rest)
        return most(one, [other for other in rest if other is not anchor])

    return fits


def _to_itself(rest: Sequence[Thing]) -> Verdict:
    """Nothing relates to itself, and nobody would say so of a thing that is alone in its noun."""
    return False if rest else None
