"""Stages on a Ray cluster, by Ray Data: an actor for each worker, a row for each shard.

All machines see OUT, and what else is named, under the paths that the command has. An actor or machine that dies takes
its shard with it, which Ray gives to another; a shard done twice is written twice with the same content.
"""

import logging
import os
import pickle
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rice.curate.config import EngineConfig
from rice.curate.engine import one_core
from rice.curate.stage import Stage, Work
from rice.errors import NO_ROOM, RiceError, out_of_room, require

_MOST_BLOCKS = 10_000
_ANSWER_S = 10.0
_ASK_HEAD_S, _HEAD_GONE_AFTER = 5.0, 5


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
            said = NO_ROOM if out_of_room(error) else error.strerror or error
            return {"pictures": 0, "error": f"{error.filename or row['shard']}: {said}"}
        return {"pictures": pictures, "error": ""}

    def _do(self, stage: Stage, shard: str) -> int:
        os.chdir(self.folder)
        with one_core():
            if self.stage is None or self.work is None or self.stage != stage:
                self.stage, self.work = stage, stage.open(self.device)
            return sum(1 for _ in self.stage.do(self.work, shard))  # which has its settings computed


def on_ray(stage: Stage, shards: Sequence[str], config: EngineConfig) -> Iterator[None]:
    """Yields once for every picture, a shard at a time. Errors: RiceError of a shard; for a GPU that is not there."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = require("ray", "ray")
    ray_data = require("ray.data", "ray")
    if not ray.is_initialized():
        _connect(ray)
        address = ray.get_runtime_context().gcs_address
        threading.Thread(target=_watch_head, args=(address,), name="ray-head", daemon=True).start()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what goes wrong comes back as an error
    resources = ray.cluster_resources()
    gpus = _gpus(stage, config.device, int(resources.get("GPU", 0)))
    if not (config.workers or gpus or resources.get("CPU")):
        raise RiceError("the Ray cluster has no processor; add a machine, or say by --workers how many are to come")
    # Without a number there is none: machines that join on the way get workers, and Ray has no more than fit.
    workers = min(config.workers or len(shards), len(shards))
    rows = [{"shard": shard, "stage": pickle.dumps(stage.only(shard))} for shard in shards]
    done = ray_data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS)).map(
        StageActor,
        fn_constructor_args=(str(Path.cwd()), "cuda" if gpus else "cpu"),
        compute=ray_data.ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    for row in _rows(ray, done):
        if row["error"]:
            raise RiceError(row["error"])
        yield from [None] * row["pictures"]


def _connect(ray: Any) -> None:
    """To the cluster of RAY_ADDRESS, or that of this machine, or a new one.

    Errors: RiceError where none answers, or it asks for a token: Ray has none ready where an address is named.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal() and "/" not in host:  # Ray itself asks for ten minutes and more, in silence
            socket.create_connection((host, int(port)), _ANSWER_S).close()
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:
        if not (address or isinstance(error, ConnectionError)):
            raise  # a disk that is full, or the like
        if "AuthenticationError" in "".join(traceback.format_exception(error)):  # Ray puts its cause into a text
            raise RiceError(
                f"the Ray cluster at {address or 'this machine'} asks for a token; set RAY_AUTH_MODE=token, with its "
                "token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
            ) from error
        raise RiceError(
            f"no Ray cluster answers at {address or 'this machine'}: {error.strerror or error}; "
            "start one with ray start --head, and say in RAY_ADDRESS where it is, or unset it"
        ) from error


def _watch_head(address: str) -> None:
    """Say that the head is gone, once: after a minute without it Ray ends the process, without a word or an error."""
    host, _, port = address.rpartition(":")
    missed = 0
    while missed < _HEAD_GONE_AFTER:
        time.sleep(_ASK_HEAD_S)
        try:
            socket.create_connection((host, int(port)), _ASK_HEAD_S).close()
            missed = 0
        except OSError:
            missed += 1
    print(  # noqa: T201
        f"rice: the head of the Ray cluster at {address} does not answer; if it stays away, Ray ends this command "
        "within a minute. On another cluster, or with --engine local, the same command resumes",
        file=sys.stderr,
    )


def _rows(ray: Any, done: Any) -> Iterator[dict[str, Any]]:
    """What the workers tell. Errors: RiceError where the cluster cannot go on: its head is gone, no worker starts."""
    try:
        yield from done.iter_rows()
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.UserCodeException):
            raise  # of our own code
        raise RiceError(f"Ray: {error}; once the cluster is well again, the same command resumes") from error


def _gpus(stage: Stage, device: str, there: int) -> int:
    if device not in ("auto", "cpu", "cuda"):
        raise RiceError(f"expected --device auto, cpu or cuda with --engine ray, got {device}; Ray picks which")
    if device == "cpu" or not stage.on_gpu():
        return 0
    if device == "cuda" and not there:
        raise RiceError("the Ray cluster has no GPU; take --device cpu, or machines that have one")
    return there
