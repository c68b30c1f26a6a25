"""Gradients of the few class centres that a step touched, and AdamW on those alone.

A dense K x D gradient would be as large as the centres, and AdamW over it would move and decay centres nobody sampled.

Shapes: K centres of a shard, U touched by the step, C of a chunk, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_NUMBERS = 2**18
"""Of a chunk of rows in the update."""


class RowGradients:
    """Every touched row once: `rows` (U,), ascending, and their gradients `values` (U, D).

    Waits for a GPU once per `claim`, which counts them.
    """

    def __init__(self, weight_KD: Tensor) -> None:
        self._weight_KD = weight_KD
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.rows = self._weight_KD.new_zeros(0, dtype=torch.int64)
        self.values = self._weight_KD.new_zeros(0, self._weight_KD.shape[1])
        self._place_K: Tensor | None = None

    def claim(self, *ids: Tensor) -> None:
        """Make room for rows; those that are there already keep their gradients."""
        old_U, old_UD = self.rows, self.values
        touched_K = torch.zeros(len(self._weight_KD), dtype=torch.bool, device=old_U.device)
        for rows in (old_U, *ids):
            touched_K[rows] = True
        self.rows = touched_K.nonzero()[:, 0]
        self._place_K = touched_K.cumsum(0, dtype=torch.int32).sub_(1)
        self.values = self._weight_KD.new_zeros(len(self.rows), old_UD.shape[1])
        self.values[self._place_K[old_U]] = old_UD

    def add(self, ids_C: Tensor, gradient_CD: Tensor) -> None:
        """To claimed rows, which may come more than once."""
        assert self._place_K is not None, "claim comes first"
        self.values.index_add_(0, self._place_K.index_select(0, ids_C), gradient_CD)

    def square_norm(self) -> Tensor:
        """Scalar."""
        return self.values.square().sum()


class AdamW(NamedTuple):
    """Constants of decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW` has them."""

    beta1: float
    beta2: float
    eps: float
    weight_decay: float


class RowState(NamedTuple):
    """A shard's centres (K, D) and what AdamW knows of every row: moments (K, D), steps (K,). Changed in place."""

    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    steps: Tensor

    def update(self, gradients: RowGradients, constants: AdamW, rate: float, coefficient: float | Tensor) -> None:
        """One step of every touched row by its gradient times `coefficient`; no other row changes a bit."""
        size = max(_NUMBERS // max(self.weight.shape[1], 1), 1)
        for start in range(0, len(gradients.rows), size):
            part = slice(start, start + size)
            self._update(gradients.rows[part], gradients.values[part] * coefficient, constants, rate)

    def _update(self, rows_C: Tensor, gradient_CD: Tensor, constants: AdamW, rate: float) -> None:
        beta1, beta2, eps, decay = constants
        steps_C = self.steps[rows_C] + 1
        mean_CD = self.exp_avg.index_select(0, rows_C).lerp_(gradient_CD, 1 - beta1)
        square_CD = (
            self.exp_avg_sq.index_select(0, rows_C).mul_(beta2).addcmul_(gradient_CD, gradient_CD, value=1 - beta2)
        )
        first_C1, second_C1 = ((1 - beta ** steps_C.double())[:, None] for beta in (beta1, beta2))
        weight_CD = self.weight.index_select(0, rows_C).mul_(1 - rate * decay)
        width_CD = square_CD.sqrt().div_(second_C1.sqrt().to(weight_CD.dtype)).add_(eps)
        moved_CD = (mean_CD / width_CD).mul_((rate / first_C1).to(weight_CD.dtype))
        self.weight[rows_C] = weight_CD.sub_(moved_CD)
        self.exp_avg[rows_C] = mean_CD
        self.exp_avg_sq[rows_C] = square_CD
        self.steps[rows_C] = steps_C
