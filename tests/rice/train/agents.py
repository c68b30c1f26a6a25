"""torchrun's agents on this machine, each as one node of a run: their ranks are found, and killed one by one or all.

All agents share this machine's disk, as the nodes of a cluster share the folder that a run writes to.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

AT_MOST = 1800.0
"""Seconds that anything may take on a busy machine."""
ONE_CORE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""torchrun's one store for all restarts has addresses of a life before (torch 2.15): docs/scaling.md says so."""


class Agent:
    """A running torchrun. What it and its ranks say goes to `log`."""

    def __init__(self, log: Path, options: tuple[str, ...], command: tuple[str, ...]) -> None:
        words = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "rice.cli", *command]
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(words, env=os.environ | ONE_CORE | OWN_STORE, stdout=file, stderr=file)

    def ranks(self) -> dict[int, psutil.Process]:
        """Those that have begun: rank -> process."""
        found = {}
        for child in _children(self.process.pid, recursive=False):
            with contextlib.suppress(psutil.Error, KeyError):
                if "rice.cli" in child.cmdline():
                    found[int(child.environ()["RANK"])] = child
        return found

    def kill(self) -> int:
        """As a power cut does: agent, ranks, and what they have started, at once. How many processes that were."""
        victims = [*_children(self.process.pid, recursive=True)]
        for signal_ in (signal.SIGSTOP, signal.SIGKILL):  # nobody shall see another's end and act on it
            for victim in (psutil.Process(self.process.pid), *victims):
                with contextlib.suppress(psutil.Error):
                    victim.send_signal(signal_)
        self.process.wait()
        return 1 + len(victims)

    def finished(self, timeout: float = AT_MOST) -> int:
        """Its status, once it has ended by itself."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"torchrun hangs; its last words: {self.said()[-3000:]}") from None

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def agents() -> Iterator[Callable[..., Agent]]:
    """start(log, options, command) -> Agent; those that still run at the end are killed."""
    started: list[Agent] = []

    def start(log: Path, options: tuple[str, ...], command: tuple[str, ...]) -> Agent:
        started.append(Agent(log, options, command))
        return started[-1]

    try:
        yield start
    finally:
        for agent in started:
            if agent.process.poll() is None:
                agent.kill()


def until(condition: Callable[[], object], agent: Agent, timeout: float = AT_MOST) -> float:
    """Wait for it; how many seconds that took. Neither may the agent end before, nor that time pass."""
    begin = time.monotonic()
    while not condition():
        waited = time.monotonic() - begin
        assert agent.process.poll() is None, f"torchrun ended with {agent.process.returncode}: {agent.said()[-3000:]}"
        assert waited < timeout, f"it never came; torchrun's last words: {agent.said()[-3000:]}"
        time.sleep(0.002)
    return time.monotonic() - begin


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _children(process: int, *, recursive: bool) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=recursive)
    except psutil.NoSuchProcess:
        return []
