"""The wall clock is set back by hours or forward by days while jobs run, or a file server has another one.

`pytest -rP` shows a line of figures for each test.
"""

import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probes.results import RESULTS, documents

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SWEEPS = ROOT / "tests/probes/sweeps"
HOUR, DAY = 3600.0, 86400.0
JUMPS = {"six hours back": -6 * HOUR, "three days forward": 3 * DAY}

WALL_CLOCK = {
    "probes/import_formats/foreign.py": {"now"},
    "probes/sweeps/cell.py": {"now"},
    "rice/files.py": {"st_mtime_ns"},
    "rice/data/splits.py": {"st_mtime_ns"},
    "mllm/lisa/refer.py": {"st_mtime_ns"},
    "mllm/lisa/sets.py": {"st_mtime_ns"},
}
"""All uses: `now` is written down for people, and never read again; a file's time is compared for equality alone."""
_NAMES = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
_NAMES |= {"path.getmtime", "path.getctime", "time.localtime", "time.gmtime", "time.ctime", "time.strftime"}


def wall_clock_uses(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            base = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if f"{base}.{node.attr}" in _NAMES or node.attr.startswith(("st_mtime", "st_ctime", "st_atime")):
                found.add(node.attr)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found |= {alias.name for alias in node.names} & {"time", "time_ns"}
    return found


def test_nothing_waits_for_measures_or_orders_by_the_wall_clock() -> None:
    files = [path for name in ("rice", "probes", "mllm", "tracking", "reports") for path in (ROOT / name).rglob("*.py")]
    uses = {str(path.relative_to(ROOT)): wall_clock_uses(path.read_text()) for path in files}
    assert {name: found for name, found in uses.items() if found} == WALL_CLOCK
    assert wall_clock_uses("import time, os\nt = time.time() - os.stat('x').st_mtime") == {"time", "st_mtime"}
    print(f"{len(files)} files: {len(WALL_CLOCK)} look at the wall clock, none to wait, measure or order by")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sweep of fakes of tests/probes/sweeps, under a clock that the test sets: `set_clock`, `set_files`."""
    spec = importlib.util.spec_from_file_location("sweep_room", SWEEPS / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sweep_room", module)
    spec.loader.exec_module(module)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text(name)
    (tmp_path / "clock").write_text("0")
    paths = [str(module.FAKES), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setattr(module, "FAKES", HERE / "clock")  # comes first, and runs the fakes' own
    monkeypatch.setenv("CLOCK_SHIFT", str(tmp_path / "clock"))
    monkeypatch.setenv("CLOCK_THEN", str(SWEEPS / "fakes/sitecustomize.py"))
    return module.SweepRoom(tmp_path)


def set_clock(room: Any, seconds: float) -> None:
    (room.root / "new").write_text(str(seconds))
    (room.root / "new").replace(room.root / "clock")


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def events(room: Any, kind: str) -> list[tuple[str, str]]:
    return [(cell, seed) for event, cell, seed, _ in room.diary if event == kind]


def check_whole(room: Any, seeds: int) -> None:
    """Every seed of the four cells once, and nothing that a clock has twisted."""
    stored = list(documents(room.out))
    assert len(stored) == 4 * seeds
    assert all(0 <= document["seconds"] < 120 for document in stored)
    starts = events(room, "start")
    assert len(starts) == len(set(starts)) == 4 * seeds
    assert not events(room, "double")
    assert not room.temporaries()


@pytest.mark.slow
@pytest.mark.parametrize("jump", JUMPS)
def test_two_sweeps_under_a_clock_that_jumps_share_the_work_and_end(room: Any, jump: str) -> None:
    probes = [room.probe(data=["one", "two"], seconds=0.5)]
    began = time.monotonic()
    both = [room.start("--jobs", "2", probes=probes), room.start("--jobs", "2", probes=probes)]
    wait_for(lambda: events(room, "start"), both[0])
    set_clock(room, JUMPS[jump])
    wait_for(lambda: len(events(room, "end")) >= 3, both[0])
    set_clock(room, 0)
    for status, said in map(room.finished, both):
        assert status == 0, said
        assert "-" not in said.partition("Cells of this run")[2].partition("cells done")[0].replace("fake-", "")
    check_whole(room, 2)
    print(f"{jump} and again: 8 seeds, each once; {time.monotonic() - began:.0f} s")


@pytest.mark.slow
@pytest.mark.parametrize("jump", JUMPS)
def test_a_living_claim_is_not_stolen_and_a_dead_one_not_kept_whatever_its_time(room: Any, jump: str) -> None:
    probes = [room.probe(seconds=60)]
    document = {"encoders": ["fake-a"], "probes": probes, "seeds": 1}
    first = room.start(**document)
    wait_for(lambda: events(room, "start"), first)
    set_clock(room, JUMPS[jump])
    for path in (room.out / "locks").iterdir():
        stamp = time.time() + 10 * JUMPS[jump]
        os.utime(path, (stamp, stamp))
    second = room.start(**(document | {"probes": [room.probe(seconds=0.1)]}))
    assert second.stdout is not None
    assert any("another process is on it" in line for line in second.stdout)
    assert len(events(room, "start")) == 1
    first.send_signal(signal.SIGKILL)
    first.communicate()
    status, said = room.finished(second)
    assert status == 0, said
    assert len(events(room, "end")) == 1
    assert not events(room, "double")
    print(f"{jump}: one claim held while its process lived, and taken over when it was dead")


@pytest.mark.slow
@pytest.mark.parametrize("shift", [-6 * HOUR, 3 * DAY])
def test_a_force_computes_each_seed_once_whatever_clock_the_file_server_has(
    room: Any, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (room.root / "server").write_text(str(shift))
    monkeypatch.setenv("FILE_SHIFT", str(room.root / "server"))
    faulty = [room.probe(fault="raise", fault_seed=1)]
    calm: dict[str, Any] = {"encoders": ["fake-a"], "probes": [room.probe()]}
    assert room.run(**calm)[0] == 0
    assert room.run("--force", **calm)[0] == 0
    assert len(events(room, "end")) == 4
    assert "1 were already there" in room.run(**calm)[1]
    room.run(encoders=["fake-a"], probes=faulty)
    before = len(events(room, "start"))
    assert room.run("--force", encoders=["fake-a"], probes=faulty)[0] == 1
    assert room.run("--force", encoders=["fake-a"], probes=faulty)[0] == 1
    assert len(events(room, "start")) - before == 2 + 1  # seed 0 was forced once, by the first
    times = [path.stat().st_mtime - time.time() for path in (room.out / RESULTS).iterdir()]
    assert all(abs(seconds - shift) < HOUR for seconds in times)  # the server's clock was at work
    print(f"file server {shift / HOUR:+.0f} h: each seed computed once by each --force")


@pytest.mark.slow
@pytest.mark.parametrize("jump", JUMPS)
def test_a_training_under_a_clock_that_jumps_ends_with_the_same_tower(
    jump: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rice.cli import main
    from rice.data.world import WorldConfig, materialise

    materialise(WorldConfig(size=64, train=8, test=1), tmp_path / "world")
    main(["pack", str(tmp_path / "world"), "--out", str(tmp_path / "shards")])
    words = ["train", "micro", "--data", str(tmp_path / "shards"), "--samples", "48", "--batch", "8"]
    words += ["--machine.device", "cpu", "--machine.save-every", "2", "--out"]
    main([*words, str(tmp_path / "calm")])
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + JUMPS[jump] * (next(calls) % 2))
    main([*words, str(tmp_path / "jumping")])
    monkeypatch.undo()
    calm, jumping = ((tmp_path / name / "final").rglob("*.safetensors") for name in ("calm", "jumping"))
    whole = {path.name: path.read_bytes() for path in calm}
    assert whole
    assert {path.name: path.read_bytes() for path in jumping} == whole
    lines = [json.loads(line) for line in (tmp_path / "jumping/metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["step_s"] < 120 for line in lines if "step_s" in line)
    print(f"{jump} and back at every look: {len(whole)} files of the trained tower are the same, bit for bit")
