"""A verb's function as tyro shows it on the command line: its parameters are the flags, its docstring is the help.

Left to itself tyro says a default of every flag, also `(default: None)` behind a text that says what happens without
it, lets None be typed, and leaves paragraphs to be cut by the terminal in the middle of a word.
"""

import functools
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable
from typing import Annotated, Any, TextIO, get_type_hints

import tyro


def shown(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, annotated so that its help says a default only where there is one to be said."""

    @functools.wraps(function)
    def verb(*values: Any, **flags: Any) -> Any:
        return function(*values, **flags)

    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    flags = {name: _flag(hints[name], parameter.default) for name, parameter in signature.parameters.items()}
    del verb.__wrapped__  # tyro would read that one
    vars(verb).update(__signature__=signature)
    verb.__annotations__ = hints | flags
    return verb


def _flag(hint: Any, default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return Annotated[hint, tyro.conf.arg(help_behavior_hint="(required)")]
    if default is None:
        hint = Annotated[hint, tyro.conf.DisallowNone]
    if default is None or default is False or default == ():
        hint = Annotated[hint, tyro.conf.arg(help_behavior_hint="")]
    return hint


class Wrapped:
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
