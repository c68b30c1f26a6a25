"""Every epoch visits every sample once, in an order that any position yields by itself, a few shards at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rice.data.order import WindowedShuffle

COUNTS = st.lists(st.integers(1, 20), min_size=1, max_size=8).map(np.array)


@given(COUNTS, st.integers(1, 10), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_every_epoch_is_a_permutation(counts: np.ndarray, window: int, seed: int) -> None:
    order = WindowedShuffle(counts, window=window, seed=seed)
    total = int(counts.sum())
    epochs, samples = order.locate(np.arange(3 * total))
    assert epochs.tolist() == np.repeat([0, 1, 2], total).tolist()
    for epoch in range(3):
        assert sorted(samples[epochs == epoch]) == list(range(total))


@given(COUNTS, st.integers(1, 10), st.integers(0, 99), st.data())
@settings(max_examples=50, deadline=None)
def test_a_position_has_its_sample_whatever_is_asked_with_it(
    counts: np.ndarray, window: int, seed: int, data: st.DataObject
) -> None:
    total = int(counts.sum())
    _, samples = WindowedShuffle(counts, window=window, seed=seed).locate(np.arange(3 * total))
    positions = np.array(data.draw(st.lists(st.integers(0, 3 * total - 1), min_size=1, max_size=9)))
    _, some = WindowedShuffle(counts, window=window, seed=seed).locate(positions)
    assert some.tolist() == samples[positions].tolist()


def test_epochs_and_seeds_differ_and_samples_are_mixed() -> None:
    counts = np.full(6, 50)
    _, samples = WindowedShuffle(counts, window=6, seed=0).locate(np.arange(600))
    _, other = WindowedShuffle(counts, window=6, seed=1).locate(np.arange(300))
    assert (samples[:300] == samples[300:]).mean() < 0.05
    assert (samples[:300] == other).mean() < 0.05
    _, alone = WindowedShuffle(counts, window=1, seed=0).locate(np.arange(300))
    assert len({tuple(samples_of_one) for samples_of_one in (alone % 50).reshape(6, 50).tolist()}) == 6
    assert abs(np.corrcoef(samples[:300], np.arange(300))[0, 1]) < 0.2


@pytest.mark.parametrize("window", [1, 2, 5])
def test_no_more_than_a_window_of_shards_is_visited_at_a_time(window: int) -> None:
    order = WindowedShuffle(np.full(10, 30), window=window, seed=3)
    _, samples = order.locate(np.arange(300))
    for begin in range(0, 300, 30 * window):
        assert len(set(samples[begin : begin + 30 * window] // 30)) == min(window, 10 - begin // 30)


def test_a_paper_sized_order_is_found_without_a_table() -> None:
    order = WindowedShuffle(np.full(40_000, 10_000), window=16, seed=0)
    epochs, samples = order.locate(np.array([0, 399_999_999, 400_000_000, 13_000_000_000 - 1]))
    assert epochs.tolist() == [0, 0, 1, 32]
    assert (samples < 400_000_000).all()
