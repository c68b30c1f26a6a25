"""Which pictures train, how often and in what order."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.coco import by_hash
from probes.detection.config import DetectionConfig, HeadsConfig
from probes.detection.data import Sample, repeat_factors, samples, training_set
from rice.errors import RiceError

from .folders import Scene, Thing, write_split

BOX = (2.0, 3.0, 8.0, 6.0)


def first(repeats: list[float], batch: int, seed: int, steps: int, start: int = 0) -> list[list[Sample]]:
    return list(itertools.islice(samples(np.array(repeats), batch, seed, start), steps))


factors = st.lists(st.sampled_from([1.0, 1.0, 1.25, 2.0, 3.7]), min_size=1, max_size=9)


@given(factors, st.integers(1, 7), st.integers(0, 50), st.integers(0, 25))
@settings(max_examples=150, deadline=None)
def test_a_training_resumed_at_any_step_has_the_batches_of_an_unbroken_one(
    repeats: list[float], batch: int, seed: int, start: int
) -> None:
    unbroken = first(repeats, batch, seed, start + 5)
    assert first(repeats, batch, seed, 5, start) == unbroken[start:]
    assert first(repeats, batch, seed, start + 5) == unbroken
    numbers = [sample.number for step in unbroken for sample in step]
    assert numbers == list(range((start + 5) * batch))
    assert all(len(step) == batch for step in unbroken)


@given(st.integers(1, 12), st.integers(1, 7), st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_without_repeats_every_picture_comes_once_an_epoch(count: int, batch: int, seed: int) -> None:
    epochs = 4
    steps = first([1.0] * count, batch, seed, math.ceil(epochs * count / batch))
    order = [sample.position for step in steps for sample in step][: epochs * count]
    for epoch in range(epochs):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(sample.position for step in first([1.0] * 20, 20, seed, 3) for sample in step) for seed in (0, 1)]
    epochs = [order[k : k + 20] for order in orders for k in (0, 20, 40)]
    assert len(set(epochs)) == 6


def test_a_picture_comes_as_often_as_its_factor_says() -> None:
    repeats, epochs = [1.0, 1.5, 2.0, 3.25], 800
    expected = np.array(repeats) * epochs
    steps = first(repeats, 31, 0, int(expected.sum() / 31))
    times = Counter(sample.position for step in steps for sample in step)
    found = np.array([times[position] for position in range(4)])
    assert np.abs(found - expected)[[1, 3]].max() < 5 * math.sqrt(epochs / 4)
    assert np.abs(found - expected)[[0, 2]].max() < 60  # certain in each epoch, but how many epochs there were is not


def test_in_every_epoch_a_picture_comes_floor_or_ceiling_times() -> None:
    """Batches of one epoch each cannot be seen from outside where lengths vary; a single picture's runs can."""
    assert {len(step) for step in first([1.0], 5, 0, 3)} == {5}
    whole = [sample.position for step in first([2.0, 1.0, 3.0], 6, 4, 10) for sample in step]
    for epoch in range(10):
        assert Counter(whole[6 * epoch : 6 * epoch + 6]) == {0: 2, 1: 1, 2: 3}


def config(**changes: object) -> DetectionConfig:
    return DetectionConfig(**changes)  # type: ignore[arg-type]


def thing(category: int, **changes: object) -> Thing:
    return Thing(category, BOX)._replace(**changes)


def test_repeat_factors_are_lvis_formula(tmp_path: Path) -> None:
    """Ten pictures: category 0 in all, 1 in two, 2 in one; LVIS' paper, appendix B."""
    scenes = [Scene(32, 24, [thing(0), thing(0)]) for _ in range(7)]
    scenes += [Scene(32, 24, [thing(0), thing(1)]), Scene(32, 24, [thing(1), thing(0), thing(1)])]
    scenes += [Scene(32, 24, [thing(2), thing(0)])]
    split = write_split(tmp_path, "train", scenes)
    whole = training_set(split, config())
    assert whole.image_counts().tolist() == [10, 2, 1, 0]
    found = repeat_factors(whole.instances, 4, 0.4)
    assert found.tolist() == pytest.approx([1.0] * 7 + [math.sqrt(0.4 / 0.2)] * 2 + [math.sqrt(0.4 / 0.1)])
    assert repeat_factors(whole.instances, 4, 0.0).tolist() == [1.0] * 10
    assert repeat_factors(whole.instances, 4, 0.1).tolist() == [1.0] * 10
    assert repeat_factors([whole.instances[9], whole.instances[8]], 4, 0.9).tolist() == pytest.approx(
        [math.sqrt(1.8)] * 2
    )
    train = training_set(split, config(repeat_threshold=0.4, epochs=3, batch=4))
    assert train.repeats.tolist() == pytest.approx(found.tolist())
    assert train.updates(train_config := config(repeat_threshold=0.4, epochs=3, batch=4)) == math.ceil(
        3 * (7 + 2 * math.sqrt(2) + 2) / train_config.batch
    )


def test_crowds_and_boxes_without_an_area_in_the_picture_do_not_train(tmp_path: Path) -> None:
    good = [thing(0), thing(1, box=(-3.0, -3.0, 6.0, 6.0)), thing(2, box=(31.5, 23.5, 9.0, 9.0))]
    bad = [
        thing(3, crowd=True),
        thing(3, box=(4.0, 4.0, 0.0, 5.0)),
        thing(3, box=(4.0, 4.0, 5.0, 0.0)),
        thing(3, box=(32.0, 4.0, 5.0, 5.0)),
        thing(3, box=(4.0, 24.0, 5.0, 5.0)),
        thing(3, box=(-5.0, 4.0, 5.0, 5.0)),
        thing(3, box=(4.0, -9.0, 5.0, 8.0)),
    ]
    scenes = [Scene(32, 24, bad), Scene(32, 24, [*bad, *good, *bad]), Scene(32, 24), Scene(32, 24, [thing(1)])]
    split = write_split(tmp_path, "train", scenes)
    train = training_set(split, config())
    assert train.images == (1, 3)
    assert [a.category for a in train.instances[0]] == [0, 1, 2]
    assert [a.category for a in train.instances[1]] == [1]
    assert train.image_counts().tolist() == [1, 2, 1, 0]
    assert train.masks


@pytest.mark.parametrize(
    "scenes",
    [[Scene(32, 24)], [Scene(32, 24, [thing(0, crowd=True)]), Scene(32, 24, [thing(0, box=(40.0, 0.0, 2.0, 2.0))])]],
    ids=["no annotations", "none usable"],
)
def test_nothing_to_learn_from_is_one_line(tmp_path: Path, scenes: list[Scene]) -> None:
    split = write_split(tmp_path, "train", scenes)
    with pytest.raises(RiceError, match=f"instances_train.json.*found none in {len(scenes)} images") as error:
        training_set(split, config())
    assert "\n" not in str(error.value)


def test_masks_are_learnt_where_all_have_one_unless_the_configuration_says(tmp_path: Path) -> None:
    full = write_split(tmp_path / "a", "train", [Scene(32, 24, [thing(0)]), Scene(32, 24, [thing(1)])])
    part = write_split(tmp_path / "b", "train", [Scene(32, 24, [thing(0)]), Scene(32, 24, [thing(1, mask=None)])])
    crowd = write_split(tmp_path / "c", "train", [Scene(32, 24, [thing(0), thing(1, mask=None, crowd=True)])])
    wanted = {
        None: config(),
        True: config(heads=HeadsConfig(masks="always")),
        False: config(heads=HeadsConfig(masks="never")),
    }
    assert [training_set(full, wanted[key]).masks for key in (None, True, False)] == [True, True, False]
    assert [training_set(part, wanted[key]).masks for key in (None, False)] == [False, False]
    assert training_set(crowd, wanted[True]).masks, "a crowd's mask is not asked for"
    with pytest.raises(
        RiceError, match=r"annotation 2 has no segmentation \(1 have none\).*--heads.masks never"
    ) as error:
        training_set(part, wanted[True])
    assert "\n" not in str(error.value)


def test_a_smaller_limit_is_a_subset_of_a_larger_one_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    ids = [5, 17, 100, 3, 42, 99, 7, 1]
    forwards = write_split(tmp_path / "a", "train", [Scene(32, 24, [thing(0)], id_) for id_ in ids])
    backwards = write_split(tmp_path / "b", "train", [Scene(32, 24, [thing(0)], id_) for id_ in ids[::-1]])
    chosen = []
    for limit in (1, 3, 5, 8, 20, None):
        found = []
        for split in (forwards, backwards):
            train = training_set(split, config(train_images=limit))
            assert list(train.images) == sorted(train.images)
            found.append({split.images[index].id for index in train.images})
        assert found[0] == found[1]
        assert len(found[0]) == min(limit or 8, 8)
        chosen.append(found[0])
    assert all(small <= large for small, large in itertools.pairwise(chosen))
    assert sorted(by_hash(forwards, 3)) != [0, 1, 2], "the first of the file, not of the hash"
