"""A curation whose Ray workers are killed ends with the very files of one that nobody touched.

One that is killed itself: tests/reliability/test_kills.py."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pile
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = pile.write_scenes(tmp_path_factory.mktemp("pile") / "pile", 18)
    return pile.write_files(folder, {"bad.jpg": b"<html>", "twice.jpg": (folder / "00.jpg").read_bytes()})


def command(pictures: Path, out: Path, *flags: str) -> list[str]:
    where = [sys.executable, "-m", "rice.cli", "curate", str(pictures), "--out", str(out), "-k", "5"]
    small = ["--encoder", "mini-s8-128", "--min-edge", "100", "--min-region", "24", "--per-shard", "4"]
    return [*where, *small, "--device", "cpu", *flags]


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(command(pictures, out), check=True, capture_output=True)
    return out


def contents(out: Path) -> dict[str, bytes]:
    """All that a curation is for; manifests, which tell seconds, are not."""
    kinds = ("shards/*", "embed/*.npy", "clusters/**/*", "*/*.parquet", "page/**/*")
    files = {path for kind in kinds for path in out.glob(kind) if path.is_file() and not path.name.startswith(".")}
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(files)}


def start_and(out: Path, arguments: list[str], ready: Callable[[], bool], do: Callable[[int], None]) -> int:
    """Run the command; once `ready`, do something to its process. Returns its status."""
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not ready():
            time.sleep(0.005)
        if process.poll() is None:
            do(process.pid)
        return process.wait()


def _kill_a_ray_worker(process: int) -> None:
    actors = [child for child in psutil.Process(process).children(recursive=True) if "MapWorker" in _name(child)]
    assert actors, "no worker to be killed"
    for actor in actors:  # one of them at least is at work, another may have ended
        with contextlib.suppress(psutil.NoSuchProcess):
            actor.send_signal(signal.SIGKILL)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize("killed", [False, True])
def test_ray_gives_the_same_files_also_where_a_worker_of_its_is_killed(
    pictures: Path, whole: Path, tmp_path: Path, killed: bool
) -> None:
    pytest.importorskip("ray.data")
    out = tmp_path / "out"
    arguments = command(pictures, out, "--engine", "ray", "--workers", "2")

    def embedding() -> bool:
        return any((out / "embed").glob("*.npy"))

    status = start_and(out, arguments, embedding if killed else lambda: True, _kill_a_ray_worker if killed else print)
    assert status == 0
    assert contents(out) == contents(whole)
