"""A stage that workers in other processes can import: it writes how often it was asked, and fails where it is told."""

import os
import signal
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rice.curate.stage import Done, Stage, Work
from rice.errors import RiceError
from rice.files import atomic_write


@dataclass(frozen=True)
class Counting(Stage):
    """Writes SHARD.txt. broken: a shard whose work is refused; deadly: one that kills its worker.

    While OUT/hold is there, every shard stays in its middle.
    """

    out: Path
    setting: int = 1
    broken: str = ""
    deadly: str = ""
    sources: dict[str, str] = field(default_factory=dict)

    name: ClassVar[str] = "counting"

    def settings(self) -> dict[str, Any]:
        return {"setting": self.setting}

    def inputs(self, shard: str) -> list[str]:
        return [self.sources.get(shard, "")]

    def open(self, device: str) -> Work:
        with (self.out / "opened.txt").open("a") as file:
            file.write(f"{os.getpid()} {device} {os.environ.get('OMP_NUM_THREADS')}\n")
        return self._work

    def _work(self, shard: str) -> Generator[None, None, Done]:
        if shard == self.broken:
            raise RiceError(f"{shard} is broken")
        if shard == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        with (self.out / "begun.txt").open("a") as file:
            file.write(f"{shard} {os.getpid()}\n")
        for _ in range(3):
            yield
        while (self.out / "hold").exists():
            time.sleep(0.05)
        path = self.folder / f"{shard}.txt"
        with atomic_write(path) as file:
            file.write(f"{shard} {self.setting} {self.sources.get(shard, '')}")
        with (self.out / "done.txt").open("a") as file:
            file.write(f"{shard}\n")
        return Done(products=(path,), counts=Counter(pictures=3), drops=Counter(bad=1))
