"""SLURM itself on one machine: a controller and two nodes, without accounting, run by whoever runs the tests.

Needs Debian's slurmctld, slurmd, slurm-client and munge, or the like. `python slurm_cluster.py FOLDER` starts one to
look at, and prints the variable that makes `sinfo`, `squeue` and `rice sweep --executor slurm` use it.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "scontrol", "scancel")
NODES = ("node0", "node1")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

_CONF = """
ClusterName=rice
SlurmctldHost={host}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldPort={ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdTimeout=10
KillWait=2
MinJobAge=600
SchedulerParameters=sched_interval=1
NodeName=node0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=500 State=UNKNOWN
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=500 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


@dataclass
class Cluster:
    """A running one. Its commands find it by `SLURM_CONF`."""

    folder: Path
    daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    def ask(self, *words: str) -> str:
        """What a command of SLURM prints."""
        environment = os.environ | {"SLURM_CONF": str(self.conf), "PATH": _PATH}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Job -> (state, node), of those that have not ended."""
        lines = [line.split("|") for line in self.ask("squeue", "-h", "-o", "%i|%T|%N").splitlines()]
        return {job: (state, node) for job, state, node in lines}

    def start(self, name: str, *words: str) -> None:
        """A daemon in the foreground, as a child of this process."""
        log = (self.folder / f"{name}.log").open("ab")
        environment = os.environ | {"SLURM_CONF": str(self.conf), "PATH": _PATH}
        self.daemons[name] = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)

    def start_node(self, name: str) -> None:
        """Its daemon."""
        self.start(name, "slurmd", "-D", "-N", name, "-f", str(self.conf))

    def kill_node(self, name: str, job: str) -> None:
        """As a power cut does: its daemon, and all processes of the job that runs there, at once."""
        self.daemons[name].kill()
        self.daemons.pop(name).wait()
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if words.startswith(f"slurmstepd: [{job}."):
                for one in [*process.children(recursive=True), process]:
                    with suppress(psutil.NoSuchProcess):
                        one.kill()

    def stop(self) -> None:
        """All daemons, and all jobs."""
        with suppress(subprocess.SubprocessError, OSError):
            self.ask("scancel", "--signal=KILL", "--full", *self.jobs())
        for process in psutil.process_iter(["cmdline", "environ"]):
            if "slurmstepd" in " ".join(process.info["cmdline"] or ()) and str(self.folder) in str(
                process.info["environ"]
            ):
                for one in [*process.children(recursive=True), process]:
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
        for daemon in self.daemons.values():
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """One that is ready."""
    host = socket.gethostname().split(".")[0]
    (folder / "state").mkdir(parents=True)
    for name in NODES:
        (folder / f"spool-{name}").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    folder.chmod(0o755)
    (folder / "slurm.conf").write_text(_CONF.format(host=host, user=getpass.getuser(), folder=folder, ports=_ports(3)))
    found = Cluster(folder)
    names = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    try:
        places = [f"--{option}={folder}/munge.{suffix}" for option, suffix in names.items()]
        found.start("munge", "munged", "--foreground", "--force", *places)
        _wait(lambda: (folder / "munge.socket").exists())
        found.start("slurmctld", "slurmctld", "-D", "-f", str(found.conf))
        for name in NODES:
            found.start_node(name)
        _wait(lambda: _idle(found) == len(NODES))
        yield found
    finally:
        found.stop()


def _idle(found: Cluster) -> int:
    try:
        return found.ask("sinfo", "-h", "-N", "-o", "%T").split().count("idle")
    except subprocess.CalledProcessError:
        return 0


def _wait(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            raise TimeoutError("SLURM did not start; see the logs in its folder")
        time.sleep(0.2)


def _ports(count: int) -> list[int]:
    """Free ones."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    with cluster(Path(sys.argv[1]).absolute()) as running:
        print(f"export SLURM_CONF={running.conf}\nends with Ctrl-C")
        signal.pause()
