"""Which sample a training sees when: LISA's mixture of kinds, drawn anew for every sample.

A draw is a function of the seed and its number, so that any rank, worker or resumed run finds its own.
"""

from collections.abc import Mapping, Sequence, Sized
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

from rice.errors import RiceError
from rice.permutation import mix

Kind = Literal["semantic", "refer", "vqa", "reason"]
KINDS: tuple[Kind, ...] = get_args(Kind)

RATES: Mapping[Kind, int] = {"semantic": 9, "refer": 3, "vqa": 3, "reason": 1}
"""LISA's."""

_BITS = 32
"""Of what `mix` gives."""


class Draw(NamedTuple):
    """kind: of the sample. set: number of the set among those of its kind. row: in the set. seed: of whatever else is
    to be drawn for the sample."""

    kind: Kind
    set: int
    row: int
    seed: int


class Mixture:
    """Draws with replacement: a kind by its rate, one of its sets, each equally likely whatever its size, and one of
    its rows.

    parts: kind -> its sets. A kind without sets is left out, and the others keep their proportions. rates: of every
    kind, at least 0. Only the numbers of rows are kept: it may be pickled.
    Errors: RiceError where nothing is to be drawn, a set is empty, or a rate negative.
    """

    def __init__(
        self,
        parts: Mapping[Kind, Sequence[Sized]],
        rates: Mapping[Kind, float] = RATES,
        seed: int = 0,
    ) -> None:
        sizes = {kind: tuple(map(len, parts.get(kind, ()))) for kind in KINDS}
        if any(rate < 0 for rate in rates.values()):
            raise RiceError(f"expected rates of at least 0, got {dict(rates)}")
        if any(size == 0 for found in sizes.values() for size in found):
            raise RiceError("expected sets with at least one row in the mixture, got an empty one; leave it out")
        self._kinds = tuple(kind for kind in KINDS if sizes[kind] and rates.get(kind, 0) > 0)
        if not self._kinds:
            raise RiceError(f"expected sets of a kind with a rate above 0, got {dict(rates)} and sets of none of them")
        self._sizes = tuple(sizes[kind] for kind in self._kinds)
        self._ends = tuple(accumulate(rates[kind] for kind in self._kinds))
        self._seed = seed

    @property
    def shares(self) -> dict[Kind, float]:
        """Of every kind that is drawn, its share of the draws."""
        starts = (0.0, *self._ends)
        return {
            kind: (end - start) / self._ends[-1]
            for kind, start, end in zip(self._kinds, starts, self._ends, strict=False)
        }

    def draw(self, index: int) -> Draw:
        """Draw number `index`, at least 0."""
        place = mix(self._seed, index, 0) * self._ends[-1] / 2**_BITS
        kind = next(k for k, end in enumerate(self._ends) if place < end)
        number = self._pick(index, 1, len(self._sizes[kind]))
        row = self._pick(index, 2, self._sizes[kind][number])
        return Draw(self._kinds[kind], number, row, mix(self._seed, index, 3))

    def _pick(self, index: int, which: int, count: int) -> int:
        return mix(self._seed, index, which) * count >> _BITS
