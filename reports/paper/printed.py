"""The cells of Tables 1 to 5 as the paper prints them: `table*.csv`, long form, texts; nothing computed.

    block,method,tower,resolution,llm,column,value,line

`line` counts the lines of the printed table below its head, from 1, block titles included; a key that does not apply
is empty. Averages and differences that the paper prints are cells like any other. A user's table may have the same
form, or the wide one: a line a row; columns named like keys (else the first) name the row, the others hold scores.
"""

import csv
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reports.grid import EMPTY
from rice.errors import RiceError, nearest

TABLES = ("1", "2", "3", "4", "5a", "5b", "5c", "5d")
KEYS = ("block", "method", "tower", "resolution", "llm")
_HEADER = (*KEYS, "column", "value", "line")
_FOLDER = Path(__file__).parent
_LARGEST_BYTES = 64 << 20
_SLACK = 1e-9
"""Of binary fractions."""
_NUMBER = re.compile(r"[+\-\u2212]?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One printed line: its keys and its cells, column -> text as printed."""

    line: int
    block: str = ""
    method: str = ""
    tower: str = ""
    resolution: str = ""
    llm: str = ""
    cells: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What names the row: 'RICE ViT-L-14-336px Qwen2.5-7B'."""
        in_tower = self.resolution and self.resolution in self.tower
        parts = (self.method, self.tower, "" if in_tower else self.resolution, self.llm)
        return " ".join(part for part in parts if part)

    @property
    def is_gain(self) -> bool:
        """Whether the row is the difference of two others: an arrow row."""
        return self.method.startswith("↑")


def number(text: str) -> float:
    """'+9.79' -> 9.79. Errors: RiceError for what is not one finite number in plain decimals."""
    if _NUMBER.fullmatch(text) is None:
        raise RiceError(f"expected a number in plain decimals, got {text!r}")
    return float(text.replace("\u2212", "-"))


def play(text: str) -> float:
    """Half a unit of the last printed digit: how far rounding may have moved the number."""
    _, _, decimals = text.partition(".")
    return 0.5 * math.pow(10, -len(decimals))


def reproduces(text: str, value: float, *, more: float = 0.0) -> bool:
    """Whether `value` is what is printed, rounded to the printed digits. `more`: what else rounding may have moved."""
    return abs(value - number(text)) <= play(text) + more + _SLACK


@functools.cache
def paper(table: str) -> tuple[Row, ...]:
    """The printed rows of a table in order. Errors: RiceError for an unknown table."""
    if table not in TABLES:
        raise RiceError(
            f"the paper has no table {table!r} of numbers.{nearest(table, TABLES)} Known: {', '.join(TABLES)}"
        )
    return tuple(read_rows(_FOLDER / f"table{table}.csv"))


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV in either form. Errors: RiceError naming the file, the line, and what was expected there."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise RiceError(f"{path} is larger than any table; expected a CSV of cells")
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True))
    except OSError as error:
        raise RiceError(f"cannot read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise RiceError(f"{path} is not CSV in UTF-8: {error}") from error
    if not lines or not lines[0]:
        raise RiceError(f"{path} is empty; expected a head and a line a cell, or a line a row")
    head = [name.strip() for name in lines[0]]
    lower = [name.lower() for name in head]
    if len(set(lower)) < len(lower):
        raise RiceError(f"{path}: a column is named twice: {sorted({h for h in lower if lower.count(h) > 1})}")
    body = []
    for count, line in enumerate(lines[1:], start=2):
        if line and len(line) != len(head):
            raise RiceError(f"{path}, line {count}: expected {len(head)} fields as in the head, got {len(line)}")
        body += [(count, dict(zip(head, map(str.strip, line), strict=True)))] if line else []
    return _long(body, path) if {"column", "value"} <= set(head) else _wide(body, head, path)


def _long(body: Iterable[tuple[int, Mapping[str, str]]], path: Path) -> list[Row]:
    rows: dict[int, tuple[dict[str, str], dict[str, str]]] = {}
    for count, record in body:
        unknown = record.keys() - set(_HEADER)
        if unknown or "line" not in record:
            raise RiceError(f"{path}: expected the columns {','.join(_HEADER)}, got {','.join(record)}")
        if not record["line"].isdecimal():
            raise RiceError(f"{path}, line {count}: expected the number of a printed line, got {record['line']!r}")
        keys = {name: record.get(name, "") for name in KEYS}
        known, cells = rows.setdefault(int(record["line"]), (keys, {}))
        if known != keys:
            raise RiceError(f"{path}, line {count}: other keys than the cells before it on table line {record['line']}")
        if record["column"] in cells:
            raise RiceError(f"{path}, line {count}: the cell {record['column']!r} is there twice")
        cells[record["column"]] = _checked(record["value"], path, count)
    return [Row(line=line, cells=cells, **keys) for line, (keys, cells) in sorted(rows.items())]


def _wide(body: Iterable[tuple[int, Mapping[str, str]]], head: Sequence[str], path: Path) -> list[Row]:
    key_of = {name: name.lower() for name in head if name.lower() in KEYS} or {head[0]: "method"}
    rows = []
    for line, (count, record) in enumerate(body, start=1):
        texts = {c: text for c, text in record.items() if c not in key_of and text not in ("", EMPTY)}
        cells = {column: _checked(text, path, count) for column, text in texts.items()}
        rows.append(Row(line=line, cells=cells, **{key: record[name] for name, key in key_of.items()}))
    return rows


def _checked(text: str, path: Path, line: int) -> str:
    try:
        number(text)
    except RiceError as error:
        raise RiceError(f"{path}, line {line}: {error}") from error
    return text
