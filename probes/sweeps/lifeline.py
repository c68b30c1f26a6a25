"""Ties a process to its parent: when the parent dies, however it dies, this process and all its children die too."""

import os
import signal
import subprocess

_GUARD = "cat >/dev/null; kill -s KILL 0"
"""Reads until the pipe ends, then kills its own process group. A process of its own: a thread here would have to wait
for native code that holds the interpreter lock, and would be gone when this process alone is killed."""


def tie_to_parent() -> None:
    """Die at the end of standard input: a pipe whose other end only the parent holds.

    The process must lead its own group (`start_new_session=True`), so that its children die with it. Afterwards
    standard input is empty. The guard lives until the group is killed: `kill_group`.
    """
    if os.getpgid(0) != os.getpid():
        raise RuntimeError("a tied process must lead its own process group, else its death would take others along")
    subprocess.Popen(["sh", "-c", _GUARD], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def kill_group(pid: int) -> None:
    """Kill what is left of the process group that `pid` leads; call it before `pid` is reaped and may be reused."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all gone already
    except PermissionError:  # what macOS says of a group of zombies
        return
