"""A run's towers come back bit for bit, in one process without a group, and damage is found before anything is read."""

import random
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import tower_targets as targets
from ranks import Ranks
from safetensors.torch import load_file

from rice.encoders.load import load_encoder
from rice.encoders.region_checkpoint import load_vit
from rice.errors import RiceError
from rice.files import read_json
from rice.train import manifest
from rice.train.read_tower import fingerprint, read_encoder, read_tower, spec_of, stages

FIRST, LAST = "checkpoints/step-00000001", "checkpoints/step-00000002"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three runs have kept: of two ranks `regions` and `image`, of one `alone`; to be copied before a change."""
    folder = tmp_path_factory.mktemp("runs")
    ranks = Ranks(2, targets.keep_both, folder)
    targets.keep(folder / "alone", "regions", "ddp")
    ranks.results()
    ranks.kill()
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "regions", tmp_path / "run"))


@pytest.mark.parametrize("kind", ["regions", "image", "alone"])
def test_the_tower_of_any_ranks_is_what_they_trained(runs: Path, kind: str) -> None:
    run, prefix = runs / kind, "tower." if kind == "image" else "tower.vit."
    assert not dist.is_initialized()
    for step, folder in ((1, FIRST), (2, LAST)):
        truth = load_file(run / f"truth-{step}.safetensors")
        found = read_tower(run / folder).state_dict()
        assert found.keys() == {n.removeprefix(prefix) for n in truth if n.startswith(prefix)}
        for name, value in found.items():
            assert torch.equal(value, truth[prefix + name]), name
    assert not dist.is_initialized()


def test_the_last_step_is_the_tower_of_final(run: Path) -> None:
    last, final = read_tower(run / LAST).state_dict(), load_vit(run / "final").state_dict()
    assert all(torch.equal(value, final[name]) for name, value in last.items())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = read_encoder(run / LAST), load_encoder(f"rice:{run / 'final'}")
    assert torch.equal(one(images).patches, other(images).patches)
    assert one.trained
    assert not one.training


def test_the_spec_is_that_of_final_but_for_its_name(run: Path) -> None:
    ours, theirs = spec_of(run / LAST), load_encoder(f"rice:{run / 'final'}").spec
    own = {"name", "source", "note", "revision"}
    differ = {name for name in vars(ours) if getattr(ours, name) != getattr(theirs, name)}
    assert differ <= own


def test_stages_are_sorted_and_final_stands_for_the_last_step(run: Path) -> None:
    found = stages(run)
    assert [(stage.step, stage.folder.name, stage.final) for stage in found] == [
        (1, "step-00000001", False),
        (2, "final", True),
    ]
    shutil.rmtree(run / "final")
    (run / "checkpoints" / ".step-00000003.abc.tmp").mkdir()  # being written
    (run / "checkpoints" / "step-x").mkdir()
    assert [stage.folder.name for stage in stages(run)] == ["step-00000001", "step-00000002"]
    (run / "checkpoints" / "step-00000002").rename(run / "checkpoints" / "step-00000010")
    assert [stage.step for stage in stages(run)] == [1, 10]


def test_any_flipped_bit_is_found(run: Path) -> None:
    chance, folder = random.Random(7), run / FIRST
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        for position in [0, len(good) - 1, *(chance.randrange(len(good)) for _ in range(4))]:
            bad = bytearray(good)
            bad[position] ^= 1 << chance.randrange(8)
            path.write_bytes(bad)
            for read in (read_tower, fingerprint):
                with pytest.raises(RiceError, match=path.name) as caught:
                    read(folder)
                assert "\n" not in str(caught.value)
        path.write_bytes(good)
    read_tower(folder)


def test_a_truncated_or_missing_file_is_named(run: Path) -> None:
    file = run / FIRST / "rank-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RiceError, match=file.name):
        read_tower(run / FIRST)
    file.unlink()
    with pytest.raises(RiceError, match=file.name):
        read_tower(run / FIRST)
    read_tower(run / LAST)


def test_fingerprints_tell_steps_apart_and_stay(run: Path) -> None:
    assert fingerprint(run / FIRST) == fingerprint(run / FIRST) != fingerprint(run / LAST)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["identity"].clear(), "names no tower"),
        (lambda record: record["identity"]["config"].update(tower="b17"), "names no tower"),
        (lambda record: record["identity"]["config"].update(tower="tiny16"), "does not hold the tower"),
        (lambda record: record["identity"]["config"].update(target="image"), "does not hold the tower"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_in_one_line(run: Path, change, words: str) -> None:  # type: ignore[no-untyped-def]
    record = manifest.read(run / FIRST)
    change(record)
    manifest.write(run / FIRST, record)
    with pytest.raises(RiceError, match=words) as caught:
        read_tower(run / FIRST)
    assert "\n" not in str(caught.value)


def test_what_is_no_run_or_has_kept_nothing_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match=r"--out of `rice train`"):
        stages(tmp_path)
    shutil.rmtree(run / "final")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RiceError, match="has kept no checkpoint yet"):
        stages(run)
    assert read_json(run / "run.json")["config"]["tower"] == "mini8"
