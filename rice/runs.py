"""Whose an output folder is: `run.json` says which run, and everything else is refused."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from rice.errors import RiceError
from rice.files import leftovers, read_object, write_json

RUN = "run.json"


def same_run(folder: Path, facts: Mapping[str, object]) -> None:
    """Write `facts` as the folder's run.json. Errors: RiceError where another run is there."""
    path = folder / RUN
    facts = json.loads(json.dumps(facts))  # as they will be read: a tuple is a list
    if path.exists():
        found = read_object(path)
        wrong = [name for name in facts if found.get(name) != facts[name]]
        if wrong:
            name, was, now = _first_difference(wrong[0], found.get(wrong[0]), facts[wrong[0]])
            raise RiceError(f"{folder} holds another run: its {name} is {was!r}, not {now!r}; name another --out")
    write_json(path, facts)


def _first_difference(name: str, was: object, now: object) -> tuple[str, object, object]:
    """Name and values of the first field that differs, however deep: two whole configurations say nothing."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in sorted({*was, *now}, key=str):
            if was.get(key) != now.get(key):
                return _first_difference(f"{name} {key}", was.get(key), now.get(key))
    return name, was, now


def refuse_other(folder: Path, facts: Mapping[str, object], scratch: str) -> None:
    """Errors: RiceError where the folder holds another run, or anything that no run of this kind has written yet: until
    there is a run.json, only `scratch` and what a killed writer left may be there. Writes nothing that is not there."""
    if folder.exists() and not folder.is_dir():
        raise RiceError(f"--out {folder} is a file; give a folder")
    if (folder / RUN).is_file():
        same_run(folder, facts)
    elif folder.is_dir():
        own = {folder / scratch, *leftovers(folder / RUN)}
        foreign = sorted(path.name for path in folder.iterdir() if path not in own)
        if foreign:
            raise RiceError(f"--out {folder} already holds {foreign[0]!r}, not written by this; choose another --out")


@contextlib.contextmanager
def alone(folder: Path, name: str, doing: str) -> Iterator[None]:
    """Nobody else does the same in the folder meanwhile; a lock that dies with its process says so.

    name: the lock's file. doing: for the message, as in "packing into". Errors: RiceError where another one is at it.
    """
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RiceError(f"another process is {doing} {folder}; wait for it or choose another folder") from error
    try:
        yield
    finally:
        lock.release()
