"""Keyed permutations that are computed, not stored: data order and class sampling draw from them.

Position p of a permutation depends on (key, size, p) alone, so any rank, worker or resumed run finds its share without
the others', on any device, in O(1) memory: the paper's 400M images and one million classes need no table.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Integers = TypeVar("Integers", NDArray[np.int64], Tensor)

_MASK = 0xFFFF_FFFF
_ROUNDS = 6


def mix(*words: int) -> int:
    """32 well-mixed bits of a few integers of any size (murmur3's finaliser, chained)."""
    state = 0x9E37_79B9
    for word in words:
        word = abs(word) << 1 | (word < 0)
        while True:
            state = _scramble(state ^ (word & _MASK)) + 0x9E37_79B9 & _MASK
            word >>= 32
            if not word:
                break
    return _scramble(state)


def permute(positions: Integers, size: int, *key: int) -> Integers:
    """Where a keyed permutation of range(size) sends `positions`: int64 in [0, size), an array or a tensor.

    A Feistel network over two digits of bases a and b, a * b >= size, whose few surplus values walk on through the
    cycle until they land inside (Black and Rogaway 2002). Distinct positions get distinct values. size < 2**62.
    """
    a = max(int(np.sqrt(size)), 1)
    b = -(-size // a)
    keys = [mix(round_, *key) for round_ in range(_ROUNDS)]
    values = _network(positions, a, b, keys)
    while bool((outside := values >= size).any()):
        values[outside] = _network(values[outside], a, b, keys)
    return values


def _network(values: Integers, a: int, b: int, keys: list[int]) -> Integers:
    high, low = values // b, values % b
    for even, odd in zip(keys[::2], keys[1::2], strict=True):
        high = (high + _hash(low, even)) % a
        low = (low + _hash(high, odd)) % b
    return high * b + low


def _hash(values: Integers, key: int) -> Integers:
    """A finaliser of murmur3's form of (values + key): int64 throughout, as factors below 2**31 keep products."""
    values = (values + key) & _MASK
    values = ((values ^ (values >> 16)) * 0x7FEB_352D) & _MASK
    values = ((values ^ (values >> 15)) * 0x4569_6D4B) & _MASK
    return values ^ (values >> 16)


def _scramble(value: int) -> int:
    value = (value ^ value >> 16) * 0x85EB_CA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2_AE35 & _MASK
    return value ^ value >> 16
