"""Serves SmallDisk: in a mount namespace of its own it runs `rice` on a disk of a chosen size, or a read-only one.

`unshare -Urm python disk_server.py DISK`: needs no rights. Reads a JSON object a line, answers with one. Torch is
imported once; each command is a fork.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

DISK = Path(sys.argv[1])


def new_disk(size: int) -> dict[str, Any]:
    """An empty disk of `size` bytes in the place of the last one."""
    subprocess.run(["umount", DISK], check=False, capture_output=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", DISK], check=True)
    return {}


def change_disk(options: str) -> dict[str, Any]:
    """`size=N`, `ro` or `rw`."""
    subprocess.run(["mount", "-o", f"remount,{options}", DISK], check=True)
    return {}


def used() -> dict[str, Any]:
    """Bytes."""
    status = os.statvfs(DISK)
    return {"bytes": (status.f_blocks - status.f_bfree) * status.f_frsize}


def run(words: list[str], said: str, limit: float) -> dict[str, Any]:
    """`rice WORDS`, its standard output and error in the files SAID.out and SAID.err; its status, or its signal's."""
    child = os.fork()
    if child == 0:
        _become(words, said)
    end = time.monotonic() + limit
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # its cells
            return {"status": os.waitstatus_to_exitcode(status)}
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"status": "too long"}
        time.sleep(0.01)


def _become(words: list[str], said: str) -> None:
    os.setpgid(0, 0)
    for descriptor, suffix in ((1, "out"), (2, "err")):
        file = os.open(f"{said}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(file, descriptor)
        os.close(file)
    from rice.cli import main

    status: Any = 1
    try:
        main(words)
        status = 0
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import safetensors.torch  # noqa: F401
    import torch  # noqa: F401
    import tyro  # noqa: F401

    verbs = {"new_disk": new_disk, "change_disk": change_disk, "used": used, "run": run}
    for line in sys.stdin:
        asked = json.loads(line)
        answers.write(json.dumps(verbs[asked.pop("do")](**asked)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
