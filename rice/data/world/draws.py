"""Random draws that are the same on every machine, and the parts of the world that never share them.

Only PCG64's raw stream and SeedSequence are used: NumPy guarantees both across versions and machines, and nothing of
the kind for `Generator` (NEP 19).
"""

import enum
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

VERSION = 1
"""Of the world: raised whenever the same seed gives another picture or another annotation."""

TURN = 4096
"""Angles are integers, in 1/4096 of a turn."""

_BATCH = 256

_SINES = np.round(np.sin(np.arange(TURN) * (2 * np.pi / TURN)) * 2**30) / 2**30
"""Rounded far above the differences between sine implementations, so that poses are equal everywhere."""


class Part(enum.IntEnum):
    """Disjoint parts of the world: no scene of one part has the seed of a scene of another.

    TEST also holds out backgrounds, texture parameters, fonts and words; the categories are shared by all.
    """

    PRETRAIN = 0
    TRAIN = 1
    TEST = 2

    @property
    def held_out(self) -> bool:
        """Whether the held-out pools are used."""
        return self is Part.TEST


class Dice:
    """One stream of draws, named by integers."""

    def __init__(self, *key: int) -> None:
        self._raw = np.random.PCG64(np.random.SeedSequence((VERSION, *key))).random_raw
        self._batch: list[int] = []

    def _next(self) -> int:
        if not self._batch:
            self._batch = self._raw(_BATCH).tolist()
        return self._batch.pop()

    def integer(self, low: int, high: int) -> int:
        """From `low` to `high`, both included."""
        return low + (self._next() * (high - low + 1) >> 64)

    def real(self, low: float, high: float) -> float:
        """From [low, high)."""
        return low + (high - low) * ((self._next() >> 11) * 2.0**-53)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.real(0, 1) < probability

    def choice(self, values: Sequence[T]) -> T:
        """One of `values`."""
        return values[self.integer(0, len(values) - 1)]

    def turn(self) -> int:
        """Any angle, in 1/4096 of a turn."""
        return self.integer(0, TURN - 1)

    def bytes(self, *shape: int) -> NDArray[np.uint8]:
        """Uniform bytes in an array of this shape."""
        count = int(np.prod(shape))
        raw: NDArray[np.uint64] = self._raw(-(-count // 8))
        return raw.astype("<u8", copy=False).view(np.uint8)[:count].reshape(shape)

    def lattice(self, *shape: int) -> NDArray[np.float32]:
        """Uniform values from [0, 1], in steps of 1/255."""
        return self.bytes(*shape).astype(np.float32) / np.float32(255)


def cos_sin(turn: int) -> tuple[float, float]:
    """Cosine and sine of an angle in 1/4096 of a turn; equal on every machine."""
    return float(_SINES[(turn + TURN // 4) % TURN]), float(_SINES[turn % TURN])
