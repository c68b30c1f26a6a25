"""What many results take: of equal texts one is kept, of documents one at a time. No number changes for it."""

import dataclasses
import operator
import random
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from stored_results import made, metric

from probes.results import COLUMNS, ORDER, frame_of, rows_of
from reports import reading
from reports.measurements import rows_in


def some(dice: random.Random, count: int) -> list[dict[str, Any]]:
    """Documents as the store gives them; fields that may be unknown are, in some, all or none."""
    unknown = {name: dice.choice((0.0, 0.3, 1.0)) for name in ("size", "layer", "tokens", "gflops", "images_per_s")}
    known = {"size": 64, "layer": -1, "tokens": 2**40, "gflops": 0.5, "images_per_s": 7.25}
    largest = dice.choice((10, 2**40, 2**63, 2**70))

    def one(seed: int) -> dict[str, Any]:
        changes = {name: None if dice.random() < share else known[name] for name, share in unknown.items()}
        scores = [
            metric(name, dice.random(), n=dice.choice((5, largest)), stderr=dice.choice((None, 0.25)))
            for name in ("mIoU", "é b")
        ]
        trained = dice.random() < 0.5
        result = made(dice.choice("ab"), scores, seed=seed, config={"x": dice.choice("pq")}, trained=trained, **changes)
        return {**dataclasses.asdict(result), "key": result.key}

    return [one(seed) for seed in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_a_frame_is_what_pandas_makes_of_the_rows_one_by_one(seed: int) -> None:
    found = some(random.Random(seed), seed)
    frame = pd.DataFrame(list(rows_of(found)), columns=list(COLUMNS))
    expected = frame.sort_values(list(ORDER), kind="stable", ignore_index=True)
    assert_frame_equal(frame_of(found), expected)


@pytest.mark.parametrize("seed", range(1, 20))
def test_a_frame_gives_its_rows_back(seed: int) -> None:
    found = some(random.Random(seed), seed)
    assert list(rows_in(frame_of(found))) == sorted(rows_of(found), key=operator.itemgetter(*ORDER))


def test_equal_texts_of_rows_are_one_object() -> None:
    first, second, *_ = rows_in(frame_of(some(random.Random(1), 40)))
    assert all(first[name] is second[name] for name in ("encoder", "probe", "protocol", "device"))


def test_documents_are_read_into_a_frame_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Document(dict[str, Any]):
        """A dictionary that can be watched."""

    alive: weakref.WeakValueDictionary[int, Document] = weakref.WeakValueDictionary()
    most = []

    def documents(folder: Path, rejected: list[Any]) -> Iterator[Document]:
        for number, one in enumerate(some(random.Random(0), 30)):
            document = Document(one)
            alive[number] = document
            yield document
            del document
            most.append(len(alive))

    monkeypatch.setattr(reading, "documents", documents)
    frame, _ = reading.read_frame(tmp_path)
    assert len(frame) == 60
    assert max(most) <= 2
