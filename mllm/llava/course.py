"""The course of a training by transformers' Trainer: its progress, its log, the epoch of its bins."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mllm.llava.packing import StepBins
from rice.errors import RiceError
from rice.progress import Progress
from rice.train.metrics import JsonLines, StepRate

_NOT_LOGGED = ("epoch", "step", "num_input_tokens_seen")


class Course(TrainerCallback):  # type: ignore[misc]
    """Shows a training's progress, writes its log to `path`, and tells the bins which epoch it is."""

    def __init__(self, path: Path, bins: StepBins, progress: Progress, total: int, *, leads: bool) -> None:
        self._path, self._bins, self._progress, self._total, self._leads = path, bins, progress, total, leads
        self._log: JsonLines | None = None
        self._bar: Iterator[int] = iter(())
        self._rate = StepRate(bins.batch)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the log, without what is about to be written again."""
        start = state.global_step
        if self._leads:
            self._log = JsonLines(self._path, start)
            steps = range(start, self._total)
            self._bar = self._progress.track(steps, f"train, {self._total} steps of {self._bins.batch}")
            next(self._bar, None)
        self._rate = StepRate(self._bins.batch, args.device)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the loader begins: transformers reaches no batch sampler behind accelerate's skipping one."""
        self._bins.epoch = state.global_step // self._bins.steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One more."""
        next(self._bar, None)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """A line: loss and its parts, gradient norm, the first group's rate, tokens per second, seconds, memory."""
        if logs is None or "loss" not in logs:
            return
        step = state.global_step - 1
        for name in ("loss", "grad_norm"):
            if not math.isfinite(value := float(logs.get(name, 0.0))):
                what = name.replace("grad_norm", "gradient norm")
                raise RiceError(f"the {what} of step {step} is {value}; lower the learning rates or mend the rows")
        if self._log is None:
            return
        measured = self._rate.measure()
        seconds = measured["step_s"] or math.inf
        line = {name: value for name, value in logs.items() if name not in _NOT_LOGGED}
        tokens = self._bins.tokens(*divmod(step, self._bins.steps)) / seconds
        kept = {name: measured[name] for name in ("step_s", "memory")}
        self._log.write({"step": step, **line, "tokens_per_s": tokens, **kept})

    def close(self) -> None:
        """Close bar and log, whatever happened."""
        closer = getattr(self._bar, "close", None)
        if closer is not None:
            closer()
        if self._log is not None:
            self._log.close()
