"""The one loop that trains heads on frozen features: every probe that learns anything learns it here.

A probe gives the head, its batches, and the loss; the loop owns the optimiser, the schedule, precision, clipping,
progress and resuming. On several ranks the caller wraps `head` in DistributedDataParallel and gives each rank its own
part of the batches; rank 0 alone writes the checkpoint, from which all resume.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rice.errors import RiceError
from rice.files import atomic_write
from rice.progress import Progress
from rice.train.world import World

Batch = TypeVar("Batch")
Indices = NDArray[np.int64]

_CHECK_EVERY = 50
_CHECKPOINT_EVERY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """AdamW with a linear warm-up, then a cosine to zero or, with `milestones`, steps to a tenth.

    Args:
        updates: optimiser steps.
        learning_rate: peak; a parameter group with its own `lr` keeps that one.
        weight_decay: decoupled (AdamW).
        warmup: updates of linear warm-up.
        milestones: shares of the updates, ascending, after each of which the rate is a tenth of what it was.
        clip: largest gradient norm, per parameter group, so that groups do not disturb each other; None: no clipping.
        amp: bf16 autocast on CUDA devices (no effect elsewhere).
    """

    updates: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 0
    milestones: tuple[float, ...] = ()
    clip: float | None = 1.0
    amp: bool = True

    def factor(self, update: int) -> float:
        """Share of the peak learning rate at `update`, counted from 0."""
        if update < self.warmup:
            return (update + 1) / self.warmup
        if self.milestones:
            return float(0.1 ** sum(update >= share * self.updates for share in self.milestones))
        return 0.5 * (1 + math.cos(math.pi * (update - self.warmup) / max(self.updates - self.warmup, 1)))


class Watcher(Protocol):
    """What a caller may want to know of a fit while it runs. `every`: updates between two calls of `after`."""

    every: int

    def begin(self, start: int) -> None:
        """Update `start` comes next: 0, or what a checkpoint led to."""
        ...

    def step(self, update: int, loss: Tensor, learning_rate: float) -> None:
        """An update is done. Reading `loss` waits for the device."""
        ...

    def after(self, done: int) -> None:
        """`done` updates are done: a multiple of `every`, or all. The head is in evaluation mode.

        A run that is killed in here, or before the next checkpoint, calls it again.
        """
        ...


def fit(
    head: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[nn.Module, Batch], Tensor],
    config: FitConfig,
    *,
    seed: int,
    progress: Progress,
    label: str = "fit",
    groups: Sequence[dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
    watcher: Watcher | None = None,
    world: World | None = None,
) -> None:
    """Train `head` in place, on the device that it is on.

    `batches(start)` yields the batches of updates start, start + 1, ...: batch k must not depend on `start`, see
    `seeded_batches`. `loss(head, batch)` is a scalar. `groups`: AdamW parameter groups, default all that need a
    gradient. With a `checkpoint`, a killed run resumes with the numbers of an unbroken one. The random state outside
    is left as it was; inside it is a function of (seed, update, rank).
    Errors: RiceError for a loss that is not finite, batches that run out, or a checkpoint of another configuration.
    """
    trainable = [p for p in head.parameters() if p.requires_grad]
    device = trainable[0].device
    rank, leads = (0, True) if world is None else (world.rank, world.leads)
    optimiser = torch.optim.AdamW(
        groups if groups is not None else trainable, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    peaks = [group["lr"] for group in optimiser.param_groups]
    identity = {"config": dataclasses.asdict(config), "seed": seed, "peaks": peaks}
    start = _resume(checkpoint, identity, head, optimiser, device)
    if watcher is not None:
        watcher.begin(start)
    head.train()
    saved = time.monotonic()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        source = iter(batches(start)) if start < config.updates else iter(())
        for update in progress.track(range(start, config.updates), label):
            torch.manual_seed((seed * 1_000_003 + update) + rank * 1_000_000_007)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * config.factor(update)
            value = _step(head, _next(source, update), loss, optimiser, config, device)
            last = update + 1 == config.updates
            if (last or update % _CHECK_EVERY == 0) and not torch.isfinite(value):
                raise RiceError(f"{label}: the loss is {value.item()} at update {update}; lower the learning rate")
            if watcher is not None:
                watcher.step(update, value, config.learning_rate * config.factor(update))
            due = watcher is not None and (last or (update + 1) % watcher.every == 0)
            if due and watcher is not None:
                head.eval()
                watcher.after(update + 1)
                head.train()
            if checkpoint is not None and leads and (last or due or time.monotonic() - saved > _CHECKPOINT_EVERY_S):
                _save(checkpoint, identity, head, optimiser, update + 1)
                saved = time.monotonic()
    head.eval()


def seeded_batches(count: int, batch: int, seed: int, start: int = 0) -> Iterator[Indices]:
    """Endless batches of indices into `count` items from update `start` on: batch k is a function of (seed, k) alone.

    Every epoch is a fresh permutation; what does not fill a batch is left out of that epoch.
    """
    batch = min(batch, count)
    per_epoch = count // batch
    while True:
        order = np.random.default_rng((seed, start // per_epoch)).permutation(count)
        for k in range(start % per_epoch, per_epoch):
            yield order[k * batch : (k + 1) * batch]
            start += 1


def split_batches(items: Indices, batch: int) -> list[Indices]:
    """`items` in order, in batches; the last one may be smaller."""
    return [items[k : k + batch] for k in range(0, len(items), batch)]


def autocast(device: torch.device, amp: bool) -> torch.autocast:
    """bf16 where `amp` asks for it on a GPU that has it; no effect elsewhere."""
    enabled = amp and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _step(
    head: nn.Module,
    batch: Batch,
    loss: Callable[[nn.Module, Batch], Tensor],
    optimiser: torch.optim.Optimizer,
    config: FitConfig,
    device: torch.device,
) -> Tensor:
    with autocast(device, config.amp):
        value = loss(head, batch)
    optimiser.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    if config.clip is not None:
        for group in optimiser.param_groups:
            nn.utils.clip_grad_norm_(group["params"], config.clip)
    optimiser.step()
    return value.detach()


def _next(source: Iterator[Batch], update: int) -> Batch:
    try:
        return next(source)
    except StopIteration:
        raise RiceError(f"the batches ran out before update {update}") from None


def _bare(head: nn.Module) -> nn.Module:
    """The module itself, without DistributedDataParallel around it, so that any number of ranks can resume."""
    return head.module if isinstance(head, nn.parallel.DistributedDataParallel) else head


def _resume(
    checkpoint: Path | None,
    identity: dict[str, Any],
    head: nn.Module,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    """Load `checkpoint` where it exists; the update to go on from."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location=device, weights_only=True)
    if state["identity"] != identity:
        raise RiceError(f"{checkpoint} was written by another configuration; delete it")
    _bare(head).load_state_dict(state["head"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["update"])


def _save(
    checkpoint: Path, identity: dict[str, Any], head: nn.Module, optimiser: torch.optim.Optimizer, update: int
) -> None:
    state = {
        "identity": identity,
        "head": _bare(head).state_dict(),
        "optimiser": optimiser.state_dict(),
        "update": update,
    }
    with atomic_write(checkpoint, "wb") as file:
        torch.save(state, file)
