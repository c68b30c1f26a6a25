"""Runs cells, a bounded number at a time: a process each here, or a SLURM job each of the same command line.

A cell that fails fails alone. A cell that another process is on (its lock is held) is tried again later.
"""

import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from probes.sweeps.job import BUSY, DONE, FAILED, FAILURE_PREFIX, Job, job_of
from probes.sweeps.plan import Cell, missing_seeds

_TICK_S = 0.05
_LOG_TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt at a cell ended. `waiting`: another process is on it. `reason` is one line."""

    cell: Cell
    state: Literal["done", "failed", "waiting"]
    reason: str | None
    log: Path
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Exit:
    """The exit status of a cell's process (negative: the signal that killed it), and what its host says of it."""

    status: int
    note: str | None = None


class Board(Protocol):
    """Is told what happens to the cells."""

    def start(self, cell: Cell) -> None:
        """A process was started on the cell."""
        ...

    def step(self, cell: Cell, description: str, done: int, total: int | None) -> None:
        """The cell says how far a loop of its own has come."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """The cell has ended, or waits for another process and will start again."""
        ...


class Attempt(Protocol):
    """A running cell."""

    def poll(self, board: Board) -> Exit | None:
        """Pass the cell's progress on; how it ended, once it has. Does not wait."""
        ...

    def kill(self) -> None:
        """End it and all its children now."""
        ...


class Host(Protocol):
    """Where cells run. `devices`: one for each cell at a time; `retry_s`: the pause before a busy cell."""

    devices: Sequence[str]
    retry_s: float

    def start(self, cell: Cell, job: Job, slot: int) -> Attempt:
        """Start the cell's process; `slot` indexes `devices`."""
        ...


@dataclass(kw_only=True)
class _Running:
    cell: Cell
    job: Job
    slot: int
    attempt: Attempt
    started: float


class Pool:
    """Brings cells to their end on one host."""

    def __init__(self, host: Host, out: Path, redo: Mapping[str, str]) -> None:
        """`redo`: results that count as missing, as in `missing_seeds`."""
        self._host, self._out, self._redo = host, out, redo
        self._free = list(reversed(range(len(host.devices))))
        self._running: list[_Running] = []

    def run(self, cells: Sequence[Cell], board: Board) -> list[Outcome]:
        """One outcome per cell, done or failed, in the order of their ends. Kills what runs when interrupted."""
        queue = deque((cell, 0.0) for cell in cells)
        outcomes: list[Outcome] = []
        try:
            while queue or self._running:
                for outcome in [*self._fill(queue, board), *self._poll(board)]:
                    board.finish(outcome)
                    if outcome.state == "waiting":
                        queue.append((outcome.cell, time.monotonic() + self._host.retry_s))
                    else:
                        outcomes.append(outcome)
                time.sleep(_TICK_S)
        finally:
            for running in self._running:
                running.attempt.kill()
        return outcomes

    def _fill(self, queue: deque[tuple[Cell, float]], board: Board) -> Iterator[Outcome]:
        """Start cells while slots are free, in order; yield those that another process has finished meanwhile."""
        # Who waits stands behind all others, the longest in front: the first cell speaks for a long queue.
        while queue and self._free and time.monotonic() >= queue[0][1]:
            cell, _ = queue.popleft()
            job = job_of(cell, self._out, redo=self._redo, device=self._host.devices[self._free[-1]])
            if not missing_seeds(self._out, cell.identity, cell.seeds, self._redo):
                yield Outcome(cell=cell, state="done", reason=None, log=job.log, seconds=0.0)
                continue
            slot = self._free.pop()
            attempt = self._host.start(cell, job, slot)
            self._running.append(_Running(cell=cell, job=job, slot=slot, attempt=attempt, started=time.monotonic()))
            board.start(cell)

    def _poll(self, board: Board) -> Iterator[Outcome]:
        for running in list(self._running):
            exit_ = running.attempt.poll(board)
            if exit_ is not None:
                yield self._end(running, exit_)

    def _end(self, running: _Running, exit_: Exit) -> Outcome:
        self._running.remove(running)
        self._free.append(running.slot)
        state, reason = _verdict(running.job, exit_)
        seconds = time.monotonic() - running.started
        return Outcome(cell=running.cell, state=state, reason=reason, log=running.job.log, seconds=seconds)


def _verdict(job: Job, exit_: Exit) -> tuple[Literal["done", "failed", "waiting"], str | None]:
    if exit_.status == BUSY:
        return "waiting", "another process is on it"
    missing = missing_seeds(job.out, job.identity, job.seeds, job.redo)
    if not missing:
        return "done", None
    if exit_.status == DONE:
        return "failed", f"the process ended as if all was well, but seeds {missing} have no result"
    said = exit_.note or (_last_words(job.log) if exit_.status == FAILED else None)
    return "failed", said or _death(exit_.status)


def _last_words(log: Path) -> str | None:
    """The reason that the cell wrote as its log's last line."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").rstrip().splitlines()
    return lines[-1].removeprefix(FAILURE_PREFIX) if lines and lines[-1].startswith(FAILURE_PREFIX) else None


def _death(status: int) -> str:
    if status >= 0:
        return f"the process exited with status {status} and no word"
    name = signal.Signals(-status).name
    hint = " (by a person, or by the kernel for want of memory)" if -status == signal.SIGKILL else ""
    return f"the process was killed by {name}{hint}"
