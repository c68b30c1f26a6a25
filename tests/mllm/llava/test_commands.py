"""The verbs as a user calls them."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_parts import write_lm, write_root

from rice.cli import main

STAGES = ["--stage1.batch", "6", "--stage2.batch", "6", "--micro-batches", "2"]


def command(tmp_path: Path, *more: str, recipe: str = "mini", out: str = "out") -> list[str]:
    root = tmp_path / "root"
    if not root.exists():
        write_lm(write_root(root) / "lm")
    words = ["llava", "train", recipe, "--encoder", "mini-s8-128@32", "--data", str(root), "--lm", str(root / "lm")]
    return [*words, "--device", "cpu", "--workers", "0", "--out", str(tmp_path / out), *STAGES, *more]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.slow
def test_train_merge_and_chat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command(tmp_path, "--lora", "2"))
    adapter = tmp_path / "out" / "adapter"
    assert f"rice llava merge {adapter}" in capsys.readouterr().out
    assert (tmp_path / "out" / "stage2" / "course.png").stat().st_size > 1000
    assert "rice llava merge" in refused(["llava", "chat", str(adapter), "What?"], capsys)
    merged = tmp_path / "merged"
    main(["llava", "merge", str(adapter), "--out", str(merged)])
    assert "nothing to merge" in refused(["llava", "merge", str(merged), "--out", str(tmp_path / "more")], capsys)
    assert "expected a new folder" in refused(["llava", "merge", str(adapter), "--out", str(merged)], capsys)
    picture = str(tmp_path / "root" / "images" / "0.png")
    main(["llava", "chat", str(merged), "What is it?", "--image", picture, "--max-new-tokens", "3", "--device", "cpu"])
    assert capsys.readouterr().out.endswith("\n")


@pytest.mark.slow
def test_two_ranks_write_the_model_that_one_writes(tmp_path: Path) -> None:
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for before, out in (([], "one"), (ranks, "two")):
        words = [sys.executable, *before, "-m", "rice.cli", *command(tmp_path, out=out)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    one, two = (load_file(tmp_path / out / "model" / "model.safetensors") for out in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


def test_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command(tmp_path, "--dry-run"))
    said = capsys.readouterr().out
    assert "stage 1 on pretrain.json, stage 2 on instruct.json" in said
    assert "square 88 in 5 tiles" in said  # 16 + 8 x 9
    assert not (tmp_path / "out").exists()
    words = command(tmp_path, "--dry-run")
    words[words.index("mini-s8-128@32")] = "mini-s8-128@32,layer=-1"
    main(words)
    assert "hidden state -1," in capsys.readouterr().out


def test_an_output_of_another_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"seed": 7}')
    assert "holds another run" in refused(words, capsys)


@pytest.mark.parametrize(("name", "message"), [("pretrain", "expected instruct"), ("instruct.jsonl", "remove one")])
def test_a_data_root_that_is_none_is_one_line(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path)
    if name == "pretrain":
        (tmp_path / "root" / "instruct.json").unlink()
    else:
        (tmp_path / "root" / name).write_text("")
    assert message in refused(words, capsys)
