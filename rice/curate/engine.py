"""Stages over shards: on this machine's cores or GPUs, or on a Ray cluster. The same stages, the same files.

Each worker has one core (or GPU): what a stage computes then depends neither on their number nor on the engine.
"""

import contextlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any

from rice.curate.config import EngineConfig
from rice.curate.stage import Stage
from rice.errors import RiceError
from rice.progress import Progress

_POLL_S = 0.2
_AHEAD = 4
"""Shards for each worker that are given out before they are done."""
_ONE_CORE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Engine:
    """Runs stages. Its workers live from the first stage to the last: to start one takes seconds.

    shards: the most that any stage has.
    """

    def __init__(self, config: EngineConfig, shards: int) -> None:
        self.config = config
        self.shards = shards
        self._pools: dict[str, _Pool] = {}

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.close()

    def run(self, stage: Stage, pictures: Mapping[str, int | None], progress: Progress) -> None:
        """Do what is not done yet of the stage's shards. pictures: shard -> how many it has, where that is known.

        Errors: RiceError of a shard's work; of a worker that was killed.
        """
        stage.claim()
        todo = [shard for shard in pictures if not stage.finished(shard)]
        if not todo:
            return
        counts = [pictures[shard] for shard in todo]
        known = [count for count in counts if count is not None]
        total = sum(known) if len(known) == len(counts) else None
        for _ in progress.track(self._ticks(stage, todo), stage.name, total=total):
            pass

    def _ticks(self, stage: Stage, todo: Sequence[str]) -> Iterator[None]:
        if self.config.engine == "ray":
            from rice.curate.ray_engine import on_ray

            return on_ray(stage, todo, self.config)
        devices = _devices(self.config.device if stage.on_gpu() else "cpu")
        workers = min(self.config.workers or len(devices), self.shards)
        if workers == 1:
            return _alone(stage, todo, devices[0])
        if devices[0] not in self._pools:
            self._pools[devices[0]] = _Pool(workers, devices, self.shards)
        return self._pools[devices[0]].ticks(stage, todo)


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


class _Pool:
    """Processes that die with this one."""

    def __init__(self, workers: int, devices: Sequence[str], shards: int) -> None:
        context = multiprocessing.get_context("spawn")
        # Each shard at work has its own number: no lock that a killed worker could hold.
        self._progress = context.RawArray("q", min(shards, _AHEAD * workers))
        number = context.Value("i", 0)
        self._executor = ProcessPoolExecutor(workers, context, _begin, (self._progress, number, tuple(devices)))

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def ticks(self, stage: Stage, shards: Sequence[str]) -> Iterator[None]:
        free, left = list(range(len(self._progress))), iter(shards)
        waiting: dict[Future[None], int] = {}
        ended = seen = 0
        try:
            while True:
                for shard in itertools.islice(left, len(free)):
                    slot = free.pop()
                    self._progress[slot] = 0
                    with _environment(dict.fromkeys(_ONE_CORE, "1")):  # processes are started as they are needed
                        waiting[self._executor.submit(_do, stage.only(shard), slot, shard)] = slot
                if not waiting:
                    return
                finished, _ = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                now = ended + sum(self._progress[slot] for slot in waiting.values())
                yield from [None] * (now - seen)
                seen = now
                for future in finished:
                    free.append(waiting.pop(future))
                    ended += self._progress[free[-1]]
                    future.result()
        except BrokenProcessPool as error:
            raise RiceError(
                f"a worker of {stage.name} was killed, perhaps for want of memory; the same command resumes, with "
                f"fewer --workers it needs less"
            ) from error


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


def _begin(progress: Any, number: Any, devices: tuple[str, ...]) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    with number.get_lock():
        device = devices[number.value % len(devices)]
        number.value += 1
    _worker.update(progress=progress, device=device, stage=None)


def _die_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _do(stage: Stage, number: int, shard: str) -> None:
    if _worker["stage"] != stage:
        _worker["work"] = None  # the last stage's model goes before the next one's comes
        _worker.update(stage=stage, work=stage.open(_worker["device"]))
    for _ in _worker["stage"].do(_worker["work"], shard):
        _worker["progress"][number] += 1
