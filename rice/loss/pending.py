"""Gradients of the centres between the backward pass and the update: kept, or computed again.

The update needs the norm of all gradients first, so they have to be kept; at ten slots of rho = 0.1 that is 65 % of all
rows, 1.9 GiB of a million of width 768, beside 8.6 GiB of centres and moments. Computed again for the norm and for the
update, a band of rows at a time, they take 0.2 GiB at most, and the step seven matrix products instead of four.

Shapes: R regions, D width.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor

from rice.loss.rows import RowGradients
from rice.loss.slots import Backward
from rice.loss.streaming import Shard

_BAND = 2**26
"""Numbers in a band of rows."""


class Pending(Protocol):
    """Gradients of the shard's rows since the last update."""

    def take(self, slots: Sequence[Backward]) -> list[Tensor]:
        """Add what these slots give the centres; their gradients by unit embeddings, (R, D) each."""
        ...

    def parts(self) -> Iterator[RowGradients]:
        """All gradients, in parts of distinct rows; a part is done with before the next is asked for."""
        ...

    def clear(self) -> None:
        """Forget them."""
        ...


class Kept:
    """In memory."""

    def __init__(self, shard: Shard) -> None:
        self._shard, self._rows = shard, RowGradients(shard.weight)

    def take(self, slots: Sequence[Backward]) -> list[Tensor]:
        """See `Pending`."""
        self._rows.claim(*(ids for slot in slots for ids in slot.ids()))
        return [slot.run(self._shard, self._rows) for slot in slots]

    def parts(self) -> Iterator[RowGradients]:
        """See `Pending`."""
        yield self._rows

    def clear(self) -> None:
        """See `Pending`."""
        self._rows.clear()


class Recomputed:
    """As the passes that lead to them. A row's gradients depend on no other row, so bands may be updated one by one."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._slots: list[Backward] = []

    def take(self, slots: Sequence[Backward]) -> list[Tensor]:
        """See `Pending`."""
        self._slots += slots
        return [slot.run(self._shard, None) for slot in slots]

    def parts(self) -> Iterator[RowGradients]:
        """See `Pending`."""
        height = max(_BAND // self._shard.weight.shape[1], 1)
        for low in range(0, len(self._shard.weight), height):
            slots = [slot.within(low, low + height) for slot in self._slots]
            rows = RowGradients(self._shard.weight)
            rows.claim(*(ids for slot in slots for ids in slot.ids()))
            for slot in slots:
                slot.run(self._shard, rows, embeddings=False)
            yield rows

    def clear(self) -> None:
        """See `Pending`."""
        self._slots = []
