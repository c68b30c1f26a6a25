"""Softmax regression on the vectors: every learning rate in one pass, the best on the validation part is kept.

Shapes: N pictures, D width, C classes, L learning rates.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from probes.fit import seeded_batches
from probes.knn.model import Vectors
from probes.linear import ChannelStatistics, LinearBatch, LinearHeads, best_rate, fit_heads, layer_norm
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.knn.probe import KnnConfig

_CHUNK = 1024
"""Pictures whose logits are held at once."""


def train_and_choose(
    fit: Vectors,
    validation: Vectors,
    classes: int,
    config: "KnnConfig",
    *,
    seed: int,
    progress: Progress,
    checkpoint: Path,
) -> tuple[Callable[[Tensor], Tensor], float]:
    """(classifier, its learning rate). The classifier maps vectors (N, D) to classes (N,).

    `seed`: initialisation and order.
    """
    features_ND, labels_N = layer_norm(fit.features), fit.labels
    statistics = ChannelStatistics.of([features_ND])
    shares_C = torch.bincount(labels_N, minlength=classes).cpu() / len(labels_N)
    heads = LinearHeads(statistics, shares_C, config.learning_rates, torch.Generator().manual_seed(seed))
    heads.to(features_ND.device)

    def batches(start: int) -> Iterator[LinearBatch]:
        for chosen in seeded_batches(len(features_ND), config.batch, seed, start):
            rows = torch.from_numpy(chosen).to(features_ND.device)
            yield features_ND[rows], nn.functional.one_hot(labels_N[rows], classes).float()

    fit_heads(heads, batches, config, seed=seed, progress=progress, checkpoint=checkpoint)
    chosen = best_rate(_accuracies(heads, layer_norm(validation.features), validation.labels))
    return lambda vectors_ND: heads.one(layer_norm(vectors_ND), chosen).argmax(-1), heads.rates[chosen]


@torch.no_grad()
def _accuracies(heads: LinearHeads, features_ND: Tensor, labels_N: Tensor) -> list[float]:
    """Top-1 of each head."""
    right_L = torch.zeros(len(heads.rates), dtype=torch.int64, device=labels_N.device)
    for first in range(0, len(labels_N), _CHUNK):
        rows = slice(first, first + _CHUNK)
        right_L += (heads(features_ND[rows]).argmax(-1) == labels_N[rows, None]).sum(0)
    return [count / len(labels_N) for count in right_L.tolist()]
