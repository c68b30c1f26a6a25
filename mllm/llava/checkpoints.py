"""Which of a training's checkpoints are whole.

transformers writes a folder `checkpoint-STEP` file by file. A mark goes in last, when all ranks have written and the
files are on disk; a folder without it is what a killed run left, and counts as nothing.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rice.errors import RiceError
from rice.files import read_object, remove_folder, write_json

MARK = "whole.json"


class Checkpoint(NamedTuple):
    """A whole one: after `step` steps."""

    folder: Path
    step: int


def mark_whole(folder: Path, step: int, run: Mapping[str, Any]) -> None:
    """Say that all of `folder` is written. run: what the training was started with."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    write_json(folder / MARK, {"step": step, "run": run})


def keep_only(folder: Path) -> None:
    """Remove every other checkpoint beside `folder`, the half-written ones included."""
    for other in _folders(folder.parent):
        if other != folder:
            remove_folder(other)


def latest(parent: Path, run: Mapping[str, Any]) -> Checkpoint | None:
    """The last whole checkpoint in `parent`, None where there is none.

    Errors: RiceError naming what differs where it comes from a training that was started with something else.
    """
    marks = [(read_object(folder / MARK), folder) for folder in _folders(parent) if (folder / MARK).is_file()]
    if not marks:
        return None
    mark, folder = max(marks, key=lambda found: int(found[0]["step"]))
    before = mark["run"]
    changed = sorted(name for name in before.keys() | run.keys() if before.get(name) != run.get(name))
    if changed:
        differences = ", ".join(f"{name} was {before.get(name)}, is {run.get(name)}" for name in changed)
        raise RiceError(
            f"{parent.parent} holds another training: {differences}; give the same values or another folder"
        )
    return Checkpoint(folder, int(mark["step"]))


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.glob("checkpoint-*") if path.is_dir()]
