"""A verb's function as tyro shows it on the command line: its parameters are the flags, its docstring is the help.

Left to itself tyro says a default of every flag, also `(default: None)` behind a text that says what happens without
it, lets None be typed, and leaves paragraphs to be cut by the terminal in the middle of a word.
"""

import contextlib
import functools
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TextIO, get_type_hints

import tyro


def shown(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose help says a default only where there is one, in texts without our source's line ends."""

    @functools.wraps(function)
    def verb(*values: Any, **flags: Any) -> Any:
        return function(*values, **flags)

    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    flags = {name: _flag(hints[name], parameter.default) for name, parameter in signature.parameters.items()}
    del verb.__wrapped__  # tyro would read that one
    vars(verb).update(__signature__=signature)
    verb.__doc__ = unwrapped(function.__doc__ or "")
    verb.__annotations__ = hints | flags
    return verb


def unwrapped(docstring: str) -> str:
    """Every paragraph and every argument's text on one line, so that tyro fills them to the terminal's width.

    It keeps the line ends of an argument's text, which are those of our source. Other indented lines stay.
    """
    text, args, arguments = inspect.cleandoc(docstring).partition("\nArgs:\n")
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text) + args + re.sub(r"\n {5,}(?=\S)", " ", arguments)


def _flag(hint: Any, default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return Annotated[hint, tyro.conf.arg(help_behavior_hint="(required)")]
    if default is None:
        hint = Annotated[hint, tyro.conf.DisallowNone]
    if default is None or default is False or default == ():
        hint = Annotated[hint, tyro.conf.arg(help_behavior_hint="")]
    return hint


def wrapped_help(arguments: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    """Wraps what is printed inside where `arguments` ask for a help."""
    if {"-h", "--help"}.isdisjoint(arguments):
        return contextlib.nullcontext()
    return contextlib.redirect_stdout(_Wrapped(sys.stdout))


class _Wrapped:
    """Standard output for a help: wraps the paragraphs, which tyro prints as one long line each."""

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)

    def write(self, text: str) -> int:
        """Frames, and examples, which are indented, stay as they are."""
        width = shutil.get_terminal_size().columns
        lines = [textwrap.fill(line, width) if re.match(r"\w", line) else line for line in text.split("\n")]
        return self.out.write("\n".join(lines))
