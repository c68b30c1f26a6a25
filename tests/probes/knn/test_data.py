"""Folders of classified pictures."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.knn.data import Picture, divide, limit_per_class, open_folder, subsample
from probes.protocol import NotThisLayoutError
from rice.errors import RiceError


def fill(root: Path, layout: dict[str, int]) -> Path:
    """`{"train/cat": 3}`: three (empty) picture files in that folder."""
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True)
        for index in range(count):
            (root / folder / f"{index}.JPG").touch()
    return root


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation"])
def test_splits_are_folders(tmp_path: Path, test_name: str) -> None:
    folder = open_folder(fill(tmp_path, {"train/b": 3, "train/a": 2, f"{test_name}/a": 4}))
    assert folder.classes == ("a", "b")
    assert folder.test_name == test_name
    assert Counter(p.label for p in folder.train) == {0: 2, 1: 3}
    assert Counter(p.label for p in folder.test) == {0: 4}


def test_test_comes_before_val(tmp_path: Path) -> None:
    layout = {"train/a": 3, "train/b": 3, "val/a": 1, "test/a": 2}
    assert len(open_folder(fill(tmp_path, layout)).test) == 2


def test_a_single_level_is_split_by_name_and_not_by_chance(tmp_path: Path) -> None:
    first = open_folder(fill(tmp_path, {"a": 10, "b": 5, "c": 1}))
    assert Counter(p.label for p in first.test) == {0: 2, 1: 1}
    assert {p.name for p in first.train}.isdisjoint(p.name for p in first.test)
    assert open_folder(tmp_path) == first


def test_other_files_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 4, "b": 4, ".cache": 9})
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / ".hidden.jpg").touch()
    (tmp_path / "docs").mkdir()
    folder = open_folder(tmp_path)
    assert folder.classes == ("a", "b")
    assert len(folder.train) + len(folder.test) == 8


@pytest.mark.parametrize(
    "layout",
    [{}, {"a": 5}, {"train2017": 5, "val2017": 5}, {"train": 5, "valid": 5}, {"a/b/c": 3}, {"a": 1, "b": 1}],
)
def test_other_layouts_are_foreign(tmp_path: Path, layout: dict[str, int]) -> None:
    with pytest.raises(NotThisLayoutError):
        open_folder(fill(tmp_path, layout))


def test_train_without_test_is_foreign(tmp_path: Path) -> None:
    with pytest.raises(NotThisLayoutError, match="none of test, val"):
        open_folder(fill(tmp_path, {"train/a": 2, "train/b": 2}))


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ({"train/a": 2, "test/a": 1, "test/zebra": 1}, "classes that .* lacks: zebra"),
        ({"train/a": 2, "train/b": 0, "test/a": 1}, "train/b holds no pictures"),
    ],
)
def test_a_broken_folder_is_not_foreign(tmp_path: Path, layout: dict[str, int], reason: str) -> None:
    with pytest.raises(RiceError, match=reason) as caught:
        open_folder(fill(tmp_path, layout))
    assert not isinstance(caught.value, NotThisLayoutError)


PICTURES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99)), unique=True, min_size=1).map(
    lambda pairs: [Picture(f"{label}/{name}", Path(), label) for label, name in pairs]
)


@given(pictures=PICTURES, share=st.floats(0.01, 0.99))
def test_every_class_is_divided_and_nothing_is_lost(pictures: list[Picture], share: float) -> None:
    part, rest = divide(pictures, share)
    assert sorted([*part, *rest], key=lambda p: p.name) == sorted(pictures, key=lambda p: p.name)
    parts, rests = Counter(p.label for p in part), Counter(p.label for p in rest)
    for label, count in Counter(p.label for p in pictures).items():
        assert rests[label] >= 1
        assert parts[label] == min(max(1, round(share * count)), count - 1)
    assert divide(pictures[::-1], share) == (part, rest)


@given(pictures=PICTURES, limit=st.integers(1, 5))
def test_a_smaller_limit_keeps_a_part_of_a_larger_one(pictures: list[Picture], limit: int) -> None:
    small, large = limit_per_class(pictures, limit), limit_per_class(pictures, limit + 1)
    assert set(small) <= set(large)
    assert max(Counter(p.label for p in small).values()) <= limit
    assert set(limit_per_class(pictures, None)) == set(pictures)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_a_seed_draws_from_every_class(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    chosen = subsample(array, 0.9, seed)
    assert len(set(chosen.tolist())) == len(chosen)
    counts = Counter(array[chosen].tolist())
    assert counts == {label: max(1, round(0.9 * count)) for label, count in Counter(labels).items()}


def test_seeds_draw_different_pictures() -> None:
    labels = np.zeros(50, np.int64)
    assert subsample(labels, 0.9, 0).tolist() != subsample(labels, 0.9, 1).tolist()
