"""Train the head on pairs. The loop is `probes.fit`; here are its batches, its loss and its log.

Shapes: B pairs of this rank, Z and X tokens of template and search, D width.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from probes.fit import FitConfig, autocast
from probes.images import load_ahead
from probes.watch import Run, fit_watched
from rice.encoders.base import Encoder
from rice.train.world import World
from tracking.config import TrackingConfig
from tracking.loss import tracking_loss
from tracking.model import TrackingHead, tokens
from tracking.pairs import Sampler, numbers


class Batch(NamedTuple):
    """Frozen tokens (B, Z, D) and (B, X, D), and the targets (B, 4) in the search."""

    template: Tensor
    search: Tensor
    boxes: Tensor


def train_head(encoder: Encoder, head: TrackingHead, sampler: Sampler, run: Run) -> None:
    """Train in place; errors: see `fit_watched`."""
    fit_watched(
        head,
        lambda start: batches(encoder, sampler, start, run.world),
        _losses,
        fit_config(sampler.config),
        run,
        batch=sampler.config.batch,
    )


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
    milestones = () if config.drop_at is None else (config.drop_at,)
    return config.schedule(config.updates, warmup=config.warmup, milestones=milestones)


def _losses(head: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return tracking_loss(head(batch.template, batch.search), batch.boxes)
