"""Annotation files of tracking benchmarks: boxes, flags, lists of names.

Shapes: N lines. Errors name the file and the line, from 1, and say what stands there.
"""

from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from rice.data.splits import read_lines
from rice.errors import RiceError
from tracking.sequence import Boxes_N4, Levels_N, upright

Delimiter = Literal[",", "\t", " "]

_WORDS: dict[Delimiter, str] = {",": "commas", "\t": "tabs", " ": "spaces"}
_SHOWN = 60


def read_boxes(path: Path, *, delimiter: Delimiter | None = None, polygons: bool = True) -> Boxes_N4:
    """(N, 4) boxes x, y, width, height as the file has them; NaN and infinity are values. Blank lines may end a file.

    delimiter: the only one that is accepted; None: whatever the first line has. polygons: whether lines of 8 numbers,
    four corners x, y, are accepted too, and become the smallest upright boxes around them, as VOT's readers do.
    Errors: RiceError for a file that is missing or empty, a line with another delimiter or another number of values
    than the first should have, and for what is no number.
    """
    lines = _lines(path)
    found = _delimiter(lines[0])
    wanted = delimiter or found
    counts = [line.count(",") + 1 for line in lines] if wanted == "," else [len(line.split()) for line in lines]
    width = 8 if polygons and counts[0] == 8 else 4
    wrong = next((index for index, count in enumerate(counts) if count != width), 0 if found != wanted else None)
    if wrong is not None:
        count = "4 or 8" if polygons and wrong == 0 else str(width)
        _fail(path, wrong, f"expected {count} numbers separated by {_WORDS[wanted]}, got {_describe(lines[wrong])}")
    values = ",".join(lines).split(",") if wanted == "," else " ".join(lines).split()
    numbers = _numbers(path, values, width).reshape(-1, width)
    return upright(numbers)


def read_flags(path: Path, *, highest: int = 1) -> Levels_N:
    """(N,) integers from 0 to `highest`: one a line, or all of them on one line with commas, as LaSOT has it.

    Errors: RiceError for a file that is missing or empty, and for any other value.
    """
    lines = _lines(path)
    on_one_line = len(lines) == 1
    values = [value.strip() for value in (lines[0].split(",") if on_one_line else lines)]
    if not set(values) <= {str(level) for level in range(highest + 1)}:
        allowed = [str(level) for level in range(highest + 1)]
        index = next(index for index, value in enumerate(values) if value not in allowed)
        line, place = (0, f"value {index + 1}: ") if on_one_line else (index, "")
        expected = "0 or 1" if highest == 1 else f"an integer from 0 to {highest}"
        _fail(path, line, f"{place}expected {expected}, got {_short(values[index])}")
    return np.array(values, dtype=np.int64)


def read_names(path: Path) -> dict[str, int]:
    """Names, one a line, with their line numbers, in order; blank lines are skipped.

    Errors: RiceError for a file that is missing or has no names, and for a name that comes twice.
    """
    names: dict[str, int] = {}
    for index, line in enumerate(_lines(path)):
        name = line.strip()
        if name in names:
            _fail(path, index, f"{_short(name)} stands in line {names[name]} already; remove one of the two")
        if name:
            names[name] = index + 1
    return names


def _lines(path: Path) -> list[str]:
    """Without blank lines at the end and without the mark that Windows' editors put before the first."""
    lines = read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise RiceError(f"{path} is empty; get a whole copy")
    lines[0] = lines[0].removeprefix("\ufeff")
    return lines


def _delimiter(line: str) -> Delimiter:
    if "," in line:
        return ","
    return "\t" if "\t" in line.strip() else " "


def _describe(line: str) -> str:
    found = _delimiter(line)
    count = len(line.split("," if found == "," else None))
    return f"{count}{f' separated by {_WORDS[found]}' if count > 1 else ''}: {_short(line)}"


def _numbers(path: Path, values: list[str], width: int) -> NDArray[np.float64]:
    try:
        numbers = np.fromiter(map(float, values), dtype=np.float64, count=len(values))
    except ValueError:
        numbers = None
    if numbers is None or any("_" in value for value in values):  # Python's own numbers may have underscores
        index = next(index for index, value in enumerate(values) if not _is_number(value))
        _fail(path, index // width, f"expected numbers, got {_short(values[index].strip())}")
    return numbers


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return "_" not in value


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _fail(path: Path, index: int, problem: str) -> NoReturn:
    raise RiceError(f"{path} line {index + 1}: {problem}")
