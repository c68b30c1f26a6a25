"""Linear heads on standardised frozen features, trained for every learning rate of a grid in one pass.

Shapes: N items (tokens or images), D width, C classes, L learning rates.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probes.fit import FitConfig, fit
from probes.linear_config import LinearConfig
from rice.files import atomic_write
from rice.progress import Progress

LinearBatch = tuple[Tensor, Tensor]
"""Features (N, D), as stored, and targets (N, C): class weights of each item, not negative; a zero row is ignored."""

_TINY_STD = 1e-6
_INITIAL_STD = 0.01
_SMALLEST_SHARE = 1e-6
_WEIGHT_DECAY = 1e-4
_WARMUP = 0.05


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of each channel over the training items, (D,) fp32."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Iterable[Tensor]) -> "ChannelStatistics":
        """Over all leading dimensions of a stream of (..., D), in float64 on the CPU; a constant channel gets 1."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for batch in features:
            x_ND = batch.flatten(0, -2).cpu().double()
            count += len(x_ND)
            total = total + x_ND.sum(0)
            squares = squares + x_ND.square().sum(0)
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt()
        return cls(mean.float(), torch.where(std < _TINY_STD, 1.0, std).float())

    def apply(self, features: Tensor) -> Tensor:
        """Standardise (..., D) to fp32."""
        return (features.float() - self.mean) / self.std

    def save(self, path: Path) -> None:
        """Write atomically."""
        with atomic_write(path, "wb") as file:
            np.savez(file, mean=self.mean.cpu().numpy(), std=self.std.cpu().numpy())

    @classmethod
    def load(cls, path: Path) -> "ChannelStatistics":
        """Read what `save` wrote, to the CPU."""
        with np.load(path) as stored:
            return cls(torch.from_numpy(stored["mean"]), torch.from_numpy(stored["std"]))


class LinearHeads(nn.Module):
    """L linear classifiers with one initialisation, one per learning rate: the features are read once for all."""

    def __init__(
        self, statistics: ChannelStatistics, shares_C: Tensor, rates: Sequence[float], generator: torch.Generator
    ) -> None:
        """Weights ~ N(0, 0.01^2) from `generator` (a CPU one); biases the log of each class's share of the targets.

        So training starts from the predictor that knows the shares and nothing of the features: at a small learning
        rate AdamW would spend all its updates on getting there.
        """
        super().__init__()
        self.classes = len(shares_C)
        self.rates = tuple(rates)
        self.register_buffer("mean", statistics.mean)
        self.register_buffer("std", statistics.std)
        weight_CD = _INITIAL_STD * torch.randn(self.classes, len(statistics.mean), generator=generator)
        self.weights = nn.ParameterList(nn.Parameter(weight_CD.clone()) for _ in rates)
        bias_C = shares_C.float().clamp(min=_SMALLEST_SHARE).log()
        self.biases = nn.ParameterList(nn.Parameter(bias_C.clone()) for _ in rates)

    def forward(self, features_ND: Tensor) -> Tensor:
        """Logits (N, L, C) of features as stored."""
        x_ND = self._standardise(features_ND)
        logits = nn.functional.linear(x_ND, torch.cat(list(self.weights)), torch.cat(list(self.biases)))
        return logits.view(len(features_ND), len(self.rates), self.classes)

    def one(self, features_ND: Tensor, index: int) -> Tensor:
        """Logits (N, C) of the head with learning rate `index`."""
        return nn.functional.linear(self._standardise(features_ND), self.weights[index], self.biases[index])

    def groups(self) -> list[dict[str, Any]]:
        """AdamW parameter groups: each head with its learning rate, so clipped by itself too (see `FitConfig.clip`)."""
        pairs = zip(self.weights, self.biases, self.rates, strict=True)
        return [{"params": [weight, bias], "lr": rate} for weight, bias, rate in pairs]

    def _standardise(self, features_ND: Tensor) -> Tensor:
        return ChannelStatistics(self.get_buffer("mean"), self.get_buffer("std")).apply(features_ND)


def layer_norm(features: Tensor) -> Tensor:
    """Affine-free LayerNorm over the last dimension in fp32: raw and normed towers meet on equal terms."""
    return nn.functional.layer_norm(features.float(), features.shape[-1:])


def soft_cross_entropy(logits_NLC: Tensor, targets_NC: Tensor) -> Tensor:
    """Sum over heads of the weighted mean -sum_nc t_nc log p_nlc / sum_nc t_nc.

    A sum and not a mean over heads, so that each head's gradient is what it would be alone.
    """
    per_head_L = -torch.einsum("nc,nlc->l", targets_NC, logits_NLC.log_softmax(-1))
    return per_head_L.sum() / targets_NC.sum().clamp(min=torch.finfo(torch.float32).tiny)


def fit_heads(
    heads: LinearHeads,
    batches: Callable[[int], Iterable[LinearBatch]],
    config: LinearConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoint: Path,
) -> None:
    """Train all heads in place, in fp32 on every device: they are cheap, and their numbers should not depend on it."""
    fit(
        heads,
        batches,
        lambda head, batch: soft_cross_entropy(head(batch[0]), batch[1]),
        FitConfig(updates=config.updates, weight_decay=_WEIGHT_DECAY, warmup=int(_WARMUP * config.updates), amp=False),
        seed=seed,
        progress=progress,
        label="linear heads",
        groups=heads.groups(),
        checkpoint=checkpoint,
    )


def best_rate(scores: Sequence[float] | NDArray[np.float64]) -> int:
    """Index of the highest score; of equal ones the first, so the smallest rate of an ascending grid."""
    return int(np.argmax(np.asarray(scores)))
