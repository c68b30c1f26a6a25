"""Errors that a user can mend. The command line prints them as one line and exits with status 2."""

import contextlib
import difflib
import errno
import importlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType

_TYPE = re.compile(r"[\w.]+: ")
_LONGEST, _TAIL = 1500, 300
"""Characters of a message, and of its end where it has to be cut."""

NO_ROOM = "No space left on device; make room, then run the same command again"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_WORDS = re.compile(
    rf"\[errno {errno.ENOSPC}\]|\(os error {errno.ENOSPC}\)|\d+ requested and \d+ written", re.IGNORECASE
)
"""What shutil, safetensors and NumPy say instead of a number."""


class RiceError(Exception):
    """Something outside the program is wrong. The message says what was expected, what came, and what to do.

    It is one line that a terminal can show, whatever it quotes of a foreign file: line breaks become spaces, control
    characters and halves of surrogate pairs their escapes, and of a message beyond all measure the middle is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_presentable(message))


def _presentable(message: str) -> str:
    if message.startswith("Caught ") and "\nOriginal Traceback " in message:
        # torch raises an error of a process that loads data again, with its traceback as the text: its own line is last
        message = _TYPE.sub("", message.rstrip().rpartition("\n")[2], count=1)
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST - _TAIL]} [...] {message[-_TAIL:]}"
    if message.isprintable():
        return message
    line = " ".join(message.split("\n"))
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c)[0] == "C" else c for c in line)


class NoRoomError(RiceError):
    """The disk, or a quota on it, is full: `no_room`."""


def no_room(what: str) -> NoRoomError:
    """The error that says so of `what` could not be done."""
    return NoRoomError(f"{what}: {NO_ROOM}")


class MissingExtraError(RiceError):
    """An optional dependency is not installed; the message carries the pip line that adds it."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra of rice-suite brings it.

    Errors: MissingExtraError with the exact pip line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there; something that it needs is not
        raise missing(module, extra) from error


def missing(package: str, extra: str) -> MissingExtraError:
    """The error that says how to install it."""
    return MissingExtraError(f"{package} is not installed; add it with: pip install 'rice-suite[{extra}]'")


def check_ranges(config: object, holds: Mapping[str, bool], verb: str) -> None:
    """`holds`: field of `config` -> whether its value is one that it may have. Errors: RiceError naming the others."""
    wrong = [f"{name}={getattr(config, name)}" for name, right in holds.items() if not right]
    if wrong:
        raise RiceError(f"{', '.join(wrong)} is out of range; see {verb} --help")


@contextlib.contextmanager
def os_errors_as(what: str) -> Iterator[None]:
    """An OSError inside becomes a RiceError: `what`, and the system's own words."""
    try:
        yield
    except OSError as error:
        if out_of_room(error):
            raise no_room(what) from error
        advice = "; give another place" if error.errno == errno.EROFS else ""
        raise RiceError(f"{what}: {error.strerror or error}{advice}") from error


def out_of_room(error: BaseException) -> bool:
    """Whether a full disk, or a quota, is behind an error: libraries raise their own while they handle the system's."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        if (isinstance(found, OSError) and found.errno in _FULL) or _FULL_WORDS.search(str(found)):
            return True
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return False


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean a, b?' for an error message, or an empty string when nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {', '.join(matches)}?" if matches else ""
