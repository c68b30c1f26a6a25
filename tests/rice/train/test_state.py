"""A checkpoint is whole or absent, comes back bit for bit at any number of ranks, and is verified when read."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import state_targets as targets
import torch
import torch.distributed as dist
from ranks import Ranks
from safetensors.torch import load_file

from rice.errors import RiceError
from rice.files import sha256_json, write_json
from rice.train import manifest
from rice.train.state import Checkpoints

Run = Callable[..., list[Any]]
LAST, OLDER = "step-00000002", "step-00000001"


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one in this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 1 and 2, written by two ranks; to be copied before use."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    ranks = Ranks(2, targets.save, folder, 1, 2)
    ranks.results()
    ranks.kill()
    return folder


@pytest.fixture
def folder(two_steps: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_steps, tmp_path / "checkpoints"))


@pytest.mark.parametrize("classes", [7, 2])
def test_two_one_three_and_four_ranks_hand_on_the_same_bits(tmp_path: Path, run: Run, classes: int) -> None:
    run(2, targets.save, tmp_path, 1, classes=classes)
    for world in (1, 3, 4, 2):
        run(world, targets.hand_on, tmp_path, classes)


def test_a_sharded_module_and_its_optimiser_go_on_with_the_same_bits(tmp_path: Path, run: Run) -> None:
    saved = None
    for step, world in enumerate((2, 1, 3), 1):
        found = run(world, targets.fsdp2, tmp_path, step)
        for rank in found:
            assert saved is None or targets.same(rank["before"], saved)
        saved = found[0]["after"]
    assert saved is not None
    assert any(name.endswith("exp_avg_sq") and value.any() for name, value in saved["optimiser"].items())


@pytest.mark.alone
def test_twenty_random_kills_leave_the_old_checkpoint_or_the_new_one(tmp_path: Path, start: Callable[..., Any]) -> None:
    chance = random.Random(20250923)
    ranks = start(3, targets.train, tmp_path, 60_001)
    ranks.wait_for("resumed")
    began = time.monotonic()
    ranks.wait_for("complete", 2)
    a_save = (time.monotonic() - began) / 2  # on a slow disk many times what it is on a quick one
    ranks.kill()
    complete, inside = max(step for word, step in ranks.reports if word == "complete"), 0
    for _ in range(20):
        ranks = start(chance.choice([1, 2, 3]), targets.train, tmp_path, 60_001)
        ranks.wait_for("resumed")
        time.sleep(chance.uniform(0, 2 * a_save))
        ranks.kill()
        (resumed,) = {step for word, step in ranks.reports if word == "resumed"}
        assert resumed >= complete, "a complete checkpoint was lost"
        complete = max([resumed, *(step for word, step in ranks.reports if word == "complete")])
        inside += bool(list(tmp_path.glob(".step-*")))
    assert inside >= 5, "too few kills hit a save"
    assert complete >= 5, "too few saves completed"


def test_keep_two_leaves_the_last_two(tmp_path: Path, run: Run) -> None:
    run(2, targets.save, tmp_path, 3, 9, 10, 200, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "step-00000010", "step-00000200"]


def test_what_is_on_disk_is_json_and_safetensors_with_every_value_once(folder: Path) -> None:
    names = sorted(path.name for path in (folder / LAST).iterdir())
    assert names == ["manifest.json", "rank-00000.safetensors", "rank-00001.safetensors"]
    chunks: dict[str, list[tuple[list[int], torch.Tensor]]] = {}
    for name in names[1:]:
        for key, value in load_file(folder / LAST / name).items():
            tensor, _, offsets = key.partition("@")
            chunks.setdefault(tensor, []).append(([int(part) for part in offsets.split(",") if part], value))
    whole = {
        tensor: torch.cat([value for _, value in sorted(parts, key=lambda part: part[0])])
        if len(parts) > 1
        else parts[0][1]
        for tensor, parts in chunks.items()
    }
    full = targets.full_state(2)
    for group in ("model", "bank"):
        for name, value in full[group].items():
            assert targets.same(whole.pop(f"{group}/{name}"), value), name
    assert not whole


def test_any_flipped_bit_is_found_before_anything_is_read(folder: Path, alone: None) -> None:
    chance = random.Random(4)
    for path in sorted((folder / LAST).iterdir()):
        good = path.read_bytes()
        for position in [0, len(good) - 1, *(chance.randrange(len(good)) for _ in range(12))]:
            bad = bytearray(good)
            bad[position] ^= 1 << chance.randrange(8)
            path.write_bytes(bad)
            said = targets.refused(folder)
            assert path.name in said, (path, position, said)
            assert f"{folder / OLDER} is whole: remove {folder / LAST} to resume from there" in said
        path.write_bytes(good)
    assert targets.refused(folder) == "loaded"


@pytest.mark.parametrize("name", ["manifest.json", "rank-00000.safetensors", "rank-00001.safetensors"])
def test_a_truncated_or_missing_file_is_named(folder: Path, alone: None, name: str) -> None:
    path = folder / LAST / name
    for length in (path.stat().st_size - 1, 100, 0):
        os.truncate(path, length)
        assert name in targets.refused(folder)
    path.unlink()
    assert name in targets.refused(folder)


def test_damage_that_one_rank_finds_is_told_to_all_in_one_line(folder: Path, run: Run) -> None:
    for step in (OLDER, LAST):
        with (folder / step / "rank-00001.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff\x00"[:1])
            file.truncate()
    first, second = run(2, targets.refused, folder)
    assert first == second
    assert "rank-00001.safetensors" in first
    assert "no older checkpoint is whole" in first
    assert "\n" not in first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 4}, "seed: saved with 3, now 4"),
        ({"model": {"width": 16, "betas": [0.9, 0.98]}}, "model.width: saved with 8, now 16"),
        ({"classes": 9}, "classes: saved with nothing, now 9"),
    ],
)
def test_another_runs_checkpoint_is_refused_by_its_field(
    folder: Path, alone: None, change: dict[str, Any], words: str
) -> None:
    checkpoints = Checkpoints(folder, identity=targets.IDENTITY | change)
    saved = checkpoints.latest()
    assert saved is not None
    with pytest.raises(RiceError, match=words):
        checkpoints.load(saved, targets.on_ranks(targets.full_state(9)))


def test_tensors_and_values_that_do_not_fit_are_named_and_nothing_changes(folder: Path, alone: None) -> None:
    checkpoints = Checkpoints(folder, identity=targets.IDENTITY)
    saved = checkpoints.latest()
    assert saved is not None
    weight = torch.zeros(4, 3)
    misfits = [
        ({"a.weight": torch.zeros(3, 4)}, r"'model/a\.weight' is F32 \[4, 3\], this run's is F32 \[3, 4\]"),
        ({"a.weight": weight.double()}, r"'model/a\.weight' is F32 \[4, 3\], this run's is F64"),
        ({"new": weight}, "no tensor 'model/new'"),
        ({"value": 3}, "'model/value' is missing from it"),
    ]
    for change, words in misfits:
        state = targets.on_ranks(targets.full_state(9))
        state["model"] |= change
        with pytest.raises(RiceError, match=words):
            checkpoints.load(saved, state)
        assert targets.same(targets.gathered(state["bank"]), targets.full_state(9)["bank"])
    state = targets.on_ranks(targets.full_state(9))
    del state["model"]["half"]
    with pytest.raises(RiceError, match="holds tensor 'model/half'"):
        checkpoints.load(saved, state)


def test_only_the_runs_own_folder_is_read(folder: Path, alone: None, tmp_path: Path) -> None:
    theirs = Checkpoints(folder, identity=targets.IDENTITY).latest()
    ours = Checkpoints(tmp_path / "ours", identity=targets.IDENTITY)
    assert theirs is not None
    assert ours.latest() is None
    with pytest.raises(RiceError, match="a run resumes from its own"):
        ours.load(theirs, targets.on_ranks(targets.full_state(9)))


def test_a_manifest_cannot_send_the_reader_outside(folder: Path, alone: None) -> None:
    content = manifest.read(folder / LAST)
    content["files"]["../step-00000001/rank-00000.safetensors"] = content["files"].pop("rank-00000.safetensors")
    manifest.write(folder / LAST, content)
    assert "expected a file name inside" in targets.refused(folder)


@pytest.mark.parametrize("how", ["kernel", "patched"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_disk_that_is_full_on_one_rank_fails_on_all_in_one_line(
    tmp_path: Path, run: Run, rank: int, how: str
) -> None:
    first, second = run(2, targets.fill_disk, tmp_path, rank, how)
    assert first == second
    assert first.startswith(f"cannot save the checkpoint of step 2 in {tmp_path}: ")
    assert {"kernel": "File too large", "patched": "No space left on device"}[how] in first
    assert f"(rank {rank}); {tmp_path / OLDER} is intact" in first
    assert "\n" not in first


def test_a_manifest_that_cannot_be_written_leaves_the_older_checkpoint(
    folder: Path, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(folder, identity=targets.IDENTITY, keep=1)
    monkeypatch.setattr("rice.train.manifest.atomic_write", targets.no_space)
    checkpoints.save(3, targets.on_ranks(targets.full_state(3)), {})
    with pytest.raises(RiceError, match="No space left on device"):
        checkpoints.finish()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", OLDER, LAST]
    assert checkpoints.finish() is None


def test_no_rank_waits_at_a_step_for_a_slow_writer_and_none_is_done_before_it(tmp_path: Path, run: Run) -> None:
    run(2, targets.slow_rank, tmp_path / "checkpoints", tmp_path / "gate")


def test_all_ranks_see_a_save_complete_at_the_same_step(tmp_path: Path, run: Run) -> None:
    assert run(2, targets.same_step, tmp_path) == [5, 5]


def test_leftovers_are_removed_at_the_next_start_by_the_first_rank_only(folder: Path, run: Run) -> None:
    for name in (".step-00000003.abc.tmp", ".step-00000001.x.tmp", ".notes.tmp", "step-notes"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    assert run(2, targets.clean, folder) == [True, False]
    assert sorted(path.name for path in folder.iterdir()) == [".lock", ".notes.tmp", OLDER, LAST, "step-notes"]


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_undisturbed(
    tmp_path: Path, start: Callable[..., Any], run: Run
) -> None:
    first = start(1, targets.hold, tmp_path)
    first.wait_for("holding")
    with pytest.raises(AssertionError, match=f"RiceError: another run writes checkpoints in {tmp_path}"):
        run(2, targets.clean, tmp_path)
    assert list(tmp_path.glob(".step-*"))
    first.kill()
    assert run(1, targets.clean, tmp_path) == [True]


def test_a_step_is_saved_once_and_time_does_not_run_backwards(folder: Path, alone: None) -> None:
    checkpoints = Checkpoints(folder, identity=targets.IDENTITY)
    before = (folder / LAST / "manifest.json").stat().st_ino
    checkpoints.save(2, targets.on_ranks(targets.full_state(2)), targets.FACTS)
    assert checkpoints.finish() is None
    assert (folder / LAST / "manifest.json").stat().st_ino == before
    shutil.rmtree(folder / OLDER)
    with pytest.raises(RiceError, match="step 1 cannot be saved after .*step-00000002"):
        checkpoints.save(1, targets.on_ranks(targets.full_state(1)), {})


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": {"b/c": 1}}, "'b/c' under 'a/'"),
        ({"a": float("nan")}, "'a' of the state cannot be saved as JSON"),
        ({"a": {"b": torch.zeros(2, dtype=torch.complex64)}}, "'a/b' of the state is torch.complex64"),
        ({"a": {1, 2}}, "'a' of the state cannot be saved as JSON"),
    ],
)
def test_a_state_that_cannot_be_saved_is_refused_before_anything_is_written(
    tmp_path: Path, alone: None, state: dict[str, Any], words: str
) -> None:
    with pytest.raises(RiceError, match=words):
        Checkpoints(tmp_path, identity={}).save(1, state, {})
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_manifest_of_a_later_format_says_so(folder: Path, alone: None) -> None:
    path = folder / LAST / "manifest.json"
    content = json.loads(path.read_text()) | {"format": 2}
    del content["sha256"]
    write_json(path, content | {"sha256": sha256_json(content)})
    assert "has format 2; this version of rice reads format 1" in targets.refused(folder)


@pytest.mark.gpu
def test_state_on_a_gpu_comes_back_to_it(tmp_path: Path) -> None:
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        rows = torch.randn(7, 5)
        checkpoints = Checkpoints(tmp_path, identity={})
        state: dict[str, Any] = {"weight": torch.randn(3, device="cuda"), "rows": targets.sharded(rows, "cuda")}
        expected = state["weight"].clone()
        checkpoints.save(1, state, {})
        targets.spoil(state)
        checkpoints.finish()
        saved = checkpoints.latest()
        assert saved is not None
        checkpoints.load(saved, state)
        assert torch.equal(state["weight"], expected)
        assert torch.equal(state["rows"].to_local().cpu(), rows)
    finally:
        dist.destroy_process_group()
