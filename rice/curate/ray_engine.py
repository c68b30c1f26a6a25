"""Stages on a Ray cluster, by Ray Data: an actor for each worker, a row for each shard.

All machines see OUT, and what else is named, under the paths that the command has. An actor or machine that dies takes
its shard with it, which Ray gives to another; a shard done twice is written twice with the same content.
"""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rice.curate.config import EngineConfig
from rice.curate.engine import one_core
from rice.curate.stage import Stage, Work
from rice.errors import RiceError, require

_MOST_BLOCKS = 10_000


class StageActor:
    """One worker: loads what the stage needs once. folder: the command's, in which relative names mean something."""

    def __init__(self, folder: str, device: str) -> None:
        self.folder, self.device = folder, device
        self.stage: Stage | None = None
        self.work: Work | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one shard; an error that the user can mend comes back as a text, since Ray wraps errors in its own."""
        try:
            pictures = self._do(pickle.loads(row["stage"]), row["shard"])  # by our own command
        except RiceError as error:
            return {"pictures": 0, "error": str(error)}
        except OSError as error:
            return {"pictures": 0, "error": f"{error.filename or row['shard']}: {error.strerror or error}"}
        return {"pictures": pictures, "error": ""}

    def _do(self, stage: Stage, shard: str) -> int:
        os.chdir(self.folder)
        with one_core():
            if self.stage is None or self.work is None or self.stage != stage:
                self.stage, self.work = stage, stage.open(self.device)
            return sum(1 for _ in self.stage.do(self.work, shard))  # which has its settings computed


def on_ray(stage: Stage, shards: Sequence[str], config: EngineConfig) -> Iterator[None]:
    """Yields once for every picture, a shard at a time. Errors: RiceError of a shard; for a GPU that is not there."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong comes back as an error
    ray = require("ray", "ray")
    ray_data = require("ray.data", "ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    resources = ray.cluster_resources()
    gpus = _gpus(stage, config.device, int(resources.get("GPU", 0)))
    workers = min(config.workers or gpus or int(resources["CPU"]), len(shards))
    rows = [{"shard": shard, "stage": pickle.dumps(stage.only(shard))} for shard in shards]
    done = ray_data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS)).map(
        StageActor,
        fn_constructor_args=(str(Path.cwd()), "cuda" if gpus else "cpu"),
        compute=ray_data.ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise RiceError(row["error"])
        yield from [None] * row["pictures"]


def _gpus(stage: Stage, device: str, there: int) -> int:
    if device not in ("auto", "cpu", "cuda"):
        raise RiceError(f"expected --device auto, cpu or cuda with --engine ray, got {device}; Ray picks which")
    if device == "cpu" or not stage.on_gpu():
        return 0
    if device == "cuda" and not there:
        raise RiceError("the Ray cluster has no GPU; take --device cpu, or machines that have one")
    return there
