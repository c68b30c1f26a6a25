"""The disk under --out is full, at several instants of a job, or read-only: one line, nothing half-written is taken for
whole, and with room the same command ends with the very files of a run that nothing disturbed.

RICE_DISK_JOBS=all tries every command of disk_jobs.py, or those that it lists with commas between, not the quick ones;
RICE_DISK_SHARES=0.1,0.3,0.5,0.7,0.9 sets the room that there is, as shares of what the job needs (0,0.35,0.7 by
default). `pytest -rP` shows the figures. A full disk is a tmpfs in a user's own namespace; without these it is skipped.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_jobs import JOBS, Job, make_inputs
from small_disk import Ran, SmallDisk, small_disk, why_not

from rice.errors import NO_ROOM

ASKED = os.environ.get("RICE_DISK_JOBS", "")
NAMES = {"": [name for name, job in JOBS.items() if job.quick], "all": list(JOBS)}.get(ASKED) or ASKED.split(",")
SHARES = [float(word) for word in os.environ.get("RICE_DISK_SHARES", "0,0.35,0.7").split(",")]
PAGE = 4096


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with small_disk(tmp_path_factory.mktemp("full")) as disk:
        yield disk


def ready(disk: SmallDisk, name: str) -> tuple[list[object], Path]:
    """The job's command, and where it writes; both are the same on every disk."""
    at = disk.folder.parent / "inputs"
    make_inputs(disk, at, name)
    return [*JOBS[name].words(at), "--out", disk.folder / JOBS[name].out], disk.seen / JOBS[name].out


def contents(out: Path, job: Job) -> dict[str, bytes]:
    """Every file, hidden ones too; of those that tell times the name alone."""
    files = [out] if out.is_file() else [path for path in sorted(out.rglob("*")) if path.is_file()]
    varying = {path for pattern in job.varies for path in out.glob(pattern)}
    return {str(path.relative_to(out.parent)): b"" if path in varying else path.read_bytes() for path in files}


def half_written(out: Path) -> list[str]:
    return [str(path) for path in out.parent.rglob("*.tmp")]


def check_refused(ran: Ran, job: Job) -> None:
    """It ended with one of its statuses and one line that says what and what to do, no traceback."""
    assert ran.status in job.failed, ran
    assert "Traceback" not in ran.err, ran.err
    assert "Traceback" not in ran.out, ran.out
    lines = (ran.out + ran.err).splitlines()
    assert any("No space left on device" in line and "make room" in line for line in lines), ran
    if ran.status == 2:
        assert len([line for line in ran.err.splitlines() if line.startswith("rice: error: ")]) == 1, ran.err


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_line_and_with_room_the_same_command_ends_the_same(disk: SmallDisk, name: str) -> None:
    job, began = JOBS[name], time.monotonic()
    command, out = ready(disk, name)
    disk.new(1 << 30)
    calm = disk.rice(*command)
    assert calm.status == 0, calm
    need, whole = disk.used(), contents(out, job)
    disk.new(2 * PAGE)
    (disk.seen / "filler").write_bytes(bytes(2 * PAGE))
    refused = 0
    for share in SHARES:
        disk.grow(2 * PAGE + int(need * share) // PAGE * PAGE)
        ran = disk.rice(*command)
        if ran.status != 0 or contents(out, job) != whole:  # what varies may be shorter now than it was
            check_refused(ran, job)
            assert not half_written(out)
            refused += 1
    assert refused >= len(SHARES) - 1
    disk.grow(1 << 30)
    ran = disk.rice(*command)
    assert ran.status == 0, ran
    found = contents(out, job)
    assert found.keys() == whole.keys()
    assert [path for path in whole if found[path] != whole[path]] == []
    seconds = time.monotonic() - began
    print(
        f"{name}: needs {need / 1024:.0f} KiB, refused {refused} times, then {len(whole)} files alike; {seconds:.0f} s"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_disk_is_one_line(disk: SmallDisk, name: str) -> None:
    command, out = ready(disk, name)
    disk.new(1 << 20)
    disk.read_only(True)
    ran = disk.rice(*command)
    disk.read_only(False)
    assert ran.status == 2, ran
    assert "Traceback" not in ran.err
    (line,) = (line for line in ran.err.splitlines() if line.startswith("rice: error: "))
    assert "Read-only file system; give another place" in line
    assert not list(out.parent.iterdir())
    print(f"{name}: {line}")


def test_a_full_disk_under_standard_output_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "rice.cli", "encoders"]
        ran = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [f"rice: error: {NO_ROOM}"]
    print(ran.stderr.strip())


def test_the_small_disk_is_small_and_another_ones(disk: SmallDisk) -> None:
    disk.new(16 * PAGE)
    with pytest.raises(OSError, match="No space left"):
        (disk.seen / "file").write_bytes(bytes(17 * PAGE))
    disk.grow(64 * PAGE)
    (disk.seen / "file").write_bytes(bytes(17 * PAGE))
    assert not list(disk.folder.iterdir()), "it is mounted for all"
    assert shutil.disk_usage(disk.seen).total == 64 * PAGE
    disk.read_only(True)
    with pytest.raises(OSError, match="Read-only"):
        (disk.seen / "other").write_bytes(b"")
