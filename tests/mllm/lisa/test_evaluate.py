"""Every expression is judged once: killed or not, alone or on two ranks, and by the masks that the model gives."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_lisa import Material, Split, load, write_lisa

import mllm.lisa.evaluate as subject
from mllm.lisa.asked import Asked
from mllm.lisa.evaluate import SEGMENTED, Judged, evaluate_splits
from mllm.lisa.model import Trained
from mllm.lisa.phrases import ask
from mllm.lisa.segment import Grounder
from rice.errors import RiceError
from rice.progress import SilentProgress

MOST = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lisa(tmp_path_factory.mktemp("lisa") / "model")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Trained:
    return load(folder)


def judge(trained: Trained, out: Path, splits: str = "all", **asked: Any) -> list[Judged]:
    how: Any = Asked(most=MOST, **asked)
    material: Any = Material()
    return list(evaluate_splits(trained, material, splits, out, asked=how, progress=SilentProgress()))


def test_rows_are_what_the_model_segments_at_the_pictures_own_size(trained: Trained, tmp_path: Path) -> None:
    val, _ = judge(trained, tmp_path)
    pictures = Material().all[0][1]
    assert val.items["id"].is_unique
    assert len(val.items) == 20 * 2 + 7  # two texts each, and seven without a target
    grounder = Grounder(trained, most=MOST)
    for number in (0, 17):
        picture = pictures[number]
        asked = [(target, text) for target in picture.targets for text in target.texts]
        replies = grounder.reply(grounder.look(pictures.open_image(picture)), [ask(*one) for one in asked])
        own = val.items[val.items["picture"] == str(number)]
        assert own["text"].tolist() == [text for _, text in asked]
        for (target, _), reply, (_, row) in zip(asked, replies, own.iterrows(), strict=True):
            true, given = (
                pictures.mask(picture, target),
                reply.given_HW.numpy() & (pictures.mask(picture, target) != 255),
            )
            assert row["forced_intersection"] == (given & (true == 1)).sum()
            assert row["forced_union"] == (given | (true == 1)).sum()
            assert row["target"] == (not target.absent)
            assert (row["answer"], row["forced_empty"]) == (reply.text, not given.any())
    assert val.items["forced_intersection"].gt(0).any()


def test_a_killed_evaluation_goes_on_with_what_is_missing(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = judge(trained, tmp_path / "whole", "refcoco_val")[0].items
    asked: list[int] = []
    own = subject._Run._judge

    def counted(self: Any, loaded: Any) -> Any:
        asked.append(int(loaded.picture.id))
        if loaded.picture.id == dies_at:
            raise KeyboardInterrupt
        return own(self, loaded)

    monkeypatch.setattr(subject._Run, "_judge", counted)
    dies_at = "18"  # in the second part
    with pytest.raises(KeyboardInterrupt):
        judge(trained, tmp_path / "out", "refcoco_val")
    dies_at, before = "", len(asked)
    again = judge(trained, tmp_path / "out", "refcoco_val")[0].items
    assert asked[before:] == [16, 17, 18, 19]
    pd.testing.assert_frame_equal(again, whole)


def test_another_model_limit_or_length_of_answers_is_computed_anew(trained: Trained, tmp_path: Path) -> None:
    judge(trained, tmp_path, "refcoco_testA")
    judge(trained, tmp_path, "refcoco_testA", together=1)  # on which answers do not depend
    assert len(list((tmp_path / SEGMENTED / "refcoco_testA").iterdir())) == 1
    (few,) = judge(trained, tmp_path, "refcoco_testA", limit=2)
    assert few.items["picture"].tolist() == ["0", "0", "0", "1", "1"]
    assert len(list((tmp_path / SEGMENTED / "refcoco_testA").iterdir())) == 2


def test_metrics_are_called_by_their_split_where_a_result_has_several(trained: Trained, tmp_path: Path) -> None:
    val, test = judge(trained, tmp_path)
    names = [metric.name for one in (val, test) for metric in one.metrics(named=True)]
    assert {"refcoco_val ciou", "refcoco_testA ciou_forced", "refcoco_val n_acc"} <= set(names)
    assert len(set(names)) == len(names)
    assert {metric.name: metric.split for metric in test.metrics(named=False)}["giou"] == "testA"


def test_answers_of_classes_and_of_reasoning_take_the_first_text(trained: Trained, tmp_path: Path) -> None:
    material: Any = Material()
    material.all = [(Split(name="reason_seg", kind="reason"), material.all[1][1])]
    (one,) = evaluate_splits(trained, material, "all", tmp_path, asked=Asked(most=2), progress=SilentProgress())
    assert one.items["text"].tolist() == ["the red box", "no such thing", "the red box", "the red box"]


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one(folder: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks_evaluate.py")
    for before, out in (([], "one"), (["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], "two")):
        words = [sys.executable, *before, str(script), str(folder), str(tmp_path / out)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    one, two, second = (
        pd.read_parquet(tmp_path / name) for name in ("one-0.parquet", "two-0.parquet", "two-1.parquet")
    )
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(two, second)
    assert one["id"].is_unique
    shares = [(tmp_path / f"two-{rank}.txt").read_text() for rank in (0, 1)]
    assert "0" not in shares, "both ranks must have had work"
    assert sum(map(int, shares)) == 20 + 3
    assert np.isfinite(one["iou"]).all()


def test_numbers_below_one_are_refused() -> None:
    for flag in ("limit", "most", "together"):
        with pytest.raises(RiceError, match="at least 1"):
            Asked(**{flag: 0})
