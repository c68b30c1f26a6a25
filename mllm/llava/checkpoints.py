"""Which of a training's checkpoints are whole.

transformers writes a folder `checkpoint-STEP` file by file. A mark goes in last, when all ranks have written and the
files are on disk; a folder without it is what a killed run left, and counts as nothing.

PEFT writes adapters alone; what learns beside them goes into `others.safetensors`.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from mllm.llava.lora import OTHERS
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


def save_others(values: Mapping[str, Tensor], folder: Path) -> None:
    """Keep what learns beside adapters, by plain names."""
    save_file({name: value.detach().cpu().contiguous() for name, value in values.items()}, folder / OTHERS)


def load_others(folder: Path, names: Collection[str]) -> dict[str, Tensor]:
    """What `save_others` kept. Errors: RiceError where it is not of just these names."""
    path = folder / OTHERS
    found = load_file(path) if path.is_file() else {}
    wrong = sorted(found.keys() ^ set(names))
    if wrong:
        raise RiceError(
            f"expected {path} to hold what learns beside the adapters, got one that differs in {wrong[0]} and "
            f"{len(wrong) - 1} more parameters; remove {folder.parent}, or give the model that it belongs to"
        )
    return found


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.glob("checkpoint-*") if path.is_dir()]
