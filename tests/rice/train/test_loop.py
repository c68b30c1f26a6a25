"""A run's numbers depend on its recipe, data and seed alone: not on ranks, kills, or how it is executed."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import loop_targets as targets
import numpy as np
import pytest
import torch
from loop_targets import assert_same, weights
from ranks import Ranks
from safetensors.torch import load_file

from rice.errors import RiceError
from rice.train.build import run as train
from rice.train.config import OptimiserConfig

Run = Callable[..., list[Any]]
Start = Callable[..., Ranks]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return targets.write_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Uninterrupted runs of one, two and three ranks."""
    folder = tmp_path_factory.mktemp("unbroken")
    for world in (1, 2, 3):
        Ranks(world, targets.train, data, folder / str(world), targets.config(), join=False).results()
    return {world: folder / str(world) for world in (1, 2, 3)}


def test_a_run_learns(unbroken: dict[int, Path]) -> None:
    curve = targets.curve(unbroken[1])
    assert len(curve) == targets.config().steps == 12
    initial = weights(unbroken[1])["centers-object:weight"].norm(dim=1)
    assert curve[-1][0] < curve[0][0]
    assert (initial > 0).all()


def test_one_two_and_three_ranks_compute_the_same(unbroken: dict[int, Path]) -> None:
    for world in (2, 3):
        assert_same(unbroken[1], unbroken[world], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "kills", "tolerance"), [([2], 10, 0.0), ([2, 1, 3], 20, 1e-5)])
def test_kills_at_random_steps_leave_no_trace(
    data: Path, tmp_path: Path, start: Start, plan: list[int], kills: int, tolerance: float
) -> None:
    """Bit for bit on an equal number of ranks, to 1e-5 where it changes from one life to the next."""
    chance = random.Random(kills)
    settings = targets.config(samples=6 * 96)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start(2, targets.train, data, whole, settings, join=False).results()
    resumed = set()
    for life in range(kills):
        ranks = start(plan[life % len(plan)], targets.train, data, broken, settings, join=False)
        ranks.wait_for("resumed")
        begin = max(step for word, step in ranks.reports if word == "resumed")
        resumed.add(begin)
        ranks.wait_for("step", begin + chance.randint(0, 6))
        ranks.kill()
    assert len(resumed) >= 5, "the kills hit one place"
    start(plan[kills % len(plan)], targets.train, data, broken, settings, join=False).results()
    assert_same(whole, broken, tolerance)
    ours, theirs = (_tensors(out / "checkpoints" / "step-00000096") for out in (whole, broken))
    assert {"banks/object/steps", "banks/ocr/exp_avg_sq"} <= ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=tolerance, atol=tolerance)


def _tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, put together from its chunks: tower, moments, centres, steps per row."""
    record = json.loads((checkpoint / "manifest.json").read_text())
    files = {file: load_file(checkpoint / file) for file in record["files"]}
    tensors = {}
    for name, tensor in record["tensors"].items():
        tensors[name] = torch.zeros(tensor["shape"], dtype=torch.float64)
        for chunk in tensor["chunks"]:
            key = f"{name}@{','.join(map(str, chunk['offsets']))}"
            spot = tuple(slice(o, o + n) for o, n in zip(chunk["offsets"], chunk["sizes"], strict=True))
            tensors[name][spot] = files[chunk["file"]][key].double()
    return tensors


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param({"parallel": "fsdp2"}, id="fsdp2"),
        pytest.param({"recompute": True}, id="recompute"),
        pytest.param(
            {"recompute": True, "recompute_centers": True, "parallel": "fsdp2"}, id="recompute-both-and-fsdp2"
        ),
    ],
)
def test_how_a_run_is_executed_does_not_change_it(
    data: Path, tmp_path: Path, unbroken: dict[int, Path], run: Run, machine: dict[str, Any]
) -> None:
    settings = targets.config(machine=replace(targets.config().machine, **machine))
    run(2, targets.train, data, tmp_path / "out", settings, join=False)
    assert_same(tmp_path / "out", unbroken[2], 1e-5)


def test_data_workers_change_nothing(data: Path, tmp_path: Path, unbroken: dict[int, Path], run: Run) -> None:
    settings = targets.config(stream=replace(targets.config().stream, workers=2))
    run(1, targets.train, data, tmp_path / "out", settings, join=False)
    assert_same(tmp_path / "out", unbroken[1], 0)


def test_a_later_stage_starts_from_the_final_folder_at_another_size(data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(targets.config(), data, first, None, None)
    still = targets.config(
        stream=replace(targets.config().stream, size=48), optimiser=OptimiserConfig(learning_rate=1e-12), samples=6
    )
    train(still, data, second, None, first / "final")
    before, after = weights(first), weights(second)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-6, atol=1e-8)
    assert json.loads((second / "final" / "config.json").read_text())["image_size"] == 48


def test_what_a_killed_run_left_of_the_final_folder_goes(data: Path, tmp_path: Path) -> None:
    left = tmp_path / "out" / ".final.abc.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").touch()
    train(targets.config(samples=6), data, tmp_path / "out", None, None)
    assert (tmp_path / "out" / "final").is_dir()
    assert not left.exists()


def test_image_level_training_ends_in_an_encoder_without_region_layers(data: Path, tmp_path: Path) -> None:
    from rice import load_encoder

    train(targets.config(target="image", samples=12), data, tmp_path / "out", data, None)
    assert not (tmp_path / "out" / "final" / "region.safetensors").exists()
    features = load_encoder(f"rice:{tmp_path / 'out' / 'final'}")(torch.rand(1, 3, 32, 32))
    assert features.patches.shape == (1, 16, 4, 4)
    assert sum("retrieval_top1" in line for line in targets.lines(tmp_path / "out")) == 2


def test_a_run_removes_what_a_killed_one_left_half_written(data: Path, tmp_path: Path) -> None:
    left = tmp_path / "out" / ".final.abcdefgh.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").touch()
    (tmp_path / "out" / ".run.json.abcdefgh.tmp").write_text("{")
    train(targets.config(samples=12), data, tmp_path / "out", None, None)
    assert (tmp_path / "out" / "final").is_dir()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_corrupt_picture_is_listed_once_and_the_run_goes_on(tmp_path: Path) -> None:
    data = targets.write_shards(tmp_path / "shards", corrupt=3)
    train(targets.config(), data, tmp_path / "out", None, None)
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert "picture003" in json.loads(line)["sample"]
    assert targets.lines(tmp_path / "out")[-1]["corrupt"] >= 3  # seen in every epoch
    assert len(targets.curve(tmp_path / "out")) == 12


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_samples(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rice.train.learner import Learner

    embed = Learner.embed
    calls = iter(range(100))

    def broken(self: Learner, *arguments: Any) -> torch.Tensor:
        return embed(self, *arguments) * (float("nan") if next(calls) == 5 else 1.0)

    monkeypatch.setattr(Learner, "embed", broken)
    with pytest.raises(RiceError, match=r"step 5: loss nan.*picture\d{3}.*step 4 is kept") as caught:
        train(targets.config(), data, tmp_path / "out", None, None)
    assert "\n" not in str(caught.value)
    listing = json.loads((tmp_path / "out" / "not-finite-step-5.json").read_text())
    assert len(listing["samples"]) == 6
    monkeypatch.undo()
    train(targets.config(), data, tmp_path / "out", None, None)
    assert len(targets.curve(tmp_path / "out")) == 12


def test_a_checkpoint_of_another_run_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    train(targets.config(samples=12), data, tmp_path / "out", None, None)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(RiceError, match=r"config\.seed: saved with 0, now 1"):
        train(targets.config(samples=12, seed=1), data, tmp_path / "out", None, None)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 8}, "asks for 8 object classes, the data has 7"),
        ({"tower": "b17"}, "no tower 'b17'"),
        ({"rho": 0.0}, "rho in (0, 1], got 0"),
        ({"batch": 0}, "batch of at least 1, got 0"),
    ],
)
def test_wrong_settings_are_one_line_and_write_nothing(
    data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RiceError) as caught:
        train(targets.config(**changes), data, tmp_path / "out", None, None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: os.truncate(folder / "test-000000.tar", 5000), "has 5000 bytes"),
        (lambda folder: os.truncate(folder / "test-000001.parquet", 900), "is not a shard's sidecar"),
        (lambda folder: _fewer_classes(folder / "dataset.json"), "has the object label"),
    ],
)
def test_damaged_shards_are_one_line_and_write_nothing(
    data: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shards = Path(shutil.copytree(data, tmp_path / "shards"))
    damage(shards)
    settings = targets.config(batch=targets.SAMPLES)  # both shards in the first step
    with pytest.raises(RiceError, match=message) as caught:
        train(settings, shards, tmp_path / "out", None, None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def _fewer_classes(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"object_classes": 2}))


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.1)])
def test_a_gpu_computes_what_the_cpu_does(
    data: Path, tmp_path: Path, unbroken: dict[int, Path], precision: Any, tolerance: float
) -> None:
    machine = replace(targets.config().machine, device="cuda", precision=precision)
    train(targets.config(machine=machine), data, tmp_path / "out", None, None)
    ours, theirs = (np.array(targets.curve(out))[:4, 0] for out in (tmp_path / "out", unbroken[1]))
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)
