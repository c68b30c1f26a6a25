"""Cells as processes of this machine: a GPU each, or a share of the cores."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from probes.sweeps.job import FAILURE_PREFIX, Job, write_job
from probes.sweeps.lifeline import kill_group
from probes.sweeps.plan import Cell
from probes.sweeps.pool import Board, Exit
from probes.training_config import WAIT_PASSIVELY
from rice.errors import RiceError
from rice.progress import LINE_PREFIX


class LocalHost:
    """`devices` has one entry per cell at a time; `gpus` the ids behind them, empty for the CPU."""

    retry_s = 2.0

    def __init__(self, jobs: int, gpus: Sequence[str]) -> None:
        self.devices: Sequence[str] = ["cuda:0" if gpus else "cpu"] * jobs
        self._gpus = [gpus[slot % len(gpus)] for slot in range(jobs)] if gpus else []
        self._threads = max(1, cores() // jobs)

    def start(self, cell: Cell, job: Job, slot: int) -> "LocalAttempt":
        """Start `python -m probes.sweeps.cell` tied to this process."""
        environment = os.environ | cell_environment(self._threads)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot]
        return LocalAttempt(cell, job, environment)


class LocalAttempt:
    """One cell's process, and the last that it said."""

    def __init__(self, cell: Cell, job: Job, environment: Mapping[str, str]) -> None:
        self._cell = cell
        self._rest = b""
        self._said: str | None = None
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            self._process = start_tied(cell_command(job), environment, log)
        assert self._process.stdout is not None
        self._stdout = self._process.stdout.fileno()
        os.set_blocking(self._stdout, False)

    def poll(self, board: Board) -> Exit | None:
        """As `pool.Attempt`."""
        ended = has_ended(self._process)  # asked first, so that its last words are heard
        self._listen(board)
        if not ended:
            return None
        self.kill()
        return Exit(status=self._process.wait(), note=self._said)

    def kill(self) -> None:
        """As `pool.Attempt`."""
        kill_group(self._process.pid)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _listen(self, board: Board) -> None:
        *lines, self._rest = (self._rest + _read_all(self._stdout)).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if text.startswith(LINE_PREFIX):
                report = json.loads(text.removeprefix(LINE_PREFIX))
                board.step(self._cell, report["description"], report["done"], report["total"])
            elif text.startswith(FAILURE_PREFIX):
                self._said = text.removeprefix(FAILURE_PREFIX)


def _read_all(descriptor: int) -> bytes:
    """What a non-blocking pipe holds by now."""
    parts = []
    try:
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts)


def cell_command(job: Job) -> list[str]:
    """The command line of a cell, the same on every host. `-P`: the working folder shadows no module.

    The seam for a cell on several GPUs: `torchrun --nproc-per-node N` goes in front, and a slot holds N ids.
    """
    return [sys.executable, "-P", "-m", "probes.sweeps.cell", str(write_job(job)), "--tied"]


def cell_environment(threads: int) -> dict[str, str]:
    """What a cell needs to see what its parent saw. What the user set of OpenMP stays."""
    paths = os.pathsep.join(path for path in sys.path if path)
    openmp = {"OMP_NUM_THREADS": str(threads), **WAIT_PASSIVELY}
    return {"PYTHONPATH": paths} | {name: os.environ.get(name, value) for name, value in openmp.items()}


def start_tied(
    command: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None
) -> "subprocess.Popen[bytes]":
    """A process in a group of its own that dies with us: it watches its standard input. Errors go to `log`."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if log is not None else None,
        stderr=log,
        start_new_session=True,
    )


def has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it has ended, without reaping it: until then its group's id is no one else's."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def find_gpus(gpus: str) -> list[str]:
    """The ids that `--gpus` means: 'auto' (all that are visible), 'none', or a list '0,2'. Imports no torch.

    Errors: RiceError for a list that is empty or holds something else than ids.
    """
    if gpus == "none":
        return []
    if gpus == "auto":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return _driver_gpus() if visible is None else [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    ids = [word.strip() for word in gpus.split(",")]
    if not all(word.isdigit() or word.startswith(("GPU-", "MIG-")) for word in ids) or len(set(ids)) < len(ids):
        raise RiceError(f"--gpus takes auto, none, or different ids such as 0,2, got {gpus!r}")
    return ids


def _driver_gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no driver, no GPU
        return []
    return said.stdout.split() if said.returncode == 0 else []


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
