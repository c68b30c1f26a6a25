"""A disk of a chosen size, which may be full or read-only, without any rights: a tmpfs in a namespace of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = Path(__file__).parent / "disk_server.py"


@dataclass(frozen=True)
class Ran:
    """How a command ended, and all that it printed."""

    status: int | str
    out: str
    err: str


class SmallDisk:
    """`folder` is the disk where its commands run; `seen` is the same for this process, which is outside."""

    def __init__(self, server: "subprocess.Popen[str]", folder: Path, words: Path) -> None:
        self._server, self.folder, self._words = server, folder, words
        self.seen = Path(f"/proc/{server.pid}/root{folder}")

    def new(self, size: int) -> None:
        """An empty disk of that many bytes."""
        self._ask("new_disk", size=size)

    def grow(self, size: int) -> None:
        """Room is made."""
        self._ask("change_disk", options=f"size={size}")

    def read_only(self, yes: bool) -> None:
        """Whether nothing can be written any more."""
        self._ask("change_disk", options="ro" if yes else "rw")

    def used(self) -> int:
        """Bytes."""
        count: int = self._ask("used")["bytes"]
        return count

    def rice(self, *words: object, limit: float = 1500) -> Ran:
        """`rice WORDS`, where the disk is mounted."""
        said = self._words / "said"
        status = self._ask("run", words=[str(word) for word in words], said=str(said), limit=limit)["status"]
        out, err = (said.with_suffix(suffix).read_text(errors="replace") for suffix in (".out", ".err"))
        return Ran(status, out, err)

    def _ask(self, verb: str, **asked: Any) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({"do": verb, **asked}) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the disk's server died"
        found: dict[str, Any] = json.loads(answer)
        return found


def why_not() -> str | None:
    """Why there can be no small disk here, if so."""
    if shutil.which("unshare") is None:
        return "needs unshare (util-linux)"
    tried = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    refused = subprocess.run(tried, capture_output=True, text=True, check=False)
    return f"no mount namespace of one's own: {refused.stderr.strip()}" if refused.returncode else None


@contextmanager
def small_disk(root: Path) -> Iterator[SmallDisk]:
    """A server, and its disk under `root`."""
    (root / "disk").mkdir()
    command = ["unshare", "-Urm", sys.executable, str(SERVER), str(root / "disk")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "COLUMNS": "300"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
    ) as server:
        disk = SmallDisk(server, root / "disk", root)
        disk.new(1 << 20)
        try:
            yield disk
        finally:
            assert server.stdin is not None
            server.stdin.close()
