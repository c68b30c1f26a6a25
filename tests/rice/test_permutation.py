"""Keyed permutations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

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
