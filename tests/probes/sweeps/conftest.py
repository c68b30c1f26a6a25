"""A sweep with fake encoders and a fake probe, run as a user would: by the command, in processes of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
FAKES = Path(__file__).parent / "fakes"


@dataclass(frozen=True)
class SweepRoom:
    """A folder with datasets `one` and `two`, sweep files and an --out."""

    root: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def diary(self) -> list[list[str]]:
        """What the fake probe did: [event, cell, seed, process]."""
        path = self.root / "diary"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def document(self, **changes: Any) -> dict[str, Any]:
        """A sweep of two encoders on two datasets with two seeds: four cells, eight results."""
        whole = {
            "name": "room",
            "encoders": ["fake-a", "fake-b"],
            "datasets": {"one": {"path": "one"}, "two": {"path": "two"}},
            "probes": [self.probe(data=["one", "two"])],
            "seeds": 2,
        }
        return whole | changes

    @staticmethod
    def probe(**changes: Any) -> dict[str, Any]:
        """The fake probe in a sweep file, with overrides."""
        return {"probe": "fake_probe:FakeProbe", "data": ["one"]} | changes

    def write(self, document: dict[str, Any] | str) -> Path:
        """A sweep file."""
        path = self.root / "sweep.yaml"
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return path

    def start(self, *arguments: str, **changes: Any) -> "subprocess.Popen[str]":
        """`rice sweep` of a document, not waited for."""
        path = self.write(self.document(**changes))
        return self.command(str(path), "--out", str(self.out), *arguments)

    def command(self, *arguments: str) -> "subprocess.Popen[str]":
        """`rice sweep` with the fakes on the Python path."""
        return self._python("-m", "rice.cli", "sweep", *arguments)

    def python(self, *arguments: str) -> str:
        """All that a Python process prints which sees the fakes."""
        status, said = self.finished(self._python(*arguments))
        assert status == 0, said
        return said

    def _python(self, *arguments: str) -> "subprocess.Popen[str]":
        path = os.pathsep.join(filter(None, (str(FAKES), os.environ.get("PYTHONPATH"))))
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | {"PYTHONPATH": path, "FAKE_DIARY": str(self.root / "diary"), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.root,
            preexec_fn=_heed_interrupts,
        )

    def run(self, *arguments: str, **changes: Any) -> tuple[int, str]:
        """`rice sweep` of a document: exit status and all that it printed."""
        return self.finished(self.start(*arguments, **changes))

    @staticmethod
    def finished(process: "subprocess.Popen[str]") -> tuple[int, str]:
        """Wait for a process: exit status and all that it printed."""
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def results(self) -> dict[str, bytes]:
        """Stored results, by file name."""
        return {path.name: path.read_bytes() for path in sorted((self.out / "results").glob("*"))}

    def temporaries(self) -> Sequence[Path]:
        """Half-written files."""
        return list(self.out.rglob("*.tmp"))


def _heed_interrupts() -> None:
    """A shell starts background jobs deaf to SIGINT, and their children inherit it: tests may run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def room(tmp_path: Path) -> SweepRoom:
    """See SweepRoom."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text(name)
    return SweepRoom(tmp_path)
