"""JSON that anybody may have written: read once, hashed, and each value checked before it becomes part of a result."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.stored import unsafe_label
from rice.errors import RiceError
from rice.files import format_bytes

LARGEST = 256 * 1024**2
"""Bytes. A file of aggregated results has thousands of them; detections and masks of a large test set fill hundreds of
megabytes, and are a list, which is not limited."""

_START = 4096
_DEPTH = 4
"""Of what is kept of a file's settings."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """A parsed file. `value` may hold NaN and infinities, which lmms-eval and mteb write themselves; its texts are
    Unicode."""

    path: Path
    value: Any
    sha256: str

    @property
    def origin(self) -> dict[str, str]:
        """What a result remembers of its file: the base name, never a path of somebody's machine, and the content."""
        return {"name": label(self.path.name, "a file's name"), "sha256": self.sha256}


def read_document(path: Path) -> Document:
    """Parse a JSON file. Errors: RiceError in one line: unreadable, too large, not JSON, numbers beyond a double."""
    if not path.is_file():
        raise RiceError(f"expected a file of results, or a folder of tracks, found none at {path}")
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
            is_list = raw[:_START].lstrip()[:1] == b"["
            raw += file.read() if is_list else b""
    except OSError as error:
        raise RiceError(f"cannot read {path}: {error.strerror or error}") from error
    if len(raw) > LARGEST and not is_list:
        raise RiceError(f"{path} is larger than {format_bytes(LARGEST)}: no file of aggregated results; give that one")
    try:
        value = json.loads(raw, parse_float=_finite)
        if not isinstance(value, list):
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except UnicodeEncodeError as error:
        raise RiceError(f"{path} holds text that is no Unicode: {error.reason}") from error
    except (ValueError, RecursionError) as error:
        raise RiceError(f"{path} is not valid JSON: {error}") from error
    return Document(path=path, value=value, sha256=hashlib.sha256(raw).hexdigest())


def number(value: Any) -> float | None:
    """A finite number; None for anything else: text, truth values, NaN, an integer beyond a double."""
    if type(value) not in (int, float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def seconds(value: Any) -> float:
    """A duration, which both tools also write as text; 0 where there is none."""
    try:
        duration = number(float(value) if isinstance(value, str) else value)
    except ValueError:
        return 0.0
    return max(duration or 0.0, 0.0)


def label(value: Any, what: str, *, identifier: bool = False) -> str:
    """A name that reports may show (`probes.stored.unsafe_label`). Errors: RiceError."""
    if not isinstance(value, str) or not value.strip():
        raise RiceError(f"expected a name as {what}, got {_short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RiceError(f"expected Unicode as {what}, got {_short(value)}") from error
    found = unsafe_label(value, identifier=identifier)
    if found:
        raise RiceError(f"found {found} in {what}: {_short(value)}")
    return value


def table(value: Any, what: str) -> dict[str, Any]:
    """A JSON object. Errors: RiceError."""
    if not isinstance(value, dict):
        raise RiceError(f"expected an object as {what}, got {_short(value)}")
    return value


def fact(value: Any, what: str, depth: int = _DEPTH) -> Any:
    """A setting as the file has it; a number that is not finite becomes None. Errors: RiceError: nested too deep."""
    if isinstance(value, float):
        return number(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise RiceError(f"expected {what} to be nested at most {_DEPTH} deep")
    if isinstance(value, list):
        return [fact(item, what, depth - 1) for item in value]
    return {key: fact(item, what, depth - 1) for key, item in value.items()}


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond any number here")
    return value


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {'list' if isinstance(value, list) else 'JSON object'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
