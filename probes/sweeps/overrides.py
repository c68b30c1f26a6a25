"""`dotted.name: value` of a sweep file, rendered as the flags that a command line would take, and parsed as those."""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rice.errors import RiceError, nearest

Config = TypeVar("Config")


def flags(overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """{'fit.epochs': 3, 'amp': False, 'rates': [1, 2]} -> ('--fit.epochs=3', '--no-amp', '--rates', '1', '2').

    Errors: RiceError for a value that a flag cannot carry.
    """
    return tuple(word for name, value in overrides.items() for word in _words(name, value))


def parse_config(config: type[Config], words: Sequence[str], where: str) -> Config:
    """A config dataclass from flags, by tyro: the one parser. Errors: RiceError, one line that starts with `where`."""
    import tyro

    known = list(_names(config))
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and not _spellings(name) & set(known):
            hint = nearest(name, known) or f" Known: {', '.join(known) or 'none'}"
            raise RiceError(f"{where}: unknown option {name!r}.{hint}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(config, args=list(words))
    except SystemExit as error:
        raise RiceError(f"{where}: {_one_line(said.getvalue())}") from error
    except RiceError as error:  # the config's own check
        raise RiceError(f"{where}: {error}") from error


def _words(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        head, dot, last = name.rpartition(".")
        yield f"--{name}" if value else f"--{head}{dot}no-{last}"
    elif value is None or isinstance(value, (str, int, float)):
        yield f"--{name}={value}"
    elif isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        yield f"--{name}"
        yield from map(str, value)
    else:
        raise RiceError(f"option {name!r} takes a number, a text, true, false, null or a list of these, got {value!r}")


def _spellings(name: str) -> set[str]:
    """The fields that a flag may mean: kebab-case is allowed, and `no-` switches a truth value off."""
    field = name.replace("-", "_")
    return {field, re.sub(r"(^|\.)no_(?=[^.]*$)", r"\1", field)}


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields of a config dataclass and of those nested in it."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        yield prefix + field.name
        nested = [t for t in (hints[field.name], *typing.get_args(hints[field.name])) if dataclasses.is_dataclass(t)]
        for inner in nested:
            yield from _names(inner, f"{prefix}{field.name}.")


def _one_line(box: str) -> str:
    """The message inside the box that tyro draws around an error."""
    lines = [line.strip(" │|╭╮╰╯─-") for line in box.splitlines()]
    text = [line for line in lines if line]
    ends = [i for i, line in enumerate(text) if line.startswith(("Argument helptext", "For full helptext"))]
    return " ".join(text[: min(ends, default=None)][1:] or text)
