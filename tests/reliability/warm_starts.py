"""Starts of `rice` that are forked from a process which has imported the large libraries: a fraction of the work.

For machines too busy for 30 starts of six commands (RICE_KILLS_WARM=1). What a killed import would show, this cannot.
Run as a script it is the server: a line of JSON on standard input for each start, and on standard output a line with
the process's id, then, when it has ended, one with its status.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

IMPORTED = ("torch", "transformers", "accelerate", "pandas", "scipy", "pyarrow.parquet", "matplotlib.pyplot")
IMPORTED += ("rice.train.build", "tracking.run", "mllm.llava.train", "rice.curate.pipeline")


class Server:
    """One start at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-u", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, words: Sequence[str], said: Path) -> "Started":
        """`rice WORDS`, in a process group of its own."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(words), str(said)]) + "\n")
        self._process.stdin.flush()
        return Started(int(self._process.stdout.readline()), self)

    def status(self) -> int:
        """Of the process that was started last; waits for its end."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


class Started:
    """What of subprocess.Popen is needed."""

    def __init__(self, pid: int, server: Server) -> None:
        self.pid, self._server = pid, server
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The status; None while it runs."""
        if self.returncode is None and self._ended():
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """For its end."""
        if self.returncode is None:
            self.returncode = self._server.status()
        return self.returncode

    def _ended(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True


def serve() -> None:
    """Until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        words, said = json.loads(line)
        pid = os.fork()
        if not pid:
            _run(words, said)
        with contextlib.suppress(OSError):  # whoever comes first, this or the process itself
            os.setpgid(pid, pid)
        answers.write(f"{pid}\n")
        answers.flush()
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        answers.flush()


def _run(words: Sequence[str], said: str) -> None:
    """In the forked process; does not return."""
    from rice.cli import main

    os.setpgid(0, 0)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    status = 1
    try:
        main(words)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
