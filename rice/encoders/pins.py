"""What a name of the model hub stood for when it was first read: the lock file of what is fetched.

    {"OWNER/NAME": {"revision": COMMIT, "files": {NAME: SHA-256}}}

It is the file that RICE_PINS names, which a project may keep beside its results, else rice-pins.json beside the hub's
cache. What is read first is noted; later the same commit is asked for, and a file of other content is refused: a name
never comes to mean other weights without a word. An entry may also be written by hand, with a commit and no files.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from rice.errors import RiceError, os_errors_as
from rice.files import make_folder, read_object, sha256_unchanged, write_json

VARIABLE = "RICE_PINS"
_COMMIT, _SHA256 = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{64}")


class Pin(NamedTuple):
    """One repository. files: name -> SHA-256 of those that were read."""

    revision: str
    files: Mapping[str, str]


def pins_file() -> Path:
    """Where the pins of this machine, or of this project, are."""
    from huggingface_hub import constants

    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(constants.HF_HUB_CACHE).with_name("rice-pins.json")


def pin_of(repo: str) -> Pin | None:
    """None for a repository that was never read. Errors: RiceError for a file of pins that is damaged."""
    return _read(pins_file()).get(repo)


def settle(repo: str, name: str, path: Path) -> None:
    """Note a fetched file of `repo`, or hold it against what is noted. path: in the hub's cache, snapshots/COMMIT/NAME.

    Errors: RiceError where commit or content is another one, or the pins cannot be written.
    """
    commit, digest, file = _commit_of(path, name), sha256_unchanged(path), pins_file()
    if _agrees(_read(file).get(repo), repo, name, commit, digest, file):
        return
    make_folder(file.parent)
    with os_errors_as(f"cannot write {file}; name another file of pins as {VARIABLE}"), FileLock(f"{file}.lock"):
        pins = _read(file)
        found = pins.get(repo, Pin(commit, {}))
        if not _agrees(found, repo, name, commit, digest, file):
            pins[repo] = Pin(found.revision, {**found.files, name: digest})
            write_json(file, {repo: pin._asdict() for repo, pin in pins.items()})


def _agrees(pin: Pin | None, repo: str, name: str, commit: str, digest: str, file: Path) -> bool:
    """Whether the pin says just this; False where it says nothing of it."""
    if pin is None:
        return False
    known = pin.files.get(name, digest)
    if (pin.revision, known) != (commit, digest):
        was, now = (pin.revision, commit) if pin.revision != commit else (known, digest)
        raise RiceError(
            f"{repo} is not what it was: {name} came from {now[:12]}, and {file} says {was[:12]}; its results would "
            "stand under the same name. If the change is meant, take its entry out of that file"
        )
    return name in pin.files


def _commit_of(path: Path, name: str) -> str:
    """The hub's cache has a folder for each commit. Errors: RiceError for a path that is elsewhere."""
    folder = path.absolute().parents[name.count("/")].name
    if not _COMMIT.fullmatch(folder):
        raise RiceError(f"expected {name} in a folder of the hub's cache that is named after a commit, got {path}")
    return folder


def _read(file: Path) -> dict[str, Pin]:
    if not file.is_file():
        return {}
    return {repo: _pin(file, repo, value) for repo, value in read_object(file).items()}


def _pin(file: Path, repo: str, value: Any) -> Pin:
    revision, files = (value.get("revision"), value.get("files", {})) if isinstance(value, dict) else (None, None)
    commit = isinstance(revision, str) and _COMMIT.fullmatch(revision)
    if not commit or not isinstance(files, dict) or not all(_is_digest(one) for one in files.values()):
        raise RiceError(f"{file}: expected a revision of 40 digits and files' SHA-256 for {repo!r}; correct it")
    return Pin(str(revision), files)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None
