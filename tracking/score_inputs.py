"""Tracks and truths from folders of text files: everything that comes from outside is checked here, once.

Shapes: N lines. Boxes are x, y, width, height, as the files have them.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rice.errors import RiceError
from rice.files import read_json
from tracking.metrics import Truth
from tracking.protocols import Values_N
from tracking.score import named
from tracking.sequence import Boxes_N4, upright

Size = tuple[int, int]

_COVER_LEVELS = 8


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What accompanies the truth's boxes: folders, as the truth's, and picture sizes.

    sizes: a file with lines `SEQUENCE W H`, or JSON {"SEQUENCE": [W, H]}. size: width, height of all sequences.
    """

    absent: Path | None = None
    cover: Path | None = None
    sizes: Path | None = None
    size: Size | None = None


def read_truths(folder: Path, sides: Sides) -> tuple[dict[str, Truth], list[str]]:
    """Truths by sequence, by name, and notes. Lines of 8 numbers are polygons: the upright box around each.

    Errors: RiceError in one line with file and line.
    """
    notes: list[str] = []
    absent = None if sides.absent is None else _Levels(sides.absent, 1)
    cover = None if sides.cover is None else _Levels(sides.cover, _COVER_LEVELS)
    sizes = None if sides.sizes is None else _read_sizes(sides.sizes)
    truths = {}
    for name, path in _texts(folder).items():
        boxes_N4 = upright(read_numbers(path, columns=(4, 8)))
        if sizes is not None and name not in sizes:
            raise RiceError(f"{sides.sizes}: expected the picture size of {name}, found none")
        truths[name] = Truth(
            boxes=boxes_N4,
            absent=None if absent is None else absent.read(name, len(boxes_N4), notes) == 1,
            cover=None if cover is None else cover.read(name, len(boxes_N4), notes),
            size=sides.size if sizes is None else sizes[name],
        )
    return truths, notes


def read_predictions(folder: Path, names: Iterable[str]) -> tuple[dict[str, Boxes_N4 | None], list[str]]:
    """Predictions for `names`, None where there are none, and notes.

    A sequence's file is SEQUENCE.txt or, as GOT-10k's toolkit writes it, SEQUENCE/SEQUENCE_001.txt. Times beside them
    are passed over. Errors: RiceError in one line with file and line.
    """
    notes: list[str] = []
    files = _texts(folder, nested=True)
    known = list(names)
    predictions = {name: read_numbers(files[name], columns=(4,)) if name in files else None for name in known}
    strangers = [name for name in files if name not in predictions and name.removesuffix("_time") not in predictions]
    if strangers:
        notes.append(f"predictions for sequences without a truth are ignored ({named(strangers, len(files))})")
    repeated = [name for name in known if name in files and files[name].with_name(f"{name}_002.txt").is_file()]
    if repeated:
        notes.append(f"only the first of several runs is judged ({named(repeated, len(known))})")
    return predictions, notes


def read_numbers(path: Path, columns: Sequence[int]) -> Values_N:
    """(N, C) of a text file with C of `columns` numbers on each line, between commas, tabs or spaces.

    Errors: RiceError naming the line: an unreadable number, another count, a blank line before the last, no line.
    """
    text = _read(path).rstrip()
    if not text:
        raise RiceError(f"{path} is empty, expected a line of {_or(columns)} numbers for each frame")
    try:  # in C, where the file is of one kind; whatever that does not take is read line by line
        values = np.loadtxt(io.StringIO(text), delimiter="," if "," in text else None, ndmin=2, comments=None)
    except ValueError:
        values = None
    if values is not None and values.shape[1] in columns and len(values) == text.count("\n") + 1:
        return values
    rows = [_row(path, number, line, columns) for number, line in enumerate(text.split("\n"), start=1)]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise RiceError(f"{path}, line {number}: expected {len(rows[0])} numbers as on line 1, got {len(row)}")
    return np.array(rows, dtype=np.float64)


def _row(path: Path, number: int, line: str, columns: Sequence[int]) -> list[float]:
    row = []
    for word in _words(line):
        if not word or "_" in word:
            raise RiceError(f"{path}, line {number}: expected a number, got {word[:40]!r}")
        try:
            row.append(float(word))
        except ValueError:
            raise RiceError(f"{path}, line {number}: expected a number, got {word[:40]!r}") from None
    if len(row) not in columns:
        raise RiceError(f"{path}, line {number}: expected {_or(columns)} numbers, got {len(row)}")
    return row


def _words(line: str) -> list[str]:
    """Two commas in a row have an empty word between them; spaces beside a comma say nothing."""
    return [word for part in line.split(",") for word in (part.split() or [""])] if line.strip() else []


class _Levels:
    """Files of small whole numbers, one for each frame, on lines of their own or all on one line."""

    def __init__(self, folder: Path, largest: int) -> None:
        self._folder, self._files, self._words = folder, _texts(folder), {str(k) for k in range(largest + 1)}

    def read(self, name: str, length: int, notes: list[str]) -> NDArray[np.int64]:
        """(length,). Errors: RiceError: no file, another word, another number of them unless the surplus is all 0."""
        path = self._files.get(name)
        if path is None:
            raise RiceError(f"{self._folder}: expected a file {name}.txt as for its truth, found none")
        text = _read(path)
        words = text.replace(",", " ").split()
        if not set(words) <= self._words:
            self._complain(path, text)
        values = np.array(list(map(int, words)), dtype=np.int64)
        if len(values) > length and not values[length:].any():
            notes.append(f"{name}: {len(values)} values in {path} for {length} frames: the surplus, all 0, is not used")
        elif len(values) != length:
            raise RiceError(f"{path}: expected {length} values, one for each frame of the truth, got {len(values)}")
        return values[:length]

    def _complain(self, path: Path, text: str) -> None:
        for number, line in enumerate(text.split("\n"), start=1):
            for word in line.replace(",", " ").split():
                if word not in self._words:
                    listed = f"{min(self._words)} to {max(self._words)}"
                    raise RiceError(f"{path}, line {number}: expected whole numbers {listed}, got {word[:40]!r}")


def _read_sizes(path: Path) -> dict[str, Size]:
    text = _read(path)
    sizes = {}
    if text.lstrip().startswith("{"):
        for name, value in read_json(path).items():
            sizes[name] = _size(f"{path}, {name}", value)
        return sizes
    for number, line in enumerate(text.rstrip().split("\n"), start=1):
        *name_parts, width, height = ["", "", *_words(line)]
        edges = [int(edge) if edge.isdecimal() else edge for edge in (width, height)]
        sizes[" ".join(name_parts).strip()] = _size(f"{path}, line {number}", edges)
    return sizes


def _size(where: str, value: object) -> Size:
    if isinstance(value, list) and len(value) == 2 and all(type(edge) is int and edge > 0 for edge in value):
        return value[0], value[1]
    raise RiceError(f"{where}: expected a sequence's width and height in pixels, got {value!r:.60}")


def _texts(folder: Path, *, nested: bool = False) -> dict[str, Path]:
    """SEQUENCE -> file, by name. Errors: RiceError where there is none."""
    if not folder.is_dir():
        raise RiceError(f"expected a folder with a SEQUENCE.txt each, got {folder}; unpack archives first")
    found = {path.stem: path for path in folder.glob("*.txt") if not path.name.startswith(".")}
    if nested:
        inner = ((path.name, path / f"{path.name}_001.txt") for path in folder.iterdir() if path.is_dir())
        found = {name: path for name, path in inner if path.is_file()} | found
    if not found:
        raise RiceError(f"{folder}: expected a SEQUENCE.txt for each sequence, found no .txt file")
    return {name: found[name] for name in sorted(found)}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RiceError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RiceError(f"{path} is not a text file: {error.reason} at byte {error.start}") from error


def _or(columns: Sequence[int]) -> str:
    return " or ".join(map(str, columns))
