"""What a probe leaves in its workdir's `kept` lies beside the result of the seed that left it, whole or not at all."""

from pathlib import Path
from typing import Any

from probes.results import kept_path, load


def kept(room: Any) -> dict[int, str]:
    """What is kept of each seed of one cell."""
    frame = load(room.out)
    files = {row.seed: kept_path(room.out, row.key) / "parts/head.txt" for row in frame.itertuples()}
    return {seed: path.read_text() for seed, path in files.items() if path.parents[1].exists()}


def run(room: Any, *words: str, seeds: int = 2, **changes: Any) -> int:
    status: int = room.run(*words, encoders=["fake-a"], seeds=seeds, probes=[room.probe(**changes)])[0]
    return status


def test_every_seed_keeps_its_own(room: Any) -> None:
    assert run(room, keeps=2) == 0
    assert kept(room) == {0: "head of seed 0, run 1", 1: "head of seed 1, run 2"}
    assert {path.name for path in (room.out / "kept").iterdir()} == set(load(room.out).key)
    assert not list((room.out / "work").iterdir())


def test_a_seed_that_leaves_nothing_keeps_nothing_of_the_one_before(room: Any) -> None:
    assert run(room, keeps=1) == 0
    assert kept(room) == {0: "head of seed 0, run 1"}
    assert len(load(room.out)) == 2


def test_a_probe_that_leaves_nothing_makes_no_folder(room: Any) -> None:
    assert run(room) == 0
    assert not (room.out / "kept").exists()


def test_what_is_computed_again_is_kept_again_and_the_old_is_gone(room: Any) -> None:
    run(room, keeps=2)
    assert run(room, "--force", keeps=2) == 0
    assert kept(room) == {0: "head of seed 0, run 3", 1: "head of seed 1, run 4"}
    assert run(room, "--force", keeps=1) == 0
    assert kept(room) == {0: "head of seed 0, run 5"}
    assert len(list((room.out / "kept").iterdir())) == 1


def test_a_seed_that_fails_keeps_nothing_and_what_is_done_is_left_alone(room: Any) -> None:
    assert run(room, keeps=2, fault="kill", fault_seed=1) == 1
    assert kept(room) == {0: "head of seed 0, run 1"}
    assert len(list((room.out / "kept").iterdir())) == 1
    assert run(room, keeps=2, fault="kill", fault_seed=1) == 1
    assert kept(room) == {0: "head of seed 0, run 1"}


def test_leftovers_of_a_killed_copy_are_removed(room: Any) -> None:
    run(room, keeps=1, seeds=1)
    (key,) = load(room.out).key
    half = room.out / "kept" / f".{key}.abc.tmp"
    half.mkdir()
    stale = room.out / "work" / cell_of(room) / "kept"
    stale.mkdir(parents=True)
    (stale / "stale.txt").write_text("of a seed that was killed")
    assert run(room, "--force", keeps=0, seeds=1) == 0
    assert not half.exists()
    assert kept(room) == {}
    assert not kept_path(room.out, key).exists()


def cell_of(room: Any) -> str:
    """The cell's name."""
    (lock,) = (room.out / "locks").glob("*.lock")
    return Path(lock).stem
