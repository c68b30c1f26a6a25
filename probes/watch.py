"""A training that is watched: on all ranks, with a log of losses by part, and evaluations on the way."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.fit import Batch, FitConfig, fit
from rice.errors import RiceError
from rice.progress import Progress
from rice.train.metrics import JsonLines, StepRate
from rice.train.world import World

CHECKPOINT, METRICS = "training.pt", "metrics.jsonl"

_REPORT_EVERY = 20

Evaluate = Callable[[int], Mapping[str, float]]
"""What is called after so many updates; what it returns stands in the log."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a training runs and who looks at it.

    `folder` holds its checkpoint, which resumes, and the log. `evaluate(done)` is called on every rank every `every`
    updates (0: only at the end), and at the end; what it returns stands in the log.
    """

    seed: int
    folder: Path
    progress: Progress
    world: World
    evaluate: Evaluate | None = None
    every: int = 0


def fit_watched(
    head: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    losses: Callable[[nn.Module, Batch], Mapping[str, Tensor]],
    config: FitConfig,
    run: Run,
    *,
    batch: int,
    groups: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Train `head` in place by `probes.fit.fit`; on several ranks their gradients are averaged.

    `batch`: items of a step, over all ranks. `losses(head, batch)`: parts by name, whose sum is the loss.
    Errors: RiceError where the batch does not divide by the ranks; as `fit`.
    """
    world = run.world
    if batch % world.size:
        raise RiceError(f"expected a batch that {world.size} ranks can share, got {batch}")
    module = head
    if world.size > 1:
        devices = [world.device] if world.device.type == "cuda" else None
        module = nn.parallel.DistributedDataParallel(head, device_ids=devices)
    watch = Watch(run.folder / METRICS if world.leads else None, run.evaluate, run.every or config.updates, batch)

    def loss(module: nn.Module, items: Batch) -> Tensor:
        parts = losses(module, items)
        watch.parts = {name: value.detach() for name, value in parts.items()}
        return torch.stack(list(parts.values())).sum()

    try:
        fit(
            module,
            batches,
            loss,
            config,
            seed=run.seed,
            progress=run.progress,
            label=f"train, {config.updates} steps of {batch}",
            groups=groups,
            checkpoint=run.folder / CHECKPOINT,
            watcher=watch,
            world=world,
        )
    finally:
        watch.close()


class Watch:
    """A `probes.fit.Watcher` that writes losses, by part, and calls the evaluation.

    `metrics`: the log, None for ranks that write none; `every`: updates between evaluations; `batch`: items of a step.
    `parts`: of the latest loss, detached.
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
