"""Stored measures follow from the stored rows, also where pictures are drawn more than once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mllm.lisa.items import SplitItems, resampling, row_of, split_metrics, write_items
from mllm.lisa.measures import Overlap


def rows(split: str, seed: int) -> pd.DataFrame:
    """Forty expressions on ten pictures; a quarter without a target."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(40):
        target = number % 4 > 0
        said, forced = (overlap(draw, target) for _ in range(2))
        about = {"id": f"{split}/{number}", "split": split, "picture": str(draw.integers(10)), "kind": "refer"}
        found.append({**about, "text": "it", "answer": "[SEG].", **row_of(said, forced)})
    return pd.DataFrame(found)


def overlap(draw: np.random.Generator, target: bool) -> Overlap:
    empty = bool(draw.random() < 0.3)
    true, predicted = int(draw.integers(1, 900)) * target, int(draw.integers(1, 900)) * (not empty)
    both = int(draw.integers(0, min(true, predicted) + 1))
    return Overlap(both, true + predicted - both, target=target, empty=empty)


def values(table: pd.DataFrame, split: str) -> dict[str, float]:
    return {metric.name: metric.value for metric in split_metrics(table, split, 64)}


def test_ones_give_the_stored_values(tmp_path: Path) -> None:
    tables = [rows("refcoco_val", 1), rows("refcoco_testA", 2)]
    write_items(tmp_path / "items.parquet", tables)
    for one in resampling(tmp_path / "items.parquet", named=True):
        split = one.ids[0].partition("/")[0]
        table = next(table for table in tables if table["split"][0] == split)
        found = one.scores(np.ones((1, len(one.ids))))
        expected = {f"{split} {name}": value for name, value in values(table, split).items()}
        assert {name: value[0] for name, value in found.items()} == pytest.approx(expected)
        assert set(values(table, split)) == {
            "ciou", "giou", "pr50", "n_acc", "t_acc", "ciou_forced", "giou_forced", "pr50_forced",
        }  # fmt: skip


def test_weights_are_how_often_a_picture_is_counted(tmp_path: Path) -> None:
    table = rows("refcoco_val", 3)
    write_items(tmp_path / "items.parquet", [table])
    (one,) = SplitItems.resampling(tmp_path / "items.parquet")
    weights = np.random.default_rng(0).integers(0, 4, len(one.ids))
    times = dict(zip(one.ids, weights, strict=True))
    repeated = table.loc[table.index.repeat([times[f"refcoco_val/{picture}"] for picture in table["picture"]])]
    found = one.scores(weights[None].astype(float))
    assert {name: value[0] for name, value in found.items()} == pytest.approx(values(repeated, "val"))


def test_rows_that_leave_nothing_to_judge_are_nan(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", [rows("refcoco_val", 3)])
    (one,) = SplitItems.resampling(tmp_path / "items.parquet")
    assert all(np.isnan(value[0]) for value in one.scores(np.zeros((1, len(one.ids)))).values())


def test_an_expression_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refcoco_val/0 twice"):
        write_items(tmp_path / "items.parquet", [rows("refcoco_val", 3), rows("refcoco_val", 3)])
