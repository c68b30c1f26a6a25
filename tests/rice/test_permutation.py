"""Keyed permutations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.utils import murmurhash3_32

from rice.permutation import mix, permute


@given(st.integers(1, 3000), st.integers(-(2**70), 2**70))
def test_is_a_bijection_of_the_range(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(st.integers(1, 10**12), st.integers(0, 2**63), st.data())
def test_tensor_and_array_agree_at_any_part_of_a_huge_range(size: int, key: int, data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    array = permute(np.array(positions), size, key, 7)
    tensor = permute(torch.tensor(positions), size, key, 7)
    assert array.tolist() == tensor.tolist()
    assert all(0 <= value < size for value in array)
    assert len(set(array.tolist())) == len(set(positions))


@pytest.mark.parametrize("size", [97, 1000])
def test_every_value_is_equally_likely_at_every_position(size: int) -> None:
    """Chi-square over keys: the first 10 % of a permutation is a uniform sample (p > 1e-4 of a right sampler)."""
    taken, keys = size // 10, 4000
    counts = np.zeros(size)
    for key in range(keys):
        counts[permute(np.arange(taken), size, 3, key)] += 1
    expected = keys * taken / size
    # Draws without replacement vary less than multinomial ones by the factor (1 - share).
    statistic = ((counts - expected) ** 2 / expected).sum() / (1 - taken / size)
    assert stats.chi2(size - 1).sf(statistic) > 1e-4
    assert stats.chi2(size - 1).cdf(statistic) > 1e-4


def test_neighbouring_keys_give_unrelated_permutations() -> None:
    size = 5000
    first, second = (permute(np.arange(size), size, 1, step) for step in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(size)
    assert abs(np.corrcoef(first, np.arange(size))[0, 1]) < 4 / np.sqrt(size)
    assert (first == second).sum() < 12


@given(st.integers(0, 2**80), st.integers(0, 2**80))
def test_mix_tells_the_order_of_its_words(one: int, other: int) -> None:
    assert 0 <= mix(one, other) < 2**32
    if one != other:
        assert mix(one, other) != mix(other, one)


def murmur3(value: int) -> int:
    """Its finaliser: of nothing, a hash is the finished seed."""
    return int(murmurhash3_32(b"", seed=value, positive=True))


def mixed_by_hand(*words: int) -> int:
    state = golden = 0x9E37_79B9
    for word in words:
        rest = 2 * abs(word) + (word < 0)
        digits = [rest % 2**32]
        while rest := rest // 2**32:
            digits.append(rest % 2**32)
        for digit in digits:
            state = (murmur3(state ^ digit) + golden) % 2**32
    return murmur3(state)


@given(st.lists(st.integers(-(2**100), 2**100), max_size=4))
@example([])
@example([0, -1, 2**31, 2**32])
@settings(max_examples=30)
def test_words_are_mixed_by_scikit_learns_murmur3(words: list[int]) -> None:
    """The order of a run's pictures and its classes' first centres hang on these numbers: they may not change."""
    assert mix(*words) == mixed_by_hand(*words)


def permuted_by_hand(position: int, size: int, *key: int) -> int:
    """Three rounds of a Feistel network over the digits of bases a and b, in integers without bound."""
    a = max(int(math.sqrt(size)), 1)
    b = (size + a - 1) // a

    def drawn(digit: int, round_: int) -> int:
        value = (digit + mix(round_, *key)) % 2**32
        value = (value ^ value // 2**16) * 0x7FEB_352D % 2**32
        value = (value ^ value // 2**15) * 0x4569_6D4B % 2**32
        return value ^ value // 2**16

    while True:
        high, low = divmod(position, b)
        for round_ in (0, 2, 4):
            high = (high + drawn(low, round_)) % a
            low = (low + drawn(high, round_ + 1)) % b
        position = high * b + low
        if position < size:
            return position


@pytest.mark.parametrize("size", [1, 2, 3, 10, 97, 10**6 + 3, 400_000_000, 2**62 - 1])
def test_a_permutation_is_its_network_in_integers_without_bound(size: int) -> None:
    """int64 overflows nowhere, and a resumed run finds the order that it began with."""
    positions = [position for position in (0, 1, 2, size // 2, size - 2, size - 1) if 0 <= position < size]
    expected = [permuted_by_hand(position, size, 5, -7) for position in positions]
    assert permute(np.array(positions), size, 5, -7).tolist() == expected
