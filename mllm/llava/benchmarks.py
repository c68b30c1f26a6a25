"""Which tasks of lmms-eval are asked for, where their questions come from, and what a definition consists of.

Reads lmms-eval's YAML files without importing it: a wrong name must show before torch is loaded.
"""

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from probes.import_formats.scales import LIVEXIV, TABLE_1
from probes.protocol import NotThisLayoutError
from rice.errors import RiceError, missing, nearest
from rice.files import atomic_write, sha256_unchanged

_PAID = "mmbench_en_dev"
"""Asks a paid service to read the answers; mmbench_en_dev_static, the same questions, reads them by rule."""

SETS: Mapping[str, tuple[str, ...]] = {
    "table1": tuple(
        dict.fromkeys(task for tasks in TABLE_1.values() for task in tasks if task not in (_PAID, LIVEXIV))
    ),
    "table5d": ("docvqa_val", "chartqa", "infovqa_val", "ocrbench"),
}
"""What --tasks takes beside names of tasks."""

_NAMED = re.compile(r"^(?:task|group):[ \t]*(['\"]?)([^\s'\"#\[\]{}]+)\1[ \t]*(?:#.*)?$", re.MULTILINE)
_LOCAL = ("parquet", "json", "csv", "arrow", "text")
"""`dataset_path` of files on this machine."""
_FILES = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of lmms-eval. `definition`: its YAML file; `config`: what that says with all it includes, functions as
    their names; `own`: whether lmms-eval finds it by itself. `files`: its data, () where it comes from the hub."""

    name: str
    definition: Path
    config: Mapping[str, Any]
    own: bool
    files: tuple[Path, ...] = ()
    replaces: Mapping[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """Which is judged."""
        return str(self.config.get("test_split") or self.config.get("validation_split"))

    def identity(self) -> dict[str, Any]:
        """JSON values that change when anything that makes its scores changes, as far as files here say."""
        code = sorted(self.definition.parent.glob("*.py")) if not self.own else []
        found = [[path.name, sha256_unchanged(path)] for path in (*self.files, *code)]  # of two folders, one name
        config = {key: value for key, value in self.config.items() if key not in ("dataset_kwargs", "dataset_path")}
        source = None if self.files else [self.config.get("dataset_path"), self.config.get("dataset_kwargs")]
        return {"task": self.name, "config": _text(config), "source": _text(source), "files": found}

    def write(self, folder: Path) -> Path | None:
        """The YAML that puts local files in the place of the hub's, None where the task needs none."""
        if not self.replaces:
            return None
        path = folder / f"{self.name}.yaml"
        with atomic_write(path) as file:
            yaml.safe_dump({"include": str(self.definition), "task": self.name, **self.replaces}, file)
        return path


def find_tasks(asked: str, *, data: Path | None = None, include: Sequence[Path] = ()) -> list[Task]:
    """Of names, sets and groups, separated by commas; a group stands for its tasks.

    data: ROOT/TASK/*.parquet (or jsonl) takes the place of the hub. include: folders of further definitions.
    Errors: RiceError: an unknown name, with the nearest; a definition of --include by a name of lmms-eval's; --data
    without files for a task that would need the hub; a task that rice_llava cannot answer.
    """
    places = _definitions(include)
    names = [name for word in asked.split(",") if word.strip() for name in SETS.get(word.strip(), (word.strip(),))]
    unknown = [name for name in names if name not in places]
    if unknown or not names:
        known = nearest(unknown[0], [*SETS, *places]) if unknown else ""
        raise RiceError(
            f"expected --tasks {', '.join(SETS)} or names of lmms-eval's tasks, got {(unknown or [asked])[0]!r}.{known}"
        )
    leaves = dict.fromkeys(leaf for name in names for leaf in _leaves(name, places))
    return [_task(name, *places[name], data) for name in leaves]


def _task(name: str, definition: Path, own: bool, data: Path | None) -> Task:
    config = read_definition(definition)
    task = Task(name=name, definition=definition, config=config, own=own)
    kind = config.get("output_type", "generate_until")
    if kind != "generate_until":
        raise RiceError(f"task {name} wants {kind}, rice_llava only answers (generate_until); choose another task")
    local = config.get("dataset_path") in _LOCAL
    files = () if data is None else _files(data / name, task.split)
    if not files:
        if data is not None and not local:
            raise NotThisLayoutError(  # questions of other tasks are sound data
                f"expected the questions of {name} in {data / name}/*.parquet (or jsonl), found none; put them there, "
                "leave the task out, or leave --data out to take it from the hub"
            )
        return Task(**vars(task) | {"files": tuple(_named_files(config, definition.parent)) if local else ()})
    replaces = {
        "dataset_path": _FILES[files[0].suffix],
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {task.split: [str(path) for path in files]}},
    }
    return Task(**vars(task) | {"files": files, "replaces": replaces})


def _files(folder: Path, split: str) -> tuple[Path, ...]:
    """Of the split where files are named after it (validation-00000-of-00006.parquet), else all; of one kind."""
    for kind in dict.fromkeys(_FILES.values()):
        found = sorted(p.resolve() for p in folder.rglob("*") if _FILES.get(p.suffix) == kind and p.is_file())
        named = [path for path in found if re.match(rf"{re.escape(split)}[-._]", path.name)]
        if found:
            return tuple(named or found)
    return ()


def _named_files(config: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Of a local definition: paths beside it, or absolute."""
    waiting = [(config.get("dataset_kwargs") or {}).get("data_files")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and (folder / value).is_file():
            yield (folder / value).resolve()
        elif isinstance(value, dict | list):
            waiting += list(value.values()) if isinstance(value, dict) else value


def _definitions(include: Sequence[Path]) -> dict[str, tuple[Path, bool]]:
    """Name -> (YAML file, whether it is lmms-eval's own). Errors: RiceError."""
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or spec.origin is None:
        raise missing("lmms-eval", "mllm")
    found = {name: (path, True) for name, path in _in_folder(Path(spec.origin).parent / "tasks")}
    for folder in include:
        if not folder.is_dir():
            raise RiceError(f"expected a folder of task definitions as --include, found none at {folder}")
        for name, path in _in_folder(folder.resolve()):
            if found.get(name, (path, False))[1]:
                raise RiceError(f"{path} defines {name}, which is a name of lmms-eval's own; give it another")
            found[name] = (path, False)
    return found


def _in_folder(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(files):
            if name.endswith(".yaml"):
                path = Path(root) / name
                for match in _NAMED.finditer(path.read_text(encoding="utf-8", errors="replace")):
                    yield match[2], path


def _leaves(name: str, places: Mapping[str, tuple[Path, bool]], above: tuple[str, ...] = ()) -> Iterator[str]:
    below = read_definition(places[name][0]).get("task")
    if not isinstance(below, list):
        yield name
        return
    for entry in below:
        one = entry.get("task", entry.get("group")) if isinstance(entry, dict) else entry
        if not isinstance(one, str) or one not in places or one in above:
            raise RiceError(f"group {name} holds {one!r}, which is not a task that rice_llava knows; name its tasks")
        yield from _leaves(one, places, (*above, name))


class _Loader(yaml.SafeLoader):
    """Takes `!function module.name` as its text."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")


def read_definition(path: Path) -> dict[str, Any]:
    """A YAML file with all that it includes, as lmms-eval puts them together: what is nearer wins, and of several
    included files the first. Errors: RiceError for what is no definition."""
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        if not isinstance(config, dict):
            raise RiceError("expected an object")
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RiceError) as error:
        raise RiceError(f"{path} is no definition of a task: {' '.join(str(error).split())}") from error
    included = config.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in reversed([included] if isinstance(included, str) else included):
        merged |= read_definition(Path(name) if Path(name).is_file() else path.parent / name)
    return merged | config


def _text(value: Any) -> Any:
    """JSON values: YAML also has dates."""
    if isinstance(value, dict):
        return {str(key): _text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value if isinstance(value, str | int | bool | type(None)) else str(value)
