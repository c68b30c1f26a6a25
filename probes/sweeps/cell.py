"""`python -m probes.sweeps.cell FILE`: one encoder x probe x dataset, all its seeds, in a process of its own.

Progress goes to standard output as lines (`rice.progress.LineProgress`), everything else to OUT/logs/KEY.log. Exit
status: 0 all seeds are stored; 1 failed, the log's last line says why; 75 another process is on this cell.
`--tied`: the process dies with its parent, see `probes.sweeps.lifeline`.
Imports no torch before the encoder is loaded.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from probes import provenance
from probes.protocol import Probe, probe_class
from probes.results import Result, check_metrics, items_path, kept_path, result_path, store
from probes.sweeps.datasets import dataset_fingerprint, dataset_root
from probes.sweeps.job import BUSY, DONE, FAILED, FAILURE_PREFIX, Job, read_job
from probes.sweeps.lifeline import tie_to_parent
from probes.sweeps.overrides import parse_config
from probes.sweeps.plan import missing_seeds
from rice.device import peak_memory
from rice.errors import NO_ROOM, RiceError, out_of_room
from rice.files import atomic_folder, atomic_write, leftovers
from rice.progress import LineProgress, Progress

if TYPE_CHECKING:
    from rice.encoders.base import Encoder

ITEMS_NAME, KEPT_NAME = "items.parquet", "kept"


def main(arguments: list[str]) -> int:
    """Compute the cell of a job file; the exit status."""
    if "--tied" in arguments:
        tie_to_parent()
    (file,) = (word for word in arguments if word != "--tied")
    job = read_job(Path(file))
    progress = LineProgress(_take_stdout(job.log))
    job.lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(job.lock).acquire(timeout=0):
            for leftover in leftovers(Path(file)):  # of a parent that was killed before it could start this cell
                leftover.unlink(missing_ok=True)
            return _attempt(job, progress)
    except Timeout:
        return BUSY


def _attempt(job: Job, progress: LineProgress) -> int:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    _say(f"=== {now} {job.encoder.label} {job.probe} {job.dataset.name} on {job.device}, process {os.getpid()}")
    try:
        run(job, progress)
    except (Exception, SystemExit) as error:  # whatever a probe does fails its own cell, with the reason
        with contextlib.suppress(OSError):
            traceback.print_exc()
        reason = f"{FAILURE_PREFIX}{_reason(error, job.device)}"
        progress.say(reason)  # a full disk takes no log
        _say(reason)
        return FAILED
    _say("cell finished")
    return DONE


def run(job: Job, progress: Progress) -> None:
    """Store a result for each seed that lacks one. The caller holds the cell's lock."""
    missing = missing_seeds(job.out, job.identity, job.seeds, job.redo)
    if missing:
        _compute(job, missing, progress)
    shutil.rmtree(job.workdir, ignore_errors=True)  # what stays is only disk: the results are stored


def _compute(job: Job, seeds: list[int], progress: Progress) -> None:
    from probes.sweeps.speed import images_per_second
    from rice.encoders.identity import fingerprint
    from rice.encoders.load import load_encoder

    cls = probe_class(job.probe)
    config: Any = parse_config(cls.Config, job.words, f"probe {job.probe}")
    probe = cls(config, dataset_root(job.dataset, job.out, progress))
    if dataset_fingerprint(job.dataset, probe) != job.identity.dataset_fingerprint:
        raise RiceError(f"dataset {job.dataset.name} changed since the sweep was planned; run the sweep again")
    reference, weights = job.encoder.reference, job.encoder.weights
    encoder = load_encoder(str(reference), weights=weights, device=job.device, allow_pickle=job.encoder.allow_pickle)
    # Hashed after loading: equal to the plan's hash, it is the hash of what was loaded.
    if fingerprint(reference, weights) != job.identity.encoder_fingerprint:
        raise RiceError(f"the weights of {reference} changed since the sweep was planned; run the sweep again")
    if job.identity.size is None:
        raise RiceError(f"the job for {reference} does not say at which size; plan the sweep again")
    speed = images_per_second(encoder, job.identity.size)
    blank = Result(
        encoder=job.encoder.label,
        reference=str(reference),
        weights=encoder.weights,
        trained=encoder.trained,
        encoder_spec=dataclasses.asdict(encoder.spec),
        identity=job.identity,
        seed=-1,
        dataset=job.dataset.name,
        tokens=job.tokens,
        gflops=job.gflops,
        images_per_s=speed,
        resolved_config=json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        metrics=(),
        versions=provenance.versions(),
        commit=provenance.commit(),
        device=provenance.device_name(job.device),
        seconds=0.0,
        peak_memory={},
        finished="",
    )
    for seed in seeds:
        _say(f"--- seed {seed}")
        _seed(job, probe, encoder, dataclasses.replace(blank, seed=seed), progress)


def _seed(job: Job, probe: Probe, encoder: "Encoder", blank: Result, progress: Progress) -> None:
    """Run one seed and store it: what lies beside the result first, since a result promises it."""
    target = kept_path(job.out, blank.key)
    for path in (result_path(job.out, blank.key), items_path(job.out, blank.key)):
        for leftover in leftovers(path):  # we hold the lock
            leftover.unlink()
    for leftover in (*leftovers(target), target, job.workdir / KEPT_NAME):
        shutil.rmtree(leftover, ignore_errors=True)
    job.workdir.mkdir(parents=True, exist_ok=True)
    items = job.workdir / ITEMS_NAME
    items.unlink(missing_ok=True)
    start = time.monotonic()
    metrics = check_metrics(probe.run(encoder, seed=blank.seed, workdir=job.workdir, progress=progress))
    seconds = time.monotonic() - start
    if items.exists():
        with items.open("rb") as source, atomic_write(items_path(job.out, blank.key), "wb") as copy:
            shutil.copyfileobj(source, copy)
    if (job.workdir / KEPT_NAME).exists():
        with atomic_folder(target) as folder:
            shutil.copytree(job.workdir / KEPT_NAME, folder, dirs_exist_ok=True)
    result = dataclasses.replace(
        blank,
        metrics=metrics,
        seconds=seconds,
        peak_memory=peak_memory(job.device),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    store(job.out, result)


def _reason(error: BaseException, device: str) -> str:
    if isinstance(error, MemoryError):
        return "out of memory on the host"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return f"out of memory on {device}"
    if out_of_room(error) and not isinstance(error, RiceError):
        return NO_ROOM
    text = " ".join(str(error).split())
    return text if isinstance(error, RiceError) else f"{type(error).__name__}: {text}"


def _take_stdout(log: Path) -> IO[str]:
    """The real standard output for progress alone; whatever else is printed, also by native code, goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    return own


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the log is for a person: a full disk shall end the cell where it stores
        print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
