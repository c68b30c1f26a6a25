"""Which classes are sampled, and where a region's own stand among them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rice.errors import RiceError
from rice.loss.sampling import distinct, places, sample, sample_size

CPU = torch.device("cpu")


@given(classes=st.integers(1, 500), size=st.integers(1, 500), ranks=st.integers(1, 7), key=st.integers(0, 2**80))
def test_a_sample_is_the_same_set_for_every_number_of_ranks(classes: int, size: int, ranks: int, key: int) -> None:
    size = min(size, classes)
    whole = sample(size, classes, (key, 3), range(classes), CPU).tolist()
    assert whole == sorted(set(whole))
    assert len(whole) == size
    assert 0 <= whole[0] <= whole[-1] < classes
    step = -(-classes // ranks)
    shards = [range(min(start, classes), min(start + step, classes)) for start in range(0, ranks * step, step)]
    parts = [(sample(size, classes, (key, 3), shard, CPU) + shard.start).tolist() for shard in shards]
    assert [class_ for part in parts for class_ in part] == whole


def test_slots_and_steps_have_samples_of_their_own() -> None:
    samples = {
        tuple(sample(100, 1000, (0, step, slot), range(1000), CPU).tolist()) for step in range(3) for slot in range(3)
    }
    assert len(samples) == 9
    union = set().union(*samples)
    assert 550 < len(union) < 680  # 1000 (1 - 0.9^9) = 613, deviation 12


def test_every_class_is_sampled_as_often_as_any_other() -> None:
    draws = torch.cat([sample(20, 200, (5, step, 0), range(200), CPU) for step in range(2000)])
    counts = draws.bincount(minlength=200).double()
    # 2000 draws at 0.1: mean 200, deviation sqrt(2000 * 0.1 * 0.9) = 13.4; six of them for 200 classes.
    assert (counts - 200).abs().max() < 6 * 13.4
    assert 0.7 < counts.std() / 13.4 < 1.3


@pytest.mark.parametrize(
    ("rho", "classes", "size"),
    [(0.1, 1_000_000, 100_000), (0.29, 100, 29), (0.1, 19, 1), (1.0, 7, 7), (1.5, 7, 7), (3.0, 7, 7), (0.999, 10, 9)],
)
def test_size_is_the_floor_of_the_share(rho: float, classes: int, size: int) -> None:
    assert sample_size(rho, classes) == size


@pytest.mark.parametrize("rho", [0.05, 0.0, -1.0])
def test_a_sample_of_no_class_is_an_error(rho: float) -> None:
    with pytest.raises(RiceError, match="expected at least 0.1"):
        sample_size(rho, 10)


@given(
    st.lists(st.lists(st.integers(-1, 9), min_size=4, max_size=4), min_size=1, max_size=6), st.sets(st.integers(0, 9))
)
def test_positives_are_sets_and_are_found_in_the_sample(rows: list[list[int]], sampled: set[int]) -> None:
    positives = distinct(torch.tensor(rows))
    ids = torch.tensor(sorted(sampled), dtype=torch.int64)
    found = places(ids, positives).t().tolist()
    for row, own, where in zip(rows, positives.tolist(), found, strict=True):
        assert sorted(label for label in own if label >= 0) == sorted(set(row) - {-1})
        for label, place in zip(own, where, strict=True):
            assert (ids[place].item() == label) if label in sampled else place == len(ids)
