"""Stages on a Ray cluster, by Ray Data: an actor for each worker, a task for each shard.

All machines see OUT under one path. An actor or machine that dies takes its shard with it, which Ray gives to another;
a shard done twice is written twice with the same content.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from rice.curate.config import EngineConfig
from rice.curate.engine import one_core
from rice.curate.stage import Stage
from rice.errors import RiceError, require


class StageActor:
    """One worker: loads what the stage needs once."""

    def __init__(self, stage: Stage, device: str) -> None:
        self.stage = stage
        self.work = stage.open(device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one shard; an error that the user can mend comes back as a text, since Ray wraps errors in its own."""
        try:
            with one_core():
                pictures = sum(1 for _ in self.stage.do(self.work, row["shard"]))
        except RiceError as error:
            return {"shard": row["shard"], "pictures": 0, "error": str(error)}
        return {"shard": row["shard"], "pictures": pictures, "error": ""}


def on_ray(stage: Stage, shards: Sequence[str], config: EngineConfig) -> Iterator[None]:
    """Yields once for every picture, a shard at a time. Errors: RiceError of a shard."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong comes back as an error
    ray = require("ray", "ray")
    ray_data = require("ray.data", "ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if config.device != "cpu" and stage.on_gpu() else 0
    workers = min(config.workers or gpus or int(resources["CPU"]), len(shards))
    rows = ray_data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    done = rows.map(
        StageActor,
        fn_constructor_args=(stage, "cuda" if gpus else "cpu"),
        compute=ray_data.ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise RiceError(row["error"])
        yield from [None] * row["pictures"]
