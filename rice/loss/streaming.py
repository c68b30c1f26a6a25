"""Log-sum-exps over class centres and their gradients, a chunk of centres at a time: the logits are never held.

A chunk's logits are computed twice, forward and backward; that product costs less than the memory it saves. All of it
is true fp32 (or fp64). On CUDA, `torch.set_float32_matmul_precision("high")` lets the products take TF32, whose inputs
have 10 bits: a logit of scale 64 then errs by up to 0.06 and typically, at width 768, by 0.001. `bf16` rounds only the
inputs of the products, eight times as coarsely, and still adds up in fp32.

Nothing here knows of autograd or ranks. Shapes: R regions, K centres of a shard, S sampled of them, C of a chunk, M
positives per region, P (region, positive centre) pairs, D width. x_RD: unit embeddings times scale; centres are
normalised here.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rice.loss.equations import ClusterLoss
from rice.loss.rows import RowGradients
from rice.model.linear import product as fast_product

_LOGITS = {"cpu": 2**20, "cuda": 2**26}
"""Logits of a chunk: on the CPU what the caches hold, on a GPU enough to fill it."""
_TINY = 1e-12
"""Least norm of a centre, as in `torch.nn.functional.normalize`."""


class Shard(NamedTuple):
    """The centres (K, D) of one rank, and the constants."""

    weight: Tensor
    loss: ClusterLoss
    bf16: bool = False


class Candidates(NamedTuple):
    """What a shard's centres are to the regions of one slot; rows count from the shard's first centre.

    ids: sampled rows (S,), ascending. own: a region's positives as places in `ids` (M, R), S where not among them.
    region, center: the P pairs.
    """

    ids: Tensor
    own: Tensor
    region: Tensor
    center: Tensor


class Sums(NamedTuple):
    """Running log-sum-exp: the largest summand, and the sum relative to it."""

    top: Tensor
    total: Tensor

    def logarithm(self) -> Tensor:
        """-inf of no summand."""
        return self.top + self.total.log()


def negative_sums(x_RD: Tensor, shard: Shard, these: Candidates) -> Sums:
    """Of exp(s_n) over the sampled centres that are not a region's own."""
    top_R, total_R = x_RD.new_full((len(x_RD),), -torch.inf), x_RD.new_zeros(len(x_RD))
    for start, ids_C in _chunks(these.ids, len(x_RD)):
        unit_CD, _ = unit_centers(shard.weight, ids_C)
        logits_CR = _logits(unit_CD, x_RD, these.own, start, shard.bf16)
        higher_R = torch.maximum(top_R, logits_CR.amax(0))
        finite_R = higher_R.where(higher_R != -torch.inf, 0.0)
        total_R = total_R * (top_R - finite_R).exp() + logits_CR.sub_(finite_R).exp_().sum(0)
        top_R = higher_R
    return Sums(top_R, total_R)


def negative_gradients(
    x_RD: Tensor,
    shard: Shard,
    these: Candidates,
    exponent_R: Tensor,
    upstream: Tensor,
    into_RD: Tensor | None,
    rows: RowGradients | None,
) -> None:
    """Add gradients of the sum over regions, times a scalar, by unit embeddings and by centres, where these are wanted.

    dL/ds_n = exp(s_n - exponent).
    """
    driven_DR = (x_RD * upstream).t().contiguous()
    gradient_DR = torch.zeros_like(driven_DR)
    for start, ids_C in _chunks(these.ids, len(x_RD)):
        unit_CD, inverse_C1 = unit_centers(shard.weight, ids_C)
        weights_CR = _logits(unit_CD, x_RD, these.own, start, shard.bf16).sub_(exponent_R).exp_()
        if into_RD is not None:
            gradient_DR += _product(unit_CD.t().contiguous(), weights_CR.t(), shard.bf16)
        if rows is not None:
            center_CD = _product(weights_CR, driven_DR, shard.bf16)
            along_C1 = (center_CD * unit_CD).sum(1, keepdim=True)
            rows.add(ids_C, center_CD.addcmul_(unit_CD, along_C1, value=-1.0).mul_(inverse_C1))
    if into_RD is not None:
        into_RD += gradient_DR.mul_(upstream * shard.loss.scale).t()


def _chunks(ids_S: Tensor, regions: int) -> Iterator[tuple[int, Tensor]]:
    size = max(_LOGITS[ids_S.device.type] // max(regions, 1), 64)
    for start in range(0, len(ids_S), size):
        yield start, ids_S[start : start + size]


def unit_centers(weight_KD: Tensor, ids_C: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised centres (C, D) of their own memory, and one over their norms (C, 1)."""
    rows_CD = weight_KD.index_select(0, ids_C)
    inverse_C1 = torch.linalg.vector_norm(rows_CD, dim=1, keepdim=True).clamp_min_(_TINY).reciprocal_()
    return rows_CD.mul_(inverse_C1), inverse_C1


def _logits(unit_CD: Tensor, x_RD: Tensor, own_MR: Tensor, start: int, bf16: bool) -> Tensor:
    """(C, R), -inf where a centre is one of the region's own positives."""
    logits_CR = _product(unit_CD, x_RD, bf16)
    row_MR = own_MR - start
    inside_MR = (row_MR >= 0) & (row_MR < len(unit_CD))
    # The smaller of two: a region whose positive lies elsewhere changes nothing, and no GPU waits for a count.
    blocked_MR = torch.where(inside_MR, -torch.inf, torch.inf).to(logits_CR.dtype)
    return logits_CR.scatter_reduce_(0, row_MR.clamp(0, len(unit_CD) - 1), blocked_MR, "amin")


def _product(x_MD: Tensor, y_ND: Tensor, bf16: bool) -> Tensor:
    """x y' (M, N), added up in fp32 or better; autocast, which may be on in the backward pass, has no say."""
    with torch.autocast(x_MD.device.type, enabled=False):
        if not bf16:
            return fast_product(x_MD, y_ND)
        x_MD, y_ND = x_MD.bfloat16(), y_ND.bfloat16()
        if x_MD.is_cuda:
            return torch.mm(x_MD, y_ND.t(), out_dtype=torch.float32)
        return fast_product(x_MD.float(), y_ND.float())
