"""Reads a file to its end by its kind: what is cut off or half-written cannot be."""

import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

import numpy as np
import pyarrow.parquet
import yaml
from PIL import Image
from safetensors import safe_open


def is_temporary(name: str) -> bool:
    """Whether a path is, or lies in, what `rice.files` has not renamed yet."""
    return any(part.startswith(".") and part.endswith(".tmp") for part in PurePath(name).parts)


def read_whole(path: Path) -> None:
    """Raises whatever the kind's reader raises of a file that is not whole; other kinds are not looked at."""
    reader = _READERS.get(path.suffix)
    if reader is not None:
        reader(path)


def _json_lines(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("\n") or not text, f"{path} ends within a line"
    for line in text.splitlines():
        json.loads(line)


def _tar(path: Path) -> None:
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is None or len(file.read()) == member.size
    assert path.read_bytes().endswith(bytes(1024)), f"{path} has no end"


def _safetensors(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        assert list(file.keys())


def _picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def _page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>"), f"{path} has no end"


_READERS: Mapping[str, Callable[[Path], object]] = {
    ".html": _page,
    ".jpg": _picture,
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": _json_lines,
    ".npy": lambda path: np.load(path),
    ".parquet": lambda path: pyarrow.parquet.read_table(path),
    ".png": _picture,
    ".safetensors": _safetensors,
    ".tar": _tar,
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
}
