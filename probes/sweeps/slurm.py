"""Cells as SLURM jobs, by submitit: each job runs the command line of a local cell and gives its exit status back.

A sweep that is killed leaves its jobs to finish; the same command then waits for them instead of doubling them.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.sweeps.job import Job
from probes.sweeps.lifeline import kill_group
from probes.sweeps.local import cell_command, cell_environment, start_tied
from probes.sweeps.plan import Cell
from probes.sweeps.pool import Board, Exit
from rice.errors import RiceError, require


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
            self._executor.update_parameters(name="rice-cell", **options)
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise RiceError(f"SLURM by submitit: {' '.join(str(error).split())}") from error
        self._threads = int(options.get("cpus_per_task", 1))

    def start(self, cell: Cell, job: Job, slot: int) -> "SlurmAttempt":
        """Submit the cell."""
        return SlurmAttempt(self._executor.submit(run_on_node, cell_command(job), cell_environment(self._threads)))


class SlurmAttempt:
    """One submitted cell. Its progress stays in submitit's log: a queue has no live bars."""

    def __init__(self, submitted: Any) -> None:
        self._submitted = submitted

    def poll(self, board: Board) -> Exit | None:
        """As `pool.Attempt`."""
        if not self._submitted.done():
            return None
        error = self._submitted.exception()
        if error is None:
            return Exit(status=self._submitted.result())
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return Exit(status=-9, note=f"SLURM job {self._submitted.job_id} ended as {self._submitted.state}: {line}")

    def kill(self) -> None:
        """As `pool.Attempt`."""
        self._submitted.cancel()


def run_on_node(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The cell's exit status; the cell dies with the job."""
    process = start_tied(command, os.environ | dict(environment), None)
    try:
        return process.wait()
    finally:
        kill_group(process.pid)


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
