"""Train the head on pairs. The loop is `probes.fit`; here are its batches, its loss and its log.

Shapes: B pairs of this rank, Z and X tokens of template and search, D width.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from probes.fit import FitConfig, autocast, fit
from probes.images import load_ahead
from probes.watch import Evaluate, Watch
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.progress import Progress
from rice.train.world import World
from tracking.config import TrackingConfig
from tracking.loss import tracking_loss
from tracking.model import TrackingHead, tokens
from tracking.pairs import Sampler, numbers

CHECKPOINT, METRICS = "training.pt", "metrics.jsonl"


class Batch(NamedTuple):
    """Frozen tokens (B, Z, D) and (B, X, D), and the targets (B, 4) in the search."""

    template: Tensor
    search: Tensor
    boxes: Tensor


def train_head(
    encoder: Encoder,
    head: TrackingHead,
    sampler: Sampler,
    *,
    folder: Path,
    progress: Progress,
    world: World,
    evaluate: Evaluate | None = None,
    every: int = 0,
) -> None:
    """Train in place. `evaluate(done)` is called on every rank every `every` updates (0: only at the end), and at the
    end; what it returns stands in the log. `folder` holds the checkpoint, which resumes, and a line of losses now and
    then.

    Errors: RiceError where the batch does not divide by the ranks, or training diverges.
    """
    config = sampler.config
    if config.batch % world.size:
        raise RiceError(f"expected a batch that {world.size} ranks can share, got {config.batch}")
    module: nn.Module = head
    if world.size > 1:
        devices = [world.device] if world.device.type == "cuda" else None
        module = nn.parallel.DistributedDataParallel(head, device_ids=devices)
    watch = Watch(folder / METRICS if world.leads else None, evaluate, every or config.updates, config.batch)
    try:
        fit(
            module,
            lambda start: batches(encoder, sampler, start, world),
            partial(_loss, watch),
            fit_config(config),
            seed=sampler.seed,
            progress=progress,
            label=f"train, {config.updates} steps of {config.batch}",
            checkpoint=folder / CHECKPOINT,
            watcher=watch,
            world=world,
        )
    finally:
        watch.close()


def batches(encoder: Encoder, sampler: Sampler, start: int, world: World) -> Iterator[Batch]:
    """Of this rank, from step `start` on; pictures load in threads while a batch is learnt."""
    share = numbers(sampler.config.batch, start, world.rank, world.size)
    for pairs in load_ahead(sampler.pair, share):
        template, search, boxes = (torch.stack(parts).to(encoder.device) for parts in zip(*pairs, strict=True))
        with autocast(encoder.device, sampler.config.amp):
            frozen = tokens(encoder(template).patches), tokens(encoder(search).patches)
        yield Batch(*frozen, boxes)


def fit_config(config: TrackingConfig) -> FitConfig:
    """The schedule in updates."""
    return FitConfig(
        updates=config.updates,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup=config.warmup,
        milestones=() if config.drop_at is None else (config.drop_at,),
        clip=config.clip,
        amp=config.amp,
    )


def _loss(watch: Watch, head: nn.Module, batch: Batch) -> Tensor:
    losses = tracking_loss(head(batch.template, batch.search), batch.boxes)
    watch.parts = {name: value.detach() for name, value in losses.items()}
    return torch.stack(list(losses.values())).sum()
