"""`rice sweep`: encoders x probes x datasets x seeds, resumable. Planning imports no torch."""

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from filelock import FileLock, Timeout
from rich.console import Console

from probes.sweeps.board import BarBoard, LineBoard, summary
from probes.sweeps.estimate import print_estimate
from probes.sweeps.job import WORK, job_of
from probes.sweeps.local import LocalHost, find_gpus
from probes.sweeps.plan import Cell, found_results, missing_seeds, plan
from probes.sweeps.pool import Host, Outcome, Pool
from probes.sweeps.slurm import SlurmHost, device_of, parse_options
from probes.sweeps.sweepfile import Sweep, read_sweep
from rice.errors import RiceError
from rice.files import leftovers, make_folder, read_json, write_json

MANIFEST, LOCK = "sweep.json", ".sweep.lock"
SCHEMA = 1


def sweep(
    file: Annotated[str, tyro.conf.Positional],
    *,
    out: Path,
    data: tuple[str, ...] = (),
    weights: tuple[str, ...] = (),
    only_missing: bool = False,
    force: bool = False,
    jobs: int | None = None,
    gpus: str = "auto",
    executor: Literal["local", "slurm"] = "local",
    slurm: tuple[str, ...] = (),
    dry_run: bool = False,
) -> int:
    """Judge encoders by probes on datasets: every cell is a process of its own, every seed one stored result.

    Killed at any instant, the same command finishes what is missing. Several may work on one --out at a time.
    Then: rice tables OUT.

    Args:
        file: FILE.yaml, or a built-in sweep: quickstart, dense-coco, detection-mini, text-mini, tracking-mini, table3,
            table4, table5a, table5b, table5c.
        out: Folder of this sweep's results, logs and generated worlds; it must be new or hold the same sweep.
        data: Where datasets lie: NAME=PATH, or PATH alone: the sweep's one dataset, or a folder of them by their names.
        weights: LABEL=PATH for an encoder whose weights are not published; without it that encoder is left out.
        only_missing: Compute only what has no result yet (the default).
        force: Compute everything again; an interrupted --force goes on where it stopped.
        jobs: Cells at a time. Default: one per GPU, or 1 (they share the cores).
        gpus: auto, none, or ids such as 0,2.
        executor: Processes on this machine, or SLURM jobs.
        slurm: Options of submitit, e.g. slurm_partition=gpu slurm_gres=gpu:1 timeout_min=240.
        dry_run: Say what would be computed and what it costs; write nothing.
    """
    _check_options(only_missing and force, jobs, bool(slurm) and executor != "slurm")
    asked = read_sweep(file, data, weights)
    manifest = _read_manifest(out, asked)
    cells = plan(asked)
    redo: dict[str, str] | None = manifest.get("redo")
    if force and redo is None:
        redo = found_results(out, cells)
    absent = {cell.key: missing_seeds(out, cell.identity, cell.seeds, redo or {}) for cell in cells}
    missing = [cell for cell in cells if absent[cell.key]]
    console = Console()
    if asked.left_out:
        labels = ", ".join(asked.left_out)
        console.print(f"left out, as their weights are not published (--weights LABEL=PATH): {labels}", highlight=False)
    if dry_run:
        print_estimate(asked, cells, missing, out, sum(map(len, absent.values())), console)
        return 0
    for check in dict.fromkeys(cell.check for cell in missing):  # before anything is written
        check()
    host = _host(out, len(missing), jobs, gpus, executor, slurm)
    _remember(out, asked, redo)
    _clear(out, [cell for cell in cells if not absent[cell.key]])
    outcomes = _run(Pool(host, out, redo or {}), missing, console)
    summary(outcomes, len(cells) - len(missing), console)
    failed = any(outcome.state == "failed" for outcome in outcomes)
    if not failed and redo is not None:
        _remember(out, asked, None)
    return int(failed)


def _check_options(contrary: bool, jobs: int | None, idle_slurm: bool) -> None:
    if contrary:
        raise RiceError("--only-missing and --force exclude each other; leave one out")
    if jobs is not None and jobs < 1:
        raise RiceError(f"--jobs takes a number of at least 1, got {jobs}")
    if idle_slurm:
        raise RiceError("--slurm has no effect without --executor slurm; add it")


def _run(pool: Pool, cells: Sequence[Cell], console: Console) -> list[Outcome]:
    if not cells:
        return []
    board = BarBoard(console, len(cells)) if console.is_terminal else LineBoard(console, len(cells))
    with board:
        return pool.run(cells, board)


def _host(
    out: Path, cells: int, jobs: int | None, gpus: str, executor: Literal["local", "slurm"], slurm: Sequence[str]
) -> Host:
    if executor == "slurm":
        options = parse_options(slurm)
        return SlurmHost(out, jobs or max(cells, 1), device_of(gpus, options), options)
    ids = find_gpus(gpus)
    return LocalHost(jobs or max(len(ids), 1), ids)


def _remember(out: Path, asked: Sweep, redo: dict[str, str] | None) -> None:
    """Write the manifest; what a killed sweep left half-written beside it goes.

    redo: of a --force that is not over, the results that it found.
    """
    document = {"schema": SCHEMA, "name": asked.name, "sweep": asked.as_json(), "redo": redo}
    make_folder(out)
    with FileLock(out / LOCK):  # other sweeps of this folder may begin at the same time
        for leftover in leftovers(out / MANIFEST):
            leftover.unlink()
        write_json(out / MANIFEST, document)


def _clear(out: Path, done: Iterable[Cell]) -> None:
    """Remove the probe's folder of cells that were killed between their last result and their end."""
    left = {path.name for path in (out / WORK).glob("*")}  # of a hundred thousand cells a few at most
    for cell in done:
        if cell.key in left:
            job = job_of(cell, out, redo={}, device="cpu")
            with contextlib.suppress(Timeout), FileLock(job.lock).acquire(timeout=0):
                shutil.rmtree(job.workdir, ignore_errors=True)


def _read_manifest(out: Path, asked: Sweep) -> dict[str, Any]:
    """What --out remembers; empty for a new folder. Errors: RiceError when it holds anything but this sweep."""
    if not out.exists():
        return {}
    if not out.is_dir():
        raise RiceError(f"--out {out} is a file; give a folder")
    if not (out / MANIFEST).exists():
        foreign = sorted(path.name for path in {*out.iterdir()} - {out / LOCK, *leftovers(out / MANIFEST)})
        if foreign:
            raise RiceError(f"--out {out} holds {foreign[0]!r}, which is no sweep's; give a new or empty folder")
        return {}
    manifest = read_json(out / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("name"), str):
        raise RiceError(f"{out / MANIFEST} is not of rice sweep; give another --out")
    if manifest["name"] != asked.name:
        raise RiceError(f"--out {out} holds the sweep {manifest['name']!r}, not {asked.name!r}; give another --out")
    return manifest
