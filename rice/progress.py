"""Progress of long jobs: one protocol, so that no probe owns a bar and no library prints.

A sweep's cell writes JSON lines that its parent turns into bars; a command shows bars itself; a test stays silent.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import IO, Protocol, TypeVar

T = TypeVar("T")

LINE_PREFIX = "@progress "
_INTERVAL_S = 0.2


class Progress(Protocol):
    """Says how far a loop has come."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield `items`, reporting after each. `total` is taken from `len(items)` where it is not given."""
        ...


class SilentProgress:
    """Reports nothing."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield `items`."""
        yield from items


class BarProgress:
    """A bar on standard error for each loop (rich); plain lines when it is not a terminal."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` under a bar with rate and remaining time."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            Task,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        class RateColumn(ProgressColumn):
            def render(self, task: Task) -> Text:
                elapsed = task.finished_time or task.elapsed  # rich's own speed ignores the first item's time
                return Text(format_rate(task.completed / elapsed if elapsed else None), style="progress.data.speed")

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=console, transient=console.is_terminal) as bars:
            yield from bars.track(items, total=total_of(items, total), description=description)


def bars_if(leads: bool) -> Progress:
    """Bars on the one of several ranks that speaks for all; the others are silent."""
    return BarProgress() if leads else SilentProgress()


class LineProgress:
    """One JSON line per report, at most five a second, for a parent process that shows the bars."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream if stream is not None else sys.stdout

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield `items`; the first and the last report are always written."""
        total = total_of(items, total)
        done, last = 0, time.monotonic()
        self._write(description, done, total)
        for item in items:
            yield item
            done += 1
            if time.monotonic() - last >= _INTERVAL_S:
                self._write(description, done, total)
                last = time.monotonic()
        self._write(description, done, total)

    def say(self, line: str) -> None:
        """A line of another kind, for the parent alone."""
        with contextlib.suppress(BrokenPipeError):  # the parent is gone; the job's own watch ends it
            self.stream.write(f"{line}\n")
            self.stream.flush()

    def _write(self, description: str, done: int, total: int | None) -> None:
        line = json.dumps({"description": description, "done": done, "total": total})
        self.say(f"{LINE_PREFIX}{line}")


def format_rate(per_second: float | None) -> str:
    """12.3 -> '12.3/s', 0.05 -> '20.0 s each', None -> ''."""
    if not per_second:
        return ""
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"


def total_of(items: Iterable[T], total: int | None) -> int | None:
    """The number of items, where it is given or known."""
    if total is None and isinstance(items, Sized):
        return len(items)
    return total
