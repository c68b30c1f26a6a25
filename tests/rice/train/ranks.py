"""Ranks of a run as processes that start in a fraction of a second, and can be killed.

A server process imports torch once; every rank is forked from it. The target is a module-level function of a module
beside this one (the server finds it by name), called as `target(*arguments)` after the default gloo group is formed.
"""

import importlib
import multiprocessing
import os
import pickle
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PRELOADED = [
    "pytest",
    "open_clip",
    "torch.distributed.checkpoint.state_dict_saver",
    "torch.distributed.tensor",
    "torch._dynamo",
    "rice.train.state",
]
"""What the server imports, so that no rank pays for it."""

_report: Connection | None = None


def report(*words: Any) -> None:
    """In a rank: tell the parent how far this is, e.g. report("step", 7)."""
    if _report is not None:
        _send(_report, "report", words)


class Ranks:
    """`world` running ranks of one run; in the parent. Results and reports come over a pipe each."""

    def __init__(
        self, world: int, target: Callable[..., Any], *arguments: Any, join: bool = True, **named: Any
    ) -> None:
        """join: whether a gloo group is formed for the target; else it finds torchrun's variables and forms its own."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.reports: list[tuple[Any, ...]] = []
        self._results: dict[int, tuple[str, Any]] = {}
        self._pipes: list[Connection] = []
        self.processes = []
        meeting = tempfile.mktemp(prefix="ranks-") if join else ""
        self._meeting = Path(meeting) if join else None
        port = _free_port()
        for rank in range(world):
            mine, theirs = context.Pipe(duplex=False)
            name = (target.__module__, target.__name__)
            process = context.Process(target=_rank, args=(rank, world, meeting, port, theirs, name, arguments, named))
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self.processes.append(process)

    def kill(self) -> None:
        """SIGKILL to all, at once; returns when none is left and all that they had reported is heard."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        while self._listen(0):
            pass
        if self._meeting is not None:
            self._meeting.unlink(missing_ok=True)

    def wait_for(self, *words: Any, timeout: float = 120) -> None:
        """Until some rank has reported something that begins with `words`. No rank may end before."""
        end = time.monotonic() + timeout
        while not any(heard[: len(words)] == words for heard in self.reports):
            waits = self._listen(0.01) and time.monotonic() < end
            assert waits, f"nobody reported {words}: {self.reports[-5:]} {self._results}"

    def results(self, timeout: float = 120) -> list[Any]:
        """Each rank's return value; the first failure's traceback as an AssertionError; no rank may hang."""
        end = time.monotonic() + timeout
        while self._listen(0.05):
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"ranks hang: {self._results}, heard {self.reports[-5:]}")
        for process in self.processes:
            process.join()
        world = range(len(self.processes))
        for rank in world:
            kind, value = self._results.get(rank, ("died", self.processes[rank].exitcode))
            assert kind == "returned", f"rank {rank} {kind}: {value}"
        return [self._results[rank][1] for rank in world]

    def _listen(self, seconds: float) -> bool:
        """Take in what has come; whether more may come."""
        open_pipes = [pipe for pipe in self._pipes if not pipe.closed]
        ready = multiprocessing.connection.wait(open_pipes, seconds) if open_pipes else []
        for pipe in ready:
            rank = self._pipes.index(pipe)
            try:
                kind, value = pickle.loads(pipe.recv_bytes())
            except (EOFError, OSError):  # ended, or killed inside a message
                pipe.close()
                continue
            if kind == "report":
                self.reports.append(value)
            else:
                self._results[rank] = (kind, value)
        return bool(open_pipes)


def _rank(
    rank: int,
    world: int,
    meeting: str,
    port: int,
    pipe: Connection,
    name: tuple[str, str],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    global _report
    _report = pipe
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.path.insert(0, str(HERE))
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        if meeting:
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
        target = getattr(importlib.import_module(name[0]), name[1])
        _send(pipe, "returned", target(*arguments, **named))
    except BaseException:
        _send(pipe, "raised", traceback.format_exc())
    finally:
        pipe.close()


def _send(pipe: Connection, kind: str, value: Any) -> None:
    pipe.send_bytes(pickle.dumps((kind, value)))  # a connection's own pickling passes tensors by their sender's memory


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
