"""Several commands of `rice` at a time, each a process that dies with this one; what they say goes to files."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from probes.sweeps.lifeline import kill_group
from probes.sweeps.local import cell_environment, cores, has_ended, start_tied
from rice.errors import RiceError
from rice.files import make_folder
from rice.progress import Progress

_PAUSE_S = 0.2
_SAID = 300
"""Characters of a log's last line."""


def run_all(jobs: Mapping[str, Sequence[str]], logs: Path, at_once: int, progress: Progress, label: str) -> None:
    """Run `rice ARGUMENTS` of each job, `at_once` at a time, which share the cores; LOGS/NAME.log has their output.

    Errors: RiceError naming the first job that fails, with the last line of its log; the others are stopped.
    """
    make_folder(logs)
    waiting, running = dict(jobs), dict[str, tuple[Any, IO[bytes]]]()
    environment = os.environ | cell_environment(max(1, cores() // max(1, min(at_once, len(jobs)))))
    done = iter(progress.track(range(len(jobs)), label))
    try:
        next(done, None)
        while waiting or running:
            while waiting and len(running) < at_once:
                name = next(iter(waiting))
                running[name] = _start(waiting.pop(name), environment, logs / f"{name}.log")
            for name in [name for name, (process, _) in running.items() if has_ended(process)]:
                _close(running.pop(name), name, logs)
                next(done, None)
            time.sleep(_PAUSE_S)
    finally:
        for job in running.values():
            _end(*job)


def _start(arguments: Sequence[str], environment: Mapping[str, str], path: Path) -> tuple[Any, IO[bytes]]:
    log = path.open("ab")
    command = [sys.executable, "-m", "reports.miniature.tied", *arguments]
    return start_tied(command, dict(environment), log), log


def _end(process: Any, log: IO[bytes]) -> int:
    """Its exit status; nothing of it is left."""
    kill_group(process.pid)
    status: int = process.wait()
    for stream in (process.stdin, process.stdout, log):
        stream.close()
    return status


def _close(job: tuple[Any, IO[bytes]], name: str, logs: Path) -> None:
    if _end(*job) != 0:
        path = logs / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it says nothing")
        raise RiceError(f"{name} failed: {' '.join(last.split())[:_SAID]} (all of it: {path})")
