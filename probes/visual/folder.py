"""The folder of a figure of several encoders: refuses what is not its own, keeps what a killed run finished."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from probes.visual.towers import Tower
from rice.errors import RiceError
from rice.files import leftovers, read_json, sha256_json
from rice.runs import refuse_other, same_run

T = TypeVar("T")

_RUN, _SCRATCH = "run.json", ".work"


class Folder:
    """`facts` (JSON) say which run it holds; `outputs` are what a finished one leaves, its report the last of them."""

    def __init__(self, out: Path, facts: dict[str, Any], outputs: Sequence[str]) -> None:
        """Writes nothing. Errors: RiceError where `out` holds anything else, or the same of another setting."""
        self.out, self.facts, self.outputs = out, facts, outputs
        refuse_other(out, facts, _SCRATCH)

    @property
    def report(self) -> Path:
        """What the figure shows, as numbers."""
        return self.out / self.outputs[-1]

    @property
    def done(self) -> bool:
        """Whether an earlier run finished."""
        return all((self.out / name).is_file() for name in (_RUN, *self.outputs))

    def part(self, tower: Tower, suffix: str) -> Path:
        """Where a run keeps what it has of a tower until it is done."""
        return self.out / _SCRATCH / f"{sha256_json([tower.label, tower.fingerprint])}{suffix}"

    def claim(self) -> None:
        """Say whose the folder is, before the first part is written."""
        same_run(self.out, self.facts)

    def read(self, from_json: Callable[[Mapping[str, Any]], T], towers: Sequence[Tower]) -> list[T]:
        """Of each tower what the report holds. `from_json` raises ValueError and the like for what it does not.

        Errors: RiceError where the report cannot be read, or was edited.
        """
        report = read_json(self.report)
        try:
            return [from_json(value) for value, _ in zip(report["encoders"], towers, strict=True)]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise RiceError(
                f"{self.report} is not as it was written ({type(error).__name__}: {error}); delete {self.out}, and run "
                "the command again"
            ) from error

    def clean(self) -> None:
        """Remove the parts, and what killed writers left."""
        for name in (_RUN, *self.outputs):
            for leftover in leftovers(self.out / name):
                leftover.unlink(missing_ok=True)
        shutil.rmtree(self.out / _SCRATCH, ignore_errors=True)
