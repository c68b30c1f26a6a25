"""A probe that computes nothing, can misbehave in every way that a sweep must survive, and keeps a diary of its runs.

The diary ($FAKE_DIARY) gets a line `EVENT CELL SEED PID` at each start and end, and `double ...` where another living
process is on the same cell.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from probes.protocol import Metric, run_only
from rice.errors import RiceError
from rice.files import sha256_file
from rice.progress import Progress


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """`fault` strikes on seeds from `fault_seed` on, for encoders whose name holds `fault_encoder`.

    `needs`: a file that must be in the dataset's folder. `keeps`: so many seeds, from 0 on, leave something to keep.
    """

    fault: str = ""
    fault_seed: int = 0
    fault_encoder: str = ""
    seconds: float = run_only(0.0)
    children: bool = run_only(False)
    scale: float = 1.0
    needs: str = run_only("")
    keeps: int = run_only(0)


class FakeProbe:
    """Yields the seed, scaled."""

    name: ClassVar[str] = "fake"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = FakeConfig

    def __init__(self, config: FakeConfig, data: Path) -> None:
        self.config, self.data = config, data

    def inspect(self) -> str:
        if (self.data / "broken.txt").exists():
            raise RiceError(f"{self.data} is broken")
        return "a line"

    def fingerprint(self) -> str:
        file = self.data / "data.txt"
        if not file.exists():
            raise RiceError(f"expected {file}")
        return sha256_file(file)

    def input_size(self, spec: Any, size: int | None) -> int:
        return size or spec.native_size

    def count_images(self) -> int:
        return 10

    def run(self, encoder: Any, *, seed: int, workdir: Path, progress: Progress) -> Iterator[Metric]:
        _claim(workdir, seed)
        _write("start", workdir, seed)
        assert (self.data / self.config.needs).exists()
        print("noise of a library on standard output")
        children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])] * self.config.children
        for _ in progress.track(range(5), f"seed {seed}"):
            time.sleep(self.config.seconds / 5)
        if seed < self.config.keeps:
            (workdir / "kept/parts").mkdir(parents=True)
            (workdir / "kept/parts/head.txt").write_text(f"head of seed {seed}, run {len(_starts(workdir))}")
        if seed >= self.config.fault_seed and self.config.fault_encoder in encoder.spec.name:
            yield from _misbehave(self.config.fault)
        (workdir / "items.parquet").write_bytes(f"items of seed {seed}".encode())
        for child in children:
            child.kill()
            child.wait()
        _write("end", workdir, seed)
        protocol = "the seed, scaled"
        yield Metric(name="score", value=np.float32(seed * self.config.scale), n=10, unit="", higher_is_better=True,
                     split="test", protocol=protocol)  # fmt: skip


def _misbehave(fault: str) -> Iterator[Metric]:
    match fault:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise ValueError("the fake probe\nraises")
        case "exit 0":
            os._exit(0)
        case "exit 3":
            os._exit(3)
        case "sys.exit":
            sys.exit("enough")
        case "memory":
            _allocate_too_much()
        case "nan" | "inf":
            protocol = "not finite"
            yield Metric(name="bad", value=float(fault), n=1, unit="", higher_is_better=True, split="test",
                         protocol=protocol)  # fmt: skip
        case "_":
            raise AssertionError(fault)


def _allocate_too_much() -> None:
    import resource

    used = 2 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (used, used))
    np.ones(2 * used, dtype=np.uint8)


def _claim(workdir: Path, seed: int) -> None:
    """Say in the diary when another living process is on this cell."""
    claim = Path(os.environ["FAKE_DIARY"]).with_name(f"claim-{workdir.name}")
    owner = int(claim.read_text() or 0) if claim.exists() else 0
    if owner not in (0, os.getpid()) and _lives(owner):
        _write("double", workdir, seed)
    claim.write_text(str(os.getpid()))


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # dead, not yet reaped


def _starts(workdir: Path) -> list[str]:
    lines = Path(os.environ["FAKE_DIARY"]).read_text().splitlines()
    return [line for line in lines if line.startswith(f"start {workdir.name} ")]


def _write(event: str, workdir: Path, seed: int) -> None:
    with Path(os.environ["FAKE_DIARY"]).open("a") as diary:
        diary.write(f"{event} {workdir.name} {seed} {os.getpid()}\n")
