"""The verb train as a user calls it."""

import json
import shutil
from pathlib import Path

import pytest

from mllm.lisa.config import LisaConfig
from mllm.lisa.facts import FACTS, LisaFacts
from mllm.llava.facts import FACTS as LLAVA_FACTS
from mllm.llava.facts import LlavaFacts, lm_digest
from rice.cli import main
from rice.errors import RiceError


def words(root: Path, data: Path, out: Path, *more: str) -> list[str]:
    begins = ["lisa", "train", "next", "--llava", str(root / "llava"), "--data", str(data), "--out", str(out)]
    options = "--segment.steps 1 --segment.batch 4 --micro-batches 1 --max-length 2000 --device cpu --workers 0"
    return [*begins, "--segmenter", str(root / "sam"), *options.split(), *more]


def refused(asked: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(asked)
    return capsys.readouterr().err


def test_a_picture_that_is_missing_is_told_when_all_is_done(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(root / "data", tmp_path / "data")
    missing = sorted((data / "refer_seg/images/mscoco/images/train2014").iterdir())[0]
    missing.unlink()
    main(words(root, data, tmp_path / "out", "--segment.mixture", "9", "3", "0", "1"))
    said = capsys.readouterr().out
    assert "left out" in said, said
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["segmenter"] == lm_digest(str(root / "sam")) is not None


def test_only_a_model_of_llava_train_may_be_begun_with(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "llava"
    folder.mkdir()
    asked = [word.replace(str(root / "llava"), str(folder)) for word in words(root, root / "data", tmp_path / "out")]
    assert f"rice llava train, found no {folder}/{LLAVA_FACTS}" in " ".join(refused(asked, capsys).split())
    LlavaFacts.read(root / "llava").write(folder)
    (folder / FACTS).write_text("{}")
    assert "has learnt to segment" in " ".join(refused(asked, capsys).split())


def test_what_a_training_begins_with_is_given_once(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(root, root / "data", tmp_path / "out")
    assert "got both; leave one out" in " ".join(refused([*asked, "--encoder", "mini-s8-128"], capsys).split())
    neither = [word for word in asked if word not in ("--llava", str(root / "llava"))]
    assert "got neither" in " ".join(refused(neither, capsys).split())


def test_another_training_in_the_folder_is_told_by_the_field_that_differs(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(root, root / "data", tmp_path / "out", "--segment.mixture", "9", "3", "0", "1")
    main(asked)
    said = " ".join(refused([*asked, "--segment.ce", "0.5"], capsys).split())
    assert "holds another run: its config segment ce is 1.0, not 0.5; name another --out" in said


def test_the_folder_above_a_model_is_answered_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / FACTS).write_text("{}")
    with pytest.raises(RiceError, match=f"found no {tmp_path}/{FACTS}; is it {tmp_path}/model"):
        LisaFacts.read(tmp_path)


def test_a_dry_run_says_every_rate_and_refuses_data_that_nothing_could_learn_from(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(words(root, root / "data", tmp_path / "out", "--dry-run"))
    said = capsys.readouterr().out
    assert "projector at 2e-05; prompts at 0.0003; mask decoder" in said
    assert "at 0.0008" in said
    assert "4 samples: 50% expressions, 50% questions\n" in said  # of the kinds that are there
    (tmp_path / "empty").mkdir()
    assert "expected sets to segment" in refused(words(root, tmp_path / "empty", tmp_path / "out", "--dry-run"), capsys)


def test_adapters_of_stage_two_are_refused_with_the_reason() -> None:
    with pytest.raises(RiceError, match=r"give --segment\.lora"):
        LisaConfig(lora=8)
    with pytest.raises(RiceError, match="rice lisa train --help"):
        LisaConfig(max_length=1)
