"""Annotation files of tracking benchmarks: boxes, flags, lists of names.

Shapes: N lines. Errors name the file and the line, from 1, and say what stands there.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from rice.data.splits import read_lines
from rice.errors import RiceError
from tracking.sequence import Boxes_N4, Levels_N, upright

_SHOWN = 60


def read_boxes(path: Path, *, commas_only: bool = False, polygons: bool = True) -> Boxes_N4:
    """(N, 4) boxes x, y, width, height as the file has them; NaN and infinity are values. Blank lines may end a file.

    Numbers stand between commas, tabs or spaces, or between commas only. polygons: whether lines of 8 numbers, four
    corners x, y, are accepted too, and become the smallest upright boxes around them, as VOT's readers do.
    Errors: RiceError for a file that is missing or empty, a line with another number of values than the first should
    have, and for what is no number.
    """
    lines = lines_of(path)
    rows = [line.split(",") if commas_only else words(line) for line in lines]
    width = 8 if polygons and len(rows[0]) == 8 else 4
    wrong = next((index for index, row in enumerate(rows) if len(row) != width), None)
    if wrong is not None:
        count, by = "4 or 8" if polygons and wrong == 0 else str(width), " separated by commas" if commas_only else ""
        _fail(path, wrong, f"expected {count} numbers{by}, got {_describe(lines[wrong])}")
    return upright(_numbers(path, [value for row in rows for value in row], width).reshape(-1, width))


def read_flags(path: Path, *, highest: int = 1) -> Levels_N:
    """(N,) integers from 0 to `highest`: one a line, or all of them on one line, as LaSOT has it.

    Errors: RiceError for a file that is missing or empty, and for any other value.
    """
    lines = lines_of(path)
    on_one_line = len(lines) == 1
    values = words(lines[0]) if on_one_line else [line.strip() for line in lines]
    allowed = [str(level) for level in range(highest + 1)]
    if not set(values) <= set(allowed):
        index = next(index for index, value in enumerate(values) if value not in allowed)
        line, place = (0, f"value {index + 1}: ") if on_one_line else (index, "")
        expected = "0 or 1" if highest == 1 else f"an integer from 0 to {highest}"
        _fail(path, line, f"{place}expected {expected}, got {_short(values[index])}")
    return np.array(values, dtype=np.int64)


def words(line: str) -> list[str]:
    """Between commas, tabs or spaces. Two commas in a row have an empty word between them; spaces beside one say
    nothing."""
    return [word for part in line.split(",") for word in (part.split() or [""])] if line.strip() else []


def number_lines(rows_NC: Iterable[Iterable[float]], decimals: int) -> str:
    """The way back: a line for each row, with commas."""
    return "".join(",".join(f"{value:.{decimals}f}" for value in row) + "\n" for row in rows_NC)


def read_names(path: Path) -> dict[str, int]:
    """Names, one a line, with their line numbers, in order; blank lines are skipped.

    Errors: RiceError for a file that is missing or has no names, and for a name that comes twice.
    """
    names: dict[str, int] = {}
    for index, line in enumerate(lines_of(path)):
        name = line.strip()
        if name in names:
            _fail(path, index, f"{_short(name)} stands in line {names[name]} already; remove one of the two")
        if name:
            names[name] = index + 1
    return names


def lines_of(path: Path) -> list[str]:
    """Without blank lines at the end and without the mark that Windows' editors put before the first.

    Errors: RiceError for a file that is missing, no text, or empty.
    """
    lines = read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise RiceError(f"{path} is empty; get a whole copy")
    lines[0] = lines[0].removeprefix("\ufeff")
    return lines


def _describe(line: str) -> str:
    by = "commas" if "," in line else "tabs" if "\t" in line.strip() else "spaces"
    count = len(words(line))
    return f"{count}{f' separated by {by}' if count > 1 else ''}: {_short(line)}"


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
