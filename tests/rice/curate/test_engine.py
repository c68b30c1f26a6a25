"""Shards are done once, by whichever worker; what changed is done again, what did not is left; errors are named."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from engine_targets import Counting

from rice.curate.config import EngineConfig
from rice.curate.engine import Engine
from rice.curate.stage import read_manifest, totals
from rice.errors import RiceError
from rice.progress import SilentProgress

SHARDS = dict.fromkeys(("a", "b", "c", "d", "e"), 3)


class Ticks(SilentProgress):
    """Counts what a bar would show."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None, int]] = []

    def track(self, items, description, total=None):  # type: ignore[no-untyped-def]
        count = 0
        for item in items:
            count += 1
            yield item
        self.seen.append((description, total, count))


def run(stage: Counting, workers: int = 1, shards: dict[str, int] = SHARDS) -> Ticks:
    progress = Ticks()
    with Engine(EngineConfig(workers=workers, device="cpu"), len(shards)) as engine:
        engine.run(stage, shards, progress)
    return progress


def done(out: Path) -> Counter[str]:
    return Counter((out / "done.txt").read_text().split())


@pytest.mark.parametrize("workers", [1, 2])
def test_every_shard_is_done_once_and_every_picture_is_told(tmp_path: Path, workers: int) -> None:
    progress = run(Counting(tmp_path), workers)
    assert progress.seen == [("counting", 15, 15)]
    assert done(tmp_path) == Counter(SHARDS.keys())
    found = totals(tmp_path, "counting", SHARDS)
    assert (found.counts, found.drops) == (Counter(pictures=15), Counter(bad=5))
    assert run(Counting(tmp_path), workers).seen == []
    assert done(tmp_path) == Counter(SHARDS.keys())


def test_each_worker_has_one_core_and_loads_once(tmp_path: Path) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    run(Counting(tmp_path), 2)
    opened = [line.split() for line in (tmp_path / "opened.txt").read_text().splitlines()]
    assert len({process for process, _, _ in opened}) == len(opened) <= 2
    assert {threads for _, _, threads in opened} == {"1"}
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_what_is_gone_cut_off_or_made_from_something_else_is_done_again(tmp_path: Path) -> None:
    run(Counting(tmp_path))
    folder = tmp_path / "counting"
    (folder / "a.txt").unlink()
    (folder / "b.txt").write_text("b")
    (folder / "c.json").write_text("{")
    run(Counting(tmp_path, sources={"d": "new"}))
    assert done(tmp_path) == Counter({"a": 2, "b": 2, "c": 2, "d": 2, "e": 1})
    assert (folder / "b.txt").read_text() == "b 1 "


def test_a_digest_is_that_of_the_products_alone(tmp_path: Path) -> None:
    run(Counting(tmp_path))
    first = read_manifest(tmp_path, "counting", "a")
    run(Counting(tmp_path, sources={"a": "new", "b": ""}))
    second = read_manifest(tmp_path, "counting", "a")
    assert first is not None
    assert second is not None
    assert first.digest != second.digest  # its text holds the source
    (tmp_path / "counting" / "a.json").unlink()
    run(Counting(tmp_path, sources={"a": "new"}))
    third = read_manifest(tmp_path, "counting", "a")
    assert third is not None
    assert third.digest == second.digest


def test_other_settings_do_not_overwrite_what_is_there(tmp_path: Path) -> None:
    run(Counting(tmp_path))
    with pytest.raises(RiceError, match="its setting is 1, not 2"):
        run(Counting(tmp_path, setting=2))
    assert (tmp_path / "counting" / "a.txt").read_text() == "a 1 "


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_told_and_what_was_done_before_stays(tmp_path: Path, workers: int) -> None:
    with pytest.raises(RiceError, match="e is broken"):
        run(Counting(tmp_path, broken="e"), workers)
    run(Counting(tmp_path), workers)
    assert done(tmp_path) == Counter(SHARDS.keys())


def test_a_killed_worker_is_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="a worker of counting was killed"):
        run(Counting(tmp_path, deadly="b"), 2)
    run(Counting(tmp_path), 2)
    assert set(done(tmp_path)) == set(SHARDS)


HANGING = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from engine_targets import Counting
from rice.curate.config import EngineConfig
from rice.curate.engine import Engine
from rice.progress import SilentProgress

if __name__ == "__main__":
    shards = dict.fromkeys(map(str, range(100_000)), 3)
    with Engine(EngineConfig(workers=2, device="cpu"), len(shards)) as engine:
        engine.run(Counting(Path(sys.argv[1])), shards, SilentProgress())
"""


def test_workers_die_with_the_command(tmp_path: Path) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    command = [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "done.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGKILL)
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
