"""Train the linear heads on the fit part, choose the learning rate on the validation part. The test is not seen here.

Shapes: B pictures, T tokens of a picture, N = B T, D width, C classes, L learning rates.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import tee
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.dense.data import Material, subsample
from probes.dense.scores import mean_iou
from probes.fit import Indices, seeded_batches, split_batches
from probes.linear import ChannelStatistics, LinearBatch, LinearHeads, best_rate, fit_heads
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.dense.probe import DenseConfig


def train_and_choose(
    material: Material, config: "DenseConfig", *, seed: int, progress: Progress
) -> tuple[LinearHeads, int]:
    """The heads of one seed, and which of them to test: the best mean IoU on the validation part."""
    statistics = _token_statistics(material, config.batch, progress)
    items = subsample(material.parts.fit, config.train_fraction, seed)
    heads = train_heads(material, items, statistics, config, seed=seed, progress=progress)
    scores = validation_scores(heads, material, config.batch)
    return heads, best_rate(scores)


def _token_statistics(material: Material, batch: int, progress: Progress) -> ChannelStatistics:
    """Mean and deviation of each channel over all tokens of the fit part: one pass, shared by all seeds."""
    path = material.folder / "statistics.npz"
    if not path.exists():
        batches = split_batches(material.parts.fit, batch)
        stream = progress.track(material.train.stream(batches), "token statistics", len(batches))
        ChannelStatistics.of(stream).save(path)
    return ChannelStatistics.load(path)


def train_heads(
    material: Material,
    items: Indices,
    statistics: ChannelStatistics,
    config: "DenseConfig",
    *,
    seed: int,
    progress: Progress,
) -> LinearHeads:
    """One linear head per learning rate, trained on the pictures `items`; `seed`: initialisation and order."""
    generator = torch.Generator().manual_seed(seed)
    heads = LinearHeads(statistics, material.targets.shares(items), config.learning_rates, generator)
    heads.to(material.device)

    def batches(start: int) -> Iterator[LinearBatch]:
        order = (items[chosen] for chosen in seeded_batches(len(items), config.batch, seed, start))
        return _read(material, order, material.targets.weights)

    checkpoint = material.folder / f"seed{seed}" / "heads.pt"
    fit_heads(heads, batches, config, seed=seed, progress=progress, checkpoint=checkpoint)
    return heads


@torch.no_grad()
def validation_scores(heads: LinearHeads, material: Material, batch: int) -> NDArray[np.float64]:
    """Mean IoU of each head over the validation part's pixels with nearest upsampling, (L,): exact, from the counts of
    the cells."""
    targets, rates = material.targets, len(heads.rates)
    intersection_LC = torch.zeros(rates, targets.classes, dtype=torch.float64)
    predicted_LC = torch.zeros_like(intersection_LC)
    truth_C = torch.zeros(targets.classes, dtype=torch.float64)
    batches = split_batches(material.parts.validation, batch)
    for features_ND, counts_NC in _read(material, batches, targets.counts):
        pixels_NC = counts_NC.cpu().double()  # float64 exists on every CPU, not on every accelerator
        for head, given_N in enumerate(heads(features_ND).argmax(-1).cpu().T):
            right_N = pixels_NC.gather(1, given_N[:, None])[:, 0]
            intersection_LC[head] += torch.bincount(given_N, right_N, targets.classes)
            predicted_LC[head] += torch.bincount(given_N, pixels_NC.sum(1), targets.classes)
        truth_C += pixels_NC.sum(0)
    union_LC = predicted_LC + truth_C - intersection_LC
    return mean_iou(intersection_LC.numpy(), union_LC.numpy(), truth_C.expand(rates, -1).numpy())


def _read(
    material: Material, batches: Iterable[Indices], targets: Callable[[Indices], Tensor]
) -> Iterator[LinearBatch]:
    """Tokens (N, D) and their targets (N, C) of batches of pictures, on the device."""
    order, again = tee(batches)
    for tokens_BTD, items in zip(material.train.stream(order), again, strict=False):  # `again` may be one ahead
        targets_BTC = targets(items)
        yield tokens_BTD.to(material.device).flatten(0, 1), targets_BTC.to(material.device).flatten(0, 1)
