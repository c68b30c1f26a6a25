"""Stages over shards: on this machine's cores or GPUs, or on a Ray cluster. The same stages, the same files.

Each worker has one core (or GPU): what a stage computes then depends neither on their number nor on the engine.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any

from rice.curate.config import EngineConfig
from rice.curate.stage import Stage, Work
from rice.errors import RiceError
from rice.progress import Progress

_POLL_S = 0.2
_ONE_CORE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_stage(stage: Stage, pictures: Mapping[str, int | None], config: EngineConfig, progress: Progress) -> None:
    """Do what is not done yet of the stage's shards. pictures: shard -> how many it has, where that is known.

    Errors: RiceError of a shard's work; of a worker that was killed.
    """
    stage.claim()
    todo = [shard for shard in pictures if not stage.finished(shard)]
    if not todo:
        return
    if config.engine == "ray":
        from rice.curate.ray_engine import on_ray

        ticks = on_ray(stage, todo, config)
    else:
        ticks = _here(stage, todo, config)
    counts = [pictures[shard] for shard in todo]
    known = [count for count in counts if count is not None]
    for _ in progress.track(ticks, stage.name, total=sum(known) if len(known) == len(counts) else None):
        pass


def _here(stage: Stage, shards: Sequence[str], config: EngineConfig) -> Iterator[None]:
    devices = _devices(config.device)
    workers = min(config.workers or len(devices), len(shards))
    return _alone(stage, shards, devices[0]) if workers == 1 else _pool(stage, shards, devices, workers)


def _devices(name: str) -> list[str]:
    """One for each worker: every GPU, or the CPU as many times as there are cores."""
    from rice.device import pick_device

    device = pick_device(name)
    if device.type != "cuda":
        return ["cpu"] * (os.cpu_count() or 1)
    import torch

    return [str(device)] if device.index is not None else [f"cuda:{k}" for k in range(torch.cuda.device_count())]


def _alone(stage: Stage, shards: Sequence[str], device: str) -> Iterator[None]:
    """In this process."""
    with one_core():
        work = stage.open(device)
        for shard in shards:
            yield from stage.do(work, shard)


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """torch computes on one core inside, whatever it did before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pool(stage: Stage, shards: Sequence[str], devices: Sequence[str], workers: int) -> Iterator[None]:
    """In processes of their own, which die with this one."""
    context = multiprocessing.get_context("spawn")
    progress = context.RawArray("q", len(shards))  # each shard has its own number: no lock that a killed worker holds
    number = context.Value("i", 0)
    with _environment(dict.fromkeys(_ONE_CORE, "1")):
        pool = ProcessPoolExecutor(workers, context, _begin, (stage, progress, number, tuple(devices)))
        try:
            waiting = {pool.submit(_do, k, shard) for k, shard in enumerate(shards)}
            seen = 0
            while waiting:
                finished, waiting = wait(waiting, timeout=_POLL_S)
                yield from [None] * (sum(progress) - seen)
                seen = sum(progress)
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise RiceError(
                f"a worker of {stage.name} was killed, perhaps for want of memory; the same command resumes, with "
                f"fewer --workers it needs less"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Of the processes that are started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_worker: dict[str, Any] = {}
"""What this process has, if it is a worker."""


def _begin(stage: Stage, progress: Any, number: Any, devices: tuple[str, ...]) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    with number.get_lock():
        device = devices[number.value % len(devices)]
        number.value += 1
    _worker.update(stage=stage, progress=progress, device=device)


def _die_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _do(number: int, shard: str) -> None:
    if "work" not in _worker:  # here, not in `_begin`, whose errors break the pool without a reason
        _worker["work"] = _worker["stage"].open(_worker["device"])
    stage: Stage = _worker["stage"]
    work: Work = _worker["work"]
    for _ in stage.do(work, shard):
        _worker["progress"][number] += 1
