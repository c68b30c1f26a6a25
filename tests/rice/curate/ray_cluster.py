"""Ray itself on one machine: a head and other nodes, each a raylet with an address, a core and workers of its own.

All nodes share this machine's disk and clock: a node that is lost takes its processes and what they held in memory
with it, but no file. Needs Linux, for its many addresses of one machine.
`python ray_cluster.py FOLDER` starts one to look at, and prints the variables that make `rice curate --engine ray`
use it. Sockets lie below FOLDER, whose name has to be short.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HEAD = "node0"
_RAY = "from ray.scripts.scripts import main; main()"
_NODE = ("--num-cpus=1", "--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0")
_FOR_ALL = ("--block", "--disable-usage-stats", "--include-log-monitor=false")
_PATIENT = {
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_port_wait_time_s": "600",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",
    "RAY_NUM_REDIS_GET_RETRIES": "200",
}
"""On a busy machine all takes minutes."""
_TARGETS = str(Path(__file__).parent)
_AGENTS = ("dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent", "metrics-export")
"""Whose ports are given: a raylet that has to ask for them waits for half a minute only."""
_ADDRESS = re.compile(r"--address='([^']+)'")
_STARTED = "Ray runtime started"


@dataclass
class Cluster:
    """A running one. Commands find it by the address in their environment, and are let in by the token there."""

    folder: Path
    address: str = ""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    nodes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _count: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """For commands that shall use it."""
        return os.environ | {"RAY_ADDRESS": self.address} | self._auth

    @property
    def _auth(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start_head(self) -> None:
        """Begins a cluster."""
        (port,) = _free_ports(1)
        where = (f"--port={port}", f"--temp-dir={self.folder}", "--include-dashboard=false")
        self._start(HEAD, "--head", *where)
        found = _ADDRESS.search(self._log(HEAD).read_text())
        assert found is not None, self._log(HEAD)
        self.address = found[1]

    def start_node(self) -> str:
        """Another one, with an address that none had before; its name."""
        self._count += 1
        name = f"node{self._count}"
        self._start(name, f"--address={self.address}", f"--node-ip-address=127.0.1.{self._count}")
        return name

    def workers(self, name: str) -> list[psutil.Process]:
        """Those of a node that are doing a shard."""
        return [process for process in self._processes(name) if _title(process).startswith("ray::MapWorker")]

    def kill(self, name: str) -> int:
        """As a power cut does: the raylet, its workers and all the rest, at once. How many processes that were."""
        victims = self._processes(name)
        for signal_ in (signal.SIGSTOP, signal.SIGKILL):  # nobody shall see another's end and act on it
            for victim in victims:
                with contextlib.suppress(psutil.Error):
                    victim.send_signal(signal_)
        self.nodes.pop(name).wait()
        return len(victims)

    def stop(self) -> None:
        """All nodes."""
        for name in list(self.nodes):
            self.kill(name)

    def _start(self, name: str, *words: str) -> None:
        ports = [f"--{name}-port={port}" for name, port in zip(_AGENTS, _free_ports(len(_AGENTS)), strict=True)]
        command = [sys.executable, "-c", _RAY, "start", *words, *ports, *_NODE, *_FOR_ALL]
        path = os.pathsep.join(filter(None, (_TARGETS, os.environ.get("PYTHONPATH"))))
        with self._log(name).open("wb") as log:
            environment = os.environ | _PATIENT | self._auth | {"PYTHONPATH": path}
            self.nodes[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 900
        while _STARTED not in self._log(name).read_text(errors="replace"):
            ended = self.nodes[name].poll() is not None or time.monotonic() > end
            assert not ended, f"{name} does not start: {self._log(name).read_text(errors='replace')[-3000:]}"
            time.sleep(0.2)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _processes(self, name: str) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            node = psutil.Process(self.nodes[name].pid)
            return [node, *node.children(recursive=True)]
        return []


@contextlib.contextmanager
def cluster(folder: Path, nodes: int = 2) -> Iterator[Cluster]:
    """One whose nodes have started."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Cluster(folder)
    try:
        found.start_head()
        for _ in range(nodes - 1):
            found.start_node()
        yield found
    finally:
        found.stop()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    with cluster(Path(sys.argv[1]).absolute()) as running:
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            print(f"export {name}={running.environment[name]}")
        print("ends with Ctrl-C", flush=True)
        signal.pause()
