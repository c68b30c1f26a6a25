"""What a person sees of a running sweep: bars on a terminal, plain lines elsewhere."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from probes.sweeps.plan import Cell
from probes.sweeps.pool import Outcome


class BarBoard:
    """One bar for each running cell, one for all."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Bars(*columns, console=console, transient=True)
        self._all = self._bars.add_task("cells", total=total)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, cell: Cell) -> None:
        self._tasks[cell.key] = self._bars.add_task(f"{cell.title}: starting", total=None)

    def step(self, cell: Cell, description: str, done: int, total: int | None) -> None:
        self._bars.update(
            self._tasks[cell.key], description=f"{cell.title}: {description}", completed=done, total=total
        )

    def finish(self, outcome: Outcome) -> None:
        task = self._tasks.pop(outcome.cell.key, None)
        if task is not None:
            self._bars.remove_task(task)
        if outcome.state != "waiting":
            self._bars.advance(self._all)
            self._bars.console.print(Text(_line(outcome)))


class LineBoard:
    """A line for each cell that starts or ends."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._ended = console, total, 0
        self._waiting: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def start(self, cell: Cell) -> None:
        if cell.key not in self._waiting:
            self._print(f"{cell.title}: started")

    def step(self, cell: Cell, description: str, done: int, total: int | None) -> None:
        return  # a log file wants no moving bar

    def finish(self, outcome: Outcome) -> None:
        if outcome.state != "waiting":
            self._ended += 1
            self._print(f"[{self._ended}/{self._total}] {_line(outcome)}")
        elif outcome.cell.key not in self._waiting:
            self._waiting.add(outcome.cell.key)
            self._print(_line(outcome))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def summary(outcomes: Sequence[Outcome], kept: int, console: Console) -> None:
    """Print the table of all cells of this call, and why and where the failed ones failed."""
    name = Column("encoder", overflow="fold")  # never cut a name short
    table = Table(name, "probe", "dataset", "seeds", "state", "time", title="Cells of this run", title_justify="left")
    for outcome in outcomes:
        cell, style = outcome.cell, "red" if outcome.state == "failed" else None
        seeds = ", ".join(map(str, cell.seeds))
        words = (
            cell.encoder.label,
            cell.probe,
            f"{cell.dataset.name}{cell.variant}",
            seeds,
            outcome.state,
            _duration(outcome.seconds),
        )
        table.add_row(*(Text(word) for word in words), style=style)
    if outcomes:
        console.print(table)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        text = Text(f"FAILED {outcome.cell.title}: {outcome.reason}\n  log: {outcome.log}", style="red")
        console.print(text, soft_wrap=True)  # a path must stay in one piece
    done = len(outcomes) - len(failed)
    console.print(f"{done} cells done, {len(failed)} failed, {kept} were already there", highlight=False)


def _line(outcome: Outcome) -> str:
    text = f"{outcome.cell.title}: {outcome.state} after {_duration(outcome.seconds)}"
    return text if outcome.reason is None else f"{text}: {outcome.reason}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
