"""Pickles from outside, read as plain data: what names code is refused before anything of it runs.

REFER publishes its expressions as pickles of Python 2 (protocols 0 and 2, texts as bytes). A pickle is a program; one
that makes only dictionaries, lists, texts, numbers, bytes and None needs the opcodes below and no other. Tuples and
sets are refused as well: REFER's records have none, and as a key of a dictionary a tuple of few bytes can take a
process down, as its hash has no limit of depth or time.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

from rice.errors import RiceError, os_errors_as

_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK DUP
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    LIST EMPTY_LIST APPEND APPENDS DICT EMPTY_DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
"""
"""Left out: what imports (GLOBAL, INST, STACK_GLOBAL, EXT1 ...), calls (REDUCE, BUILD, OBJ, NEWOBJ ...), asks for
objects that are kept elsewhere (PERSID, BINPERSID), or takes buffers; tuples and sets."""

_PLAIN = frozenset(_OPCODES.split())

_STORES = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])

_DAMAGE = (
    *(pickle.UnpicklingError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError),
    *(OverflowError, MemoryError, RecursionError),
)
"""What the standard library raises on pickles that are cut off or altered."""


def read_pickle(path: Path) -> Any:
    """The plain data of a pickle of any protocol; byte strings of Python 2 are read as UTF-8, what is none as half
    surrogates; in protocol 0 they must be ASCII.

    Errors: RiceError naming the file: missing, no pickle, damaged, or one that names a class or a function.
    """
    with os_errors_as(f"cannot read {path}"):
        data = path.read_bytes()
    try:
        _check(path, data)
        return _Unpickler(path, data).load()
    except UnicodeDecodeError as error:
        if error.encoding != "ascii":
            raise RiceError(f"{path} is not a readable pickle ({error}); get a whole copy") from error
        raise RiceError(f"{path} is a pickle of protocol 0 with text outside ASCII; save it with protocol 2") from error
    except _DAMAGE as error:
        reason = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise RiceError(f"{path} is not a readable pickle ({reason}); get a whole copy") from error


def _check(path: Path, data: bytes) -> None:
    """Every opcode, before the first one runs. A place in the memo far beyond the file's length would be memory to
    reserve."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _PLAIN:
            what = f" {argument!r}"[:80] if isinstance(argument, str) else ""
            _refuse(path, f"the opcode {opcode.name}{what}")
        if opcode.name in _STORES and argument and argument > len(data):
            raise ValueError(f"place {argument} in a memo of at most {len(data)}")


class _Unpickler(pickle.Unpickler):
    """A second lock, should pickletools and pickle ever read the same bytes differently."""

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", errors="surrogateescape")
        self._path = path

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        _refuse(self._path, f"{module_name}.{global_name}")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        _refuse(self._path, "an object that is kept elsewhere")


def _refuse(path: Path, what: str) -> NoReturn:
    raise RiceError(
        f"expected plain data (dictionaries, lists, texts, numbers) in the pickle {path}, got {what}; it could run any "
        "program, so it is not read: get the file from its authors"
    )
