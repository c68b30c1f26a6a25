"""The manifest of a checkpoint: what it is, where each tensor's rows lie, the SHA-256 of every file and its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rice.errors import RiceError
from rice.files import atomic_write, format_bytes, read_json, safe_join, sha256_file, sha256_json

NAME = "manifest.json"
FORMAT = 1


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `content` (JSON; its "files" maps names to "bytes" and "sha256") with its own SHA-256."""
    content = {**content, "format": FORMAT}
    with atomic_write(folder / NAME) as file:
        file.write(_text(content, sha256_json(content)))


def read(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`.

    Errors: RiceError naming the file where it is missing, changed or of another format.
    """
    content: dict[str, Any] = read_json(folder / NAME)
    claimed = content.pop("sha256", None) if isinstance(content, dict) else None
    whole = claimed is not None and claimed == sha256_json(content)
    if not whole or (folder / NAME).read_text(encoding="utf-8") != _text(content, claimed):
        raise RiceError(f"{folder / NAME} is damaged: it does not match its own SHA-256")
    if content["format"] != FORMAT:
        raise RiceError(f"{folder / NAME} has format {content['format']}; this version of rice reads format {FORMAT}")
    return content


def damage(folder: Path, name: str, recorded: Mapping[str, Any]) -> str | None:
    """What is wrong with file `name` of `folder`, in words, or None where it is byte for byte as recorded."""
    path = safe_join(folder, name)
    try:
        size = path.stat().st_size
        if size != recorded["bytes"]:
            return f"{path} has {size} bytes, {recorded['bytes']} ({format_bytes(recorded['bytes'])}) were written"
        if sha256_file(path) != recorded["sha256"]:
            return f"{path} is damaged: its SHA-256 is not the one recorded when it was written"
    except OSError as error:
        return f"cannot read {path}: {error.strerror or error}"
    return None


def intact(folder: Path) -> bool:
    """Whether the manifest and every file it names are as they were written. Reads everything."""
    try:
        files = read(folder)["files"]
    except RiceError:
        return False
    return all(damage(folder, name, recorded) is None for name, recorded in files.items())


def difference(saved: Any, present: Any, path: str = "") -> str | None:
    """The first field in which two JSON values differ, as 'field: saved ..., now ...', or None where they agree."""
    if isinstance(saved, Mapping) and isinstance(present, Mapping):
        for key in sorted({*saved, *present}):
            field = f"{path}.{key}" if path else key
            if key not in present or key not in saved:
                words = f"{saved[key]!r}, now absent" if key in saved else f"nothing, now {present[key]!r}"
                return f"{field}: saved with {words}"
            if (found := difference(saved[key], present[key], field)) is not None:
                return found
        return None
    return None if saved == present else f"{path}: saved with {saved!r}, now {present!r}"


def _text(content: Mapping[str, Any], sha256: str) -> str:
    return json.dumps({**content, "sha256": sha256}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
