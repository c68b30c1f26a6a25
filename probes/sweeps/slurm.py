"""Cells as SLURM jobs, by submitit: each job runs the command line of a local cell and gives its exit status back.

A sweep that is killed leaves its jobs to finish; the same command then waits for them instead of doubling them.
"""

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.sweeps.job import Job
from probes.sweeps.lifeline import kill_group
from probes.sweeps.local import cell_command, cell_environment, start_tied
from probes.sweeps.plan import Cell
from probes.sweeps.pool import Board, Exit
from rice.errors import RiceError, require

_LOOK_S, _GRACE_S = 15.0, 30.0
_SHORT_MIN = 6
_NOT_ENDED = (
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"),
    *("RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED"),
)


class SlurmHost:
    """`devices` has one entry per job at a time. `options` are submitit's (`timeout_min`, `slurm_partition`, ...)."""

    retry_s = 60.0

    def __init__(
        self, out: Path, jobs: int, device: str, options: Mapping[str, Any], cluster: str | None = "slurm"
    ) -> None:
        """`cluster`: as in submitit.AutoExecutor. Errors: RiceError for options that submitit refuses."""
        self.devices: Sequence[str] = [device] * jobs
        submitit = require("submitit", "slurm")
        try:
            self._executor = submitit.AutoExecutor(folder=out / "slurm", cluster=cluster)
            self._executor.update_parameters(name="rice-cell", **_warned(options))
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise RiceError(f"SLURM by submitit: {' '.join(str(error).split())}") from error
        self._threads = int(options.get("cpus_per_task", 1))

    def start(self, cell: Cell, job: Job, slot: int) -> "SlurmAttempt":
        """Submit the cell."""
        return SlurmAttempt(self._executor.submit(OnNode(), cell_command(job), cell_environment(self._threads)))


class SlurmAttempt:
    """One submitted cell. Its progress stays in submitit's log: a queue has no live bars."""

    def __init__(self, submitted: Any) -> None:
        self._submitted = submitted
        self._next_look = time.monotonic() + _LOOK_S
        self._ended_since: float | None = None

    def poll(self, board: Board) -> Exit | None:
        """As `pool.Attempt`."""
        if not self._submitted.done():
            return self._vanished()
        error = self._submitted.exception()
        if error is None:
            return Exit(status=self._submitted.result())
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return Exit(status=-9, note=f"SLURM job {self._submitted.job_id} ended as {self._submitted.state}: {line}")

    def _vanished(self) -> Exit | None:
        """How a job ended that left no result, where submitit cannot know: it asks `sacct` alone, which has no answer
        on clusters without accounting. A job that SLURM puts back into the queue has not ended."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + _LOOK_S
        state = job_state(self._submitted.job_id)
        if state is None or state in _NOT_ENDED:
            self._ended_since = None
            return None
        if self._ended_since is None:
            self._ended_since = now
        if now - self._ended_since < _GRACE_S:  # the result may be on its way over a network disk
            return None
        return Exit(status=-9, note=f"SLURM job {self._submitted.job_id} ended as {state}, and left no result")

    def kill(self) -> None:
        """As `pool.Attempt`."""
        self._submitted.cancel()


def job_state(job: str) -> str | None:
    """As `scontrol` knows it, UNKNOWN for one that it has forgotten; None where it cannot be asked."""
    try:
        said = subprocess.run(
            ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if said.returncode:
        return "UNKNOWN" if "Invalid job id" in said.stderr else None
    found = re.search(r"\bJobState=([A-Z_]+)", said.stdout)
    return found[1] if found else None


class OnNode:
    """What a job runs: the cell's exit status; the cell dies with the job.

    A job that is preempted, or comes to its time limit, goes back into the queue (three times at most for the limit),
    and then computes the seeds that have no result yet.
    """

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        process = start_tied(command, os.environ | dict(environment), None)
        try:
            return process.wait()
        finally:
            kill_group(process.pid)

    def checkpoint(self, command: Sequence[str], environment: Mapping[str, str]) -> Any:
        """The same again: submitit asks for it once it has the signal that the time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, command, environment)


def _warned(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of a short limit the signal comes a quarter before its end (SLURM sends it up to a minute earlier); submitit's
    90 s would end a job of one minute at once."""
    limit = options.get("timeout_min")
    soon = {"slurm_signal_delay_s": 15 * limit} if isinstance(limit, int) and limit < _SHORT_MIN else {}
    return soon | dict(options)


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """['timeout_min=240', 'slurm_partition=gpu'] as submitit takes them. Errors: RiceError for another form."""
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or not value:
            raise RiceError(f"--slurm takes NAME=VALUE such as timeout_min=240, got {word!r}")
        options[name] = int(value) if value.isdigit() else value
    return options


def device_of(gpus: str, options: Mapping[str, Any]) -> str:
    """A GPU where the job asks for one, unless `--gpus none`."""
    asks = any("gpu" in name or (name.endswith("gres") and "gpu" in str(value)) for name, value in options.items())
    return "cuda:0" if asks and gpus != "none" else "cpu"
