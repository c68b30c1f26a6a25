"""Damaged and hostile versions of a valid file: a function of the file, the seed and the number of the case."""

import json
import random
from collections.abc import Callable
from typing import Any

_WORDS = (
    b"", b"\x00", b"\n", b"\r\n", b"\xff\xfe", b"\xed\xa0\x80", b"{", b"}", b"[", b"]", b'"', b"\\ud800", b",", b":",
    b"null", b"true", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"1e-320", b"9223372036854775808",
    b"-9223372036854775809", b"4294967296", b"0.5", b"../../etc/passwd", b"/etc/passwd", b"a\x00b", b"%s%n",
    b"<script>", b"!!python/object/apply:os.system ['true']", b"&a [*a]", b"<!ENTITY a SYSTEM 'file:///etc/passwd'>",
    b"\xe2\x80\xae",
)  # fmt: skip
"""What parsers stumble over: ends of texts, numbers at the edges of their types, steps out of a folder, markup."""

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    " ", "x", "\x00", "\ud800", "../x", "/x", "a/../../b", "C:\\x", ".", "..", "x" * 5000, "1", [], {}, [[]], [None],
    [1, 2, 3], [0, 0, -1, -1], [0, 0, 1e400, 1], {"": None}, [[[[[[]]]]]], [10**20] * 4,
    {"size": [1, 1], "counts": "~"},
)  # fmt: skip
"""Put in the place of any value of a JSON document."""


def damaged(valid: bytes, seed: int, case: int) -> bytes:
    """A version of a file: of JSON half the cases change its structure, the others its bytes."""
    dice = random.Random(f"{seed} {case}")
    if dice.random() < 0.5:
        changed = _restructured(valid, dice)
        if changed is not None:
            return changed
    data = bytearray(valid)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8, 32))):
        dice.choice(_EDITS)(data, dice)
    return bytes(data)


def _restructured(valid: bytes, dice: random.Random) -> bytes | None:
    """JSON (or a line of JSON lines) in which one or two values are others, are gone, or come twice."""
    try:
        document = json.loads(valid)
    except ValueError:
        return None
    for _ in range(dice.choice((1, 1, 2))):
        places = list(_places(document))
        if not places:
            break
        holder, key = dice.choice(places)
        match dice.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 2:
                other, name = dice.choice(places)
                # A list may have grown shorter by now.
                holder[key] = other[name] if isinstance(other, dict) or name < len(other) else None
            case _:
                holder[key] = dice.choice(_VALUES)
    try:
        return json.dumps(document, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # a value may have come to hold itself
        return None


def _places(value: Any) -> Any:
    """Every holder and key, however deep; not into what holds itself."""
    stack, seen = [value], set()
    while stack:
        holder = stack.pop()
        if not isinstance(holder, (dict, list)) or id(holder) in seen:
            continue
        seen.add(id(holder))
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            yield holder, key
            stack.append(holder[key])


def _flip(data: bytearray, dice: random.Random) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set(data: bytearray, dice: random.Random) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _drop(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data) + 1)
    del data[start : start + dice.choice((1, 2, 4, 16, 64))]


def _word(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data) + 1)
    data[start : start + dice.choice((0, 0, 1, 4))] = dice.choice(_WORDS)


def _repeat(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data) + 1)
    part = data[start : start + dice.choice((1, 4, 16, 64, 256))]
    data[start:start] = part * dice.choice((1, 2, 64))


def _move(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data) + 1)
    part = bytes(data[start : start + dice.choice((1, 4, 16, 64))])
    del data[start : start + len(part)]
    place = dice.randrange(len(data) + 1)
    data[place:place] = part


def _number(data: bytearray, dice: random.Random) -> None:
    """Four or eight bytes as a length or an offset that leads nowhere."""
    if data:
        start = dice.randrange(len(data))
        value = dice.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, dice.randrange(2**16)))
        data[start : start + 4] = value.to_bytes(4, dice.choice(("little", "big")))


_EDITS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _set, _cut, _drop, _word, _word, _repeat, _move, _number,
)  # fmt: skip
