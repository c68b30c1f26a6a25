"""Where else a run's lines go: the live line, TensorBoard, Weights & Biases."""

import math
import sys
import time
import uuid
from pathlib import Path
from typing import IO, Any

from rice.errors import require
from rice.files import format_bytes, read_json, write_json
from rice.progress import format_rate
from rice.train.metrics import JsonLines, Line, MetricsLog, Sink

_PLAIN_EVERY_S = 10.0
_PLAIN = (("loss", ".4f"), ("grad_norm", ".3f"), ("learning_rate", ".2e"))


def open_log(
    path: Path,
    *,
    start: int,
    steps: int,
    leads: bool = True,
    tensorboard: bool = False,
    wandb: str | None = None,
    config: Line | None = None,
) -> MetricsLog:
    """The run's log: `path` (JSON lines), the live line, and what else was asked for, beside `path`.

    start: the step that comes next; steps: of the whole run; leads: whether this rank writes at all; wandb: the name of
    a project there; config: what to show with it.
    Errors: RiceError where a file cannot be written; MissingExtraError with the pip line.
    """
    if not leads:
        return MetricsLog(())
    sinks: list[Sink] = []
    if tensorboard:
        sinks.append(TensorBoard(path.parent / "tensorboard", start))
    if wandb is not None:
        sinks.append(WeightsAndBiases(wandb, path.parent, dict(config or {})))
    # Last: a missing extra must neither touch the file nor leave a live line behind.
    return MetricsLog([*sinks, JsonLines(path, start), LiveLine(steps)])


class LiveLine:
    """The state of the run in one line of standard error that is written over; a plain line now and then in a file."""

    def __init__(self, steps: int, stream: IO[str] | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._steps = steps
        self._console = Console(file=stream or sys.stderr, soft_wrap=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._said = -math.inf
        if self._live is not None:
            self._live.start()

    def write(self, line: Line) -> None:
        """Validations stay on the screen, above the live line."""
        text = describe(line, self._steps)
        if "loss" in line and self._live is not None:
            from rich.text import Text

            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif "loss" not in line or line["step"] + 1 == self._steps or time.monotonic() - self._said > _PLAIN_EVERY_S:
            self._console.print(text, markup=False)
            self._said = time.monotonic()

    def close(self) -> None:
        """The last line stays on the screen."""
        if self._live is not None:
            self._live.stop()


class TensorBoard:
    """Events in `folder`; those of step `start` and later are hidden, as they come again."""

    def __init__(self, folder: Path, start: int) -> None:
        require("tensorboard", "train")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start)

    def write(self, line: Line) -> None:
        """Every number under its name."""
        for name, value in _numbers(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WeightsAndBiases:
    """One run there for one output folder, however often it is resumed: its id is kept in wandb.json."""

    def __init__(self, project: str, folder: Path, config: dict[str, Any]) -> None:
        client: Any = require("wandb", "train")
        file = folder / "wandb.json"
        if not file.exists():
            write_json(file, {"id": uuid.uuid4().hex[:12]})
        self._run = client.init(
            project=project, id=read_json(file)["id"], resume="allow", dir=str(folder), config=config
        )

    def write(self, line: Line) -> None:
        """Every number under its name. The service ignores steps that it already has."""
        self._run.log(_numbers(line), step=line["step"])

    def close(self) -> None:
        """Wait until all is sent."""
        self._run.finish()


def describe(line: Line, steps: int) -> str:
    """A line of metrics for the eye: 'step 120/1000  loss 3.2100  812.0/s  MFU 41 %  12.3 GiB  0:12:03 left'."""
    parts = [f"step {line['step'] + 1}/{steps}"]
    parts += [f"{name.replace('_', ' ')} {line[name]:{form}}" for name, form in _PLAIN if name in line]
    if "loss" not in line:
        parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in _numbers(line).items() if name != "step"]
        return "  ".join(parts)
    if line.get("images_per_s"):
        parts.append(f"images {format_rate(line['images_per_s'])}")
    if line.get("mfu") is not None:
        parts.append(f"MFU {line['mfu']:.0%}".replace("%", " %"))
    if line.get("memory"):
        parts.append(format_bytes(line["memory"]))
    if line.get("step_s"):
        parts.append(f"{_clock((steps - line['step'] - 1) * line['step_s'])} left")
    return "  ".join(parts)


def _numbers(line: Line) -> dict[str, float]:
    return {k: v for k, v in line.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
