import contextlib
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from probes.results import load


def wait_for(condition: Any, seconds: float = 20) -> Any:
    """The first true value of `condition()`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


def alive(pids: list[int]) -> list[int]:
    """Those that still run; a zombie that no one reaps does not."""
    found = []
    for pid in pids:
        # One may end between any two questions.
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def test_a_sweep_stores_every_seed_of_every_cell_once(room: Any) -> None:
    status, said = room.run("--jobs", "2")
    assert status == 0, said
    frame = load(room.out)
    keys = ["encoder", "dataset", "seed"]
    expected = [(e, d, s) for e in ("fake-a", "fake-b") for d in ("one", "two") for s in (0, 1)]
    assert sorted(frame[keys].itertuples(index=False, name=None)) == expected
    assert list(frame.value) == [float(seed) for seed in frame.seed]
    assert {*frame.images_per_s} == {100.0}
    assert len(list((room.out / "items").iterdir())) == 8
    assert not list((room.out / "work").iterdir())
    assert "4 cells done, 0 failed" in said


def test_items_belong_to_their_own_seed(room: Any) -> None:
    room.run(encoders=["fake-a"], seeds=3)
    for row in load(room.out).itertuples():
        assert (room.out / "items" / f"{row.key}.parquet").read_text() == f"items of seed {row.seed}"


def test_a_second_run_computes_nothing(room: Any) -> None:
    room.run()
    before, diary = room.results(), room.diary
    status, said = room.run("--only-missing")
    assert (status, room.results(), room.diary) == (0, before, diary)
    assert "4 were already there" in said


def test_more_seeds_compute_only_these(room: Any) -> None:
    room.run(encoders=["fake-a"], seeds=1)
    room.run(encoders=["fake-a"], seeds=3)
    starts = [(cell, seed) for event, cell, seed, _ in room.diary if event == "start"]
    assert len(starts) == len(set(starts)) == 6


def test_a_run_only_field_makes_nothing_missing_but_another_does(room: Any) -> None:
    room.run()
    assert len(room.diary) == 16
    room.run(probes=[room.probe(data=["one", "two"], seconds=0.01)])
    assert len(room.diary) == 16
    room.run(probes=[room.probe(data=["one", "two"], scale=2.0)])
    assert len(room.diary) == 32


def test_changed_weights_make_their_cells_missing_again(room: Any) -> None:
    weights = room.root / "weights.pt"
    weights.write_text("first")
    encoders = ["fake-a", f"rice:{weights}"]
    room.run(encoders=encoders)
    weights.write_text("second")
    status, said = room.run(encoders=encoders)
    assert status == 0
    assert "2 cells done, 0 failed, 2 were already there" in said
    assert len(load(room.out)) == 12  # the old file's results stay, under their own fingerprint


def test_changed_data_make_their_cells_missing_again(room: Any) -> None:
    room.run()
    (room.root / "two" / "data.txt").write_text("changed")
    assert "2 cells done, 0 failed, 2 were already there" in room.run()[1]


def test_force_computes_all_again(room: Any) -> None:
    room.run()
    before = room.results()
    status, _ = room.run("--force")
    assert status == 0
    assert len(room.diary) == 32
    assert room.results().keys() == before.keys()
    assert "4 were already there" in room.run()[1]


def test_an_interrupted_force_goes_on_where_it_stopped(room: Any) -> None:
    room.run(encoders=["fake-a"])
    # The first cell's two seeds succeed, the other cell's second seed fails: --force is not over.
    fault = [room.probe(), room.probe(data=["two"], fault="raise", fault_seed=1)]
    room.run(encoders=["fake-a"], probes=[room.probe(), room.probe(data=["two"])])
    count = len(room.diary)
    assert room.run("--force", encoders=["fake-a"], probes=fault)[0] == 1
    first = len(room.diary) - count
    assert room.run("--force", encoders=["fake-a"], probes=fault)[0] == 1
    assert len(room.diary) - count - first == 1  # the start of the failing seed alone


REASONS = {
    "kill": "killed by SIGKILL",
    "raise": "ValueError: the fake probe raises",
    "exit 0": "seeds [1] have no result",
    "exit 3": "exited with status 3",
    "sys.exit": "SystemExit: enough",
    "memory": "out of memory",
    "nan": "metric bad has the value nan",
    "inf": "metric bad has the value inf",
}


@pytest.mark.parametrize("fault", REASONS)
def test_a_cell_that_fails_fails_alone_with_a_reason_and_a_log(room: Any, fault: str) -> None:
    probe = room.probe(fault=fault, fault_seed=1, fault_encoder="b", children=True)
    status, said = room.run(probes=[probe])
    assert status == 1
    (line,) = (line for line in said.splitlines() if line.startswith("FAILED"))
    assert "fake-b" in line
    assert REASONS[fault] in line
    log = Path(said.splitlines()[said.splitlines().index(line) + 1].removeprefix("  log: "))
    assert "--- seed 1" in log.read_text()
    assert sorted(load(room.out)[["encoder", "seed"]].itertuples(index=False, name=None)) == [
        ("fake-a", 0),
        ("fake-a", 1),
        ("fake-b", 0),
    ]
    assert not room.temporaries()


def test_what_a_failed_cell_finished_is_kept(room: Any) -> None:
    faulty = [room.probe(fault="kill", fault_seed=1)]
    room.run(encoders=["fake-a"], probes=faulty)
    before = room.results()
    room.run(encoders=["fake-a"], probes=faulty)
    assert room.results() == before
    assert [(event, seed) for event, _, seed, _ in room.diary] == [
        ("start", "0"),
        ("end", "0"),
        ("start", "1"),
        ("start", "1"),
    ]


def test_no_process_outlives_a_killed_sweep(room: Any) -> None:
    parent = room.start("--jobs", "2", probes=[room.probe(data=["one", "two"], seconds=60, children=True)])
    wait_for(lambda: len(room.diary) == 2)
    wait_for(lambda: len(cells_of(parent)) == 2 and len(psutil.Process(parent.pid).children(recursive=True)) >= 8)
    family = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
    parent.kill()
    parent.communicate()
    wait_for(lambda: not alive(family), 5)


def test_the_children_of_a_killed_cell_die_with_it(room: Any) -> None:
    parent = room.start(encoders=["fake-a"], seeds=1, probes=[room.probe(seconds=60, children=True)])
    cell = wait_for(lambda: room.diary and cells_of(parent))[0]
    family = wait_for(lambda: len(found := cell.children(recursive=True)) >= 3 and found)
    cell.kill()
    status, said = room.finished(parent)
    assert status == 1
    assert "SIGKILL" in said
    assert not alive([child.pid for child in family])


def test_an_interrupt_ends_the_cells_and_says_how_to_go_on(room: Any) -> None:
    parent = room.start(probes=[room.probe(seconds=60)])
    wait_for(lambda: room.diary)
    family = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
    parent.send_signal(signal.SIGINT)
    status, said = room.finished(parent)
    assert status == 130
    assert "the same command resumes" in said
    assert not alive(family)


def test_two_sweeps_on_one_folder_share_the_work(room: Any) -> None:
    probes = [room.probe(data=["one", "two"], seconds=0.3)]
    both = [room.start(probes=probes), room.start(probes=probes)]
    assert [room.finished(parent)[0] for parent in both] == [0, 0]
    starts = [(cell, seed) for event, cell, seed, _ in room.diary if event == "start"]
    assert len(starts) == len(set(starts)) == 8
    assert not [event for event, *_ in room.diary if event == "double"]


def test_what_was_left_by_a_sweep_that_was_killed_at_a_cells_end_or_its_own_beginning_goes(room: Any) -> None:
    room.run()
    keys = [lock.stem for lock in (room.out / "locks").glob("*.lock")]
    for key in keys:
        (room.out / "work" / key).mkdir(parents=True)
        (room.out / "work" / key / "features").write_text("large")
    (room.out / ".sweep.json.abcdefgh.tmp").write_text("{")
    with FileLock(room.out / "locks" / f"{keys[0]}.lock"):
        assert room.run()[0] == 0
    assert [path.name for path in (room.out / "work").iterdir()] == keys[:1], "whoever holds a cell keeps its folder"
    assert not room.temporaries()
    assert len(room.diary) == 2 * 8, "nothing is computed again"


def test_a_cell_that_a_living_process_holds_is_waited_for(room: Any) -> None:
    room.run(encoders=["fake-a"], seeds=1, probes=[room.probe()])
    (lock,) = (room.out / "locks").glob("*.lock")
    with FileLock(lock):
        parent = room.start(encoders=["fake-a"], seeds=2, probes=[room.probe()])
        time.sleep(3)
        assert parent.poll() is None
        assert len(room.results()) == 1
    status, said = room.finished(parent)
    assert status == 0
    assert "another process is on it" in said
    assert len(room.results()) == 2


def cells_of(parent: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = []
    for child in psutil.Process(parent.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "probes.sweeps.cell" in child.cmdline():
                found.append(child)
    return found


def test_a_dry_run_says_the_cost_and_writes_nothing(room: Any) -> None:
    status, said = room.run("--dry-run")
    assert status == 0
    assert "4 cells, 2 seeds each" in said
    assert "8 of 8 results" in said
    assert "40 images" in said
    assert not room.out.exists()


@pytest.mark.alone
def test_a_thousand_cells_are_planned_in_under_three_seconds(room: Any) -> None:
    probes = [room.probe(scale=float(k)) for k in range(125)]
    room.write(room.document(encoders=[f"fake-{letter}" for letter in "abcdefgh"], probes=probes, seeds=3))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, said = room.finished(room.command("sweep.yaml", "--out", "out", "--dry-run"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Its own processor time: the clock would blame it for whatever else the machine does.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert status == 0
    assert "1000 cells, 3 seeds each" in said


def test_planning_imports_no_torch() -> None:
    code = (
        "import probes.sweeps.command, probes.sweeps.cell, sys; sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoders": ["fake-z"]}, ["fake-z", "Did you mean fake-"]),
        ({"encoders": ["fake-a@65"]}, ["65", "64", "80"]),
        ({"encoders": ["fake-a", "fake-a@64"]}, ["same measurement"]),
        ({"probes": [{"probe": "dens", "data": ["one"]}]}, ["'dens'", "dense"]),
        ({"probes": [{"probe": "no_module:X", "data": ["one"]}]}, ["no_module"]),
        ({"probes": [{"probe": "fake_probe:X", "data": ["one"]}]}, ["'X'"]),
        ({"probes": [{"probe": "fake_probe:FakeProbe", "data": ["one"], "scael": 1}]}, ["'scael'", "scale"]),
        ({"datasets": {"one": {"path": "."}}}, ["data.txt"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(room: Any, changes: dict[str, Any], words: list[str]) -> None:
    changes = {"probes": [room.probe()]} | changes
    status, said = room.run(**changes)
    assert status == 2
    assert len(said.splitlines()) == 1
    assert all(word in said for word in words), said
    assert not room.out.exists()


def test_a_broken_dataset_is_refused_before_anything_is_written(room: Any) -> None:
    (room.root / "one" / "broken.txt").write_text("")
    status, said = room.run(probes=[room.probe()])
    assert (status, len(said.splitlines())) == (2, 1)
    assert "dataset one" in said
    assert not room.out.exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--jobs", "0"], "--jobs"),
        (["--gpus", "one"], "--gpus"),
        (["--gpus", "0,0"], "--gpus"),
        (["--only-missing", "--force"], "exclude"),
        (["--slurm", "a=b"], "--executor slurm"),
        (["--executor", "slurm", "--slurm", "timeout"], "NAME=VALUE"),
        (["--data", "three=."], "three"),
    ],
)
def test_a_wrong_flag_is_one_line_and_nothing_is_written(room: Any, arguments: list[str], word: str) -> None:
    status, said = room.run(*arguments)
    assert status == 2
    assert len(said.splitlines()) == 1
    assert word in said
    assert not room.out.exists()


def test_slurm_where_there_is_none_is_one_line(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(room.root))
    status, said = room.run("--executor", "slurm")
    assert (status, len(said.splitlines())) == (2, 1)
    assert "SLURM" in said
    assert not room.out.exists()


def test_an_out_of_another_sweep_or_of_other_things_is_refused(room: Any) -> None:
    room.run()
    before = room.results()
    status, said = room.run(name="other")
    assert (status, len(said.splitlines())) == (2, 1)
    assert "'room'" in said
    assert room.results() == before
    (room.out / "sweep.json").unlink()
    status, said = room.run()
    assert (status, len(said.splitlines())) == (2, 1)
    (room.out / "sweep.json").write_text("[]")
    assert room.run()[0] == 2


def test_a_sweep_killed_before_it_wrote_its_name_can_start_again(room: Any) -> None:
    room.out.mkdir()
    (room.out / ".sweep.json.abc.tmp").write_text("{")
    assert room.run(encoders=["fake-a"])[0] == 0


def test_the_folder_remembers_the_resolved_sweep(room: Any) -> None:
    room.run(encoders=["fake-a"])
    manifest = json.loads((room.out / "sweep.json").read_text())
    assert manifest["name"] == "room"
    assert manifest["sweep"]["datasets"][0]["path"] == str(room.root / "one")


def test_weights_that_change_after_planning_fail_the_cell(room: Any) -> None:
    weights = room.root / "weights.pt"
    weights.write_text("first")
    room.write(room.document(encoders=[f"rice:{weights}"], probes=[room.probe(data=["one", "two"], seconds=1)]))
    parent = room.command("sweep.yaml", "--out", "out")
    wait_for(lambda: room.diary)
    weights.write_text("second")
    status, said = room.finished(parent)
    assert status == 1
    assert "changed since the sweep was planned" in said
    assert {row.dataset for row in load(room.out).itertuples()} == {"one"}


def test_cells_get_their_share_of_the_cores_and_the_noise_goes_to_the_log(room: Any) -> None:
    status, said = room.run(encoders=["fake-a"], seeds=1)
    assert status == 0
    assert "noise of a library" not in said
    logs = [log.read_text() for log in (room.out / "logs").iterdir()]
    assert all("noise of a library on standard output" in log and "cell finished" in log for log in logs)


def test_a_generated_world_is_written_once_and_serves_every_cell(room: Any) -> None:
    datasets = {"scenes": {"world": {"size": 64, "train": 2, "test": 1}}}
    arguments = {"datasets": datasets, "probes": [room.probe(data=["scenes"], needs="world.json")]}
    status, said = room.run("--dry-run", **arguments)
    assert (status, room.out.exists()) == (0, False), said
    status, said = room.run("--jobs", "2", **arguments)
    assert status == 0, said
    (world,) = (room.out / "worlds").iterdir()
    written = world.stat().st_mtime_ns
    assert {row.dataset_fingerprint for row in load(room.out).itertuples()} == {world.name}
    (world.parent / f".{world.name}.abc.tmp").mkdir()  # what a killed writer leaves
    room.run(**arguments, seeds=3)
    assert list(world.parent.iterdir()) == [world]
    assert world.stat().st_mtime_ns == written


def test_another_world_is_another_dataset(room: Any) -> None:
    for seed in (0, 1):
        datasets = {"scenes": {"world": {"size": 64, "train": 1, "test": 1, "seed": seed}}}
        room.run(encoders=["fake-a"], datasets=datasets, probes=[room.probe(data=["scenes"])], seeds=1)
    assert load(room.out).dataset_fingerprint.nunique() == 2


@pytest.mark.parametrize("world", [{"sise": 64}, {"size": 1}, {"kind": "towns"}])
def test_a_world_that_cannot_be_is_one_line(room: Any, world: dict[str, Any]) -> None:
    status, said = room.run(datasets={"scenes": {"world": world}}, probes=[room.probe(data=["scenes"])])
    assert (status, len(said.splitlines())) == (2, 1), said
    assert not room.out.exists()


def test_a_cell_whose_log_cannot_be_written_still_says_why_it_failed(room: Any) -> None:
    faulty: dict[str, Any] = {"encoders": ["fake-a"], "seeds": 1, "probes": [room.probe(fault="raise")]}
    room.run(**faulty)
    (log,) = (room.out / "logs").iterdir()
    log.unlink()
    log.symlink_to("/dev/full")
    status, said = room.run(**faulty)
    assert status == 1
    assert "No space left on device; make room" in said  # the fake prints before it raises
