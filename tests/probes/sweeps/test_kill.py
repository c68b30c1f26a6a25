"""A sweep that is killed again and again, at random but seeded instants, ends as if nothing had happened."""

import random
import subprocess
import time
from typing import Any

import psutil
import pytest

from probes.results import load

KILLS = 30
PAUSE_S = 1.5


def family_of(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_dead(processes: list[psutil.Process]) -> None:
    end = time.monotonic() + 5
    while left := [process for process in processes if lives(process)]:
        assert time.monotonic() < end, f"orphans: {left}"
        time.sleep(0.02)


def cells_in(family: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in family:
        try:
            if "probes.sweeps.cell" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for_a_cell(parent: "subprocess.Popen[str]") -> None:
    """Until a cell runs, on however busy a machine."""
    end = time.monotonic() + 60
    while parent.poll() is None and not cells_in(family_of(parent.pid)):
        assert time.monotonic() < end, "no cell started"
        time.sleep(0.02)


@pytest.mark.slow
def test_thirty_random_kills_lose_double_and_orphan_nothing(room: Any) -> None:
    probes = [room.probe(data=["one", "two"], seconds=0.4, children=True)]
    arguments: dict[str, Any] = {"encoders": [f"fake-{k}" for k in "abcd"], "probes": probes, "seeds": 12}
    chance = random.Random(20250923)
    stored: dict[str, bytes] = {}
    kills = {"sweep": 0, "cell": 0}
    parent = room.start("--jobs", "2", **arguments)
    while sum(kills.values()) < KILLS:
        target = chance.choice(["sweep", "cell"])
        if target == "cell":
            wait_for_a_cell(parent)
        time.sleep(chance.uniform(0, PAUSE_S))
        family = family_of(parent.pid)
        cells = cells_in(family)
        if cells and target == "cell":
            chance.choice(cells).kill()
            kills["cell"] += 1
        elif parent.poll() is None:
            parent.kill()
            parent.communicate()
            kills["sweep"] += 1
            assert_dead(family)
        now = room.results()
        assert stored.items() <= now.items(), "a finished seed was lost or computed again"
        stored = {name: text for name, text in now.items() if not name.endswith(".tmp")}
        if parent.poll() is not None:
            assert len(stored) < 96, "the sweep was over before the last kill; make it longer"
            parent = room.start("--jobs", "2", **arguments)
    room.finished(parent)
    status, said = room.run("--jobs", "2", **arguments)
    assert status == 0, said
    assert stored.items() <= room.results().items()
    frame = load(room.out)
    cells_and_seeds = list(frame[["encoder", "dataset", "seed"]].itertuples(index=False, name=None))
    assert len(cells_and_seeds) == len(set(cells_and_seeds)) == 96
    assert not room.temporaries()
    assert not list((room.out / "work").iterdir())
    assert len(list((room.out / "items").iterdir())) == 96
    assert not [event for event, *_ in room.diary if event == "double"], "two processes were on one cell"
    starts = sum(event == "start" for event, *_ in room.diary)
    assert starts <= 96 + 2 * KILLS, f"{starts} starts for 96 seeds and {kills} kills"
    assert min(kills.values()) >= 5, kills
