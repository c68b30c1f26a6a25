"""A training's log: losses by part now and then, and what evaluations on the way say."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from rice.train.metrics import JsonLines, StepRate

_REPORT_EVERY = 20

Evaluate = Callable[[int], Mapping[str, float]]
"""What is called after so many updates; what it returns stands in the log."""


class Watch:
    """A `probes.fit.Watcher` that writes losses, by part, and calls the evaluation.

    `metrics`: the log, None for ranks that write none; `every`: updates between evaluations; `batch`: items of a step.
    The loss function leaves its detached parts in `parts`.
    """

    def __init__(self, metrics: Path | None, evaluate: Evaluate | None, every: int, batch: int) -> None:
        self.every, self.parts = every, dict[str, Tensor]()
        self._metrics, self._evaluate = metrics, evaluate
        self._log: JsonLines | None = None
        self._rate = StepRate(batch)

    def begin(self, start: int) -> None:
        """Open the log, without what is about to be written again."""
        if self._metrics is not None:
            self._log = JsonLines(self._metrics, start)

    def step(self, update: int, loss: Tensor, learning_rate: float) -> None:
        """A line now and then: reading the losses waits for the device."""
        if self._log is None or (update % _REPORT_EVERY and (update + 1) % self.every):
            self._rate.count()
            return
        parts = {f"loss_{name}": value.item() for name, value in self.parts.items()}
        rate = {name: value for name, value in self._rate.measure().items() if name != "mfu"}
        self._log.write({"step": update, "loss": loss.item(), "learning_rate": learning_rate, **parts, **rate})

    def after(self, done: int) -> None:
        """Evaluate."""
        if self._evaluate is not None:
            with self._rate.paused():
                scores = self._evaluate(done)
            if self._log is not None:
                self._log.write({"step": done - 1, "steps_done": done, **scores})

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()
