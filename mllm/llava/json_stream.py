"""The rows of a large JSON file one after another, in the memory of one row and a piece of the file.

The standard library's parser does the work; it is only given the text in pieces. Imports nothing heavy.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rice.errors import RiceError

CHUNK = 4 << 20
"""Characters that are read at a time."""

_NEAR_END = 16
"""An error so close to the end of what has been read may only mean that the rest has not been: the longest literal
is -Infinity, the longest escape \\ud83d\\ude00."""

_SPACE = re.compile(r"[ \t\n\r]*")


def rows_of_json(path: Path) -> Iterator[Any]:
    """The elements of a list, or of the list under "data" in an object.

    Errors: RiceError naming the file and the row: not readable, not JSON, not UTF-8, neither of the two.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Text(file).rows()
    except OSError as error:
        raise RiceError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RiceError(f"{path} is not UTF-8: {error}; get a whole copy") from error
    except (ValueError, RecursionError) as error:
        raise RiceError(f"{path} is not rows in JSON: {error}; a list is expected, or one under 'data'") from error


def lines_of_jsonl(path: Path) -> Iterator[bytes]:
    """The lines that are not empty. Errors: RiceError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise RiceError(f"cannot read {path}: {error.strerror or error}") from error


class _Text:
    """JSON text that is read as far as it is needed. Errors of its methods: ValueError."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.text, self.place, self.ended = "", 0, False
        self.parse = json.JSONDecoder().raw_decode

    def rows(self) -> Iterator[Any]:
        """Elements of the list, or of the list under "data"."""
        if self.next() == "[":
            yield from self.elements("the list")
        elif self.next() == "{":
            yield from self.data()
        else:
            raise ValueError(f"it begins with {self.next()!r}")
        if self.next():
            raise ValueError("something follows; name a file with a row on every line .jsonl")

    def data(self) -> Iterator[Any]:
        """Elements of "data" of an object, whose other values are passed over."""
        self.take("{")
        found = False
        while self.next() != "}":
            key = self.value()
            self.take(":")
            if key == "data" and self.next() == "[" and not found:
                found = True
                yield from self.elements("data")
            else:
                self.value()
            if self.next() != "}":
                self.take(",")
        self.take("}")
        if not found:
            raise ValueError("an object without a list 'data'")

    def elements(self, where: str) -> Iterator[Any]:
        """Of a list."""
        self.take("[")
        count = 0
        while self.next() != "]":
            try:
                value = self.value()
                if self.next() != "]":
                    self.take(",")
                    if self.next() == "]":
                        raise ValueError("a comma before ]")
            except ValueError as error:
                raise ValueError(f"row {count} of {where}, counted from 0: {error}") from error
            yield value
            count += 1
        self.take("]")

    def next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            found = _SPACE.match(self.text, self.place)
            self.place = found.end() if found else self.place
            if self.place < len(self.text) or not self.more():
                return self.text[self.place : self.place + 1]

    def take(self, character: str) -> None:
        """Pass over what must come next."""
        found = self.next()
        if found != character:
            raise ValueError(f"expected {character!r}, got {found!r}" if found else "is the file cut off?")
        self.place += 1

    def value(self) -> Any:
        """The next value."""
        self.next()
        while True:
            try:
                value, end = self.parse(self.text, self.place)
            except json.JSONDecodeError as error:
                if not self._may_go_on(error):
                    raise ValueError(error.msg) from error
                if self.more():
                    continue
                raise ValueError(f"{error.msg}; is the file cut off?") from error
            if end > len(self.text) - _NEAR_END and self.more():  # of 1.5e7, 1.5 is one, too
                continue
            self.place = end
            return value

    def more(self) -> bool:
        """Read on, at least as much as there is, so that a long value is not parsed anew for every piece."""
        piece = self.file.read(max(CHUNK, len(self.text) - self.place))
        self.ended = not piece
        if piece:
            self.text, self.place = self.text[self.place :] + piece, 0
        return bool(piece)

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _NEAR_END
