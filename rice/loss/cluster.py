"""The region cluster loss as a function of embeddings and centres (section 3.3, eq. 3 and 4).

Shapes: R regions, K classes, M positives per region at most, S sampled classes, D width.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from rice.errors import RiceError
from rice.loss.equations import ClusterLoss, Form, MarginType, Terms
from rice.loss.rows import RowGradients
from rice.loss.sampling import distinct
from rice.loss.slots import Backward, candidates, meet
from rice.loss.streaming import Candidates, Shard


def region_cluster_loss(
    embeddings_RD: Tensor,
    centers_KD: Tensor,
    positives_RM: Tensor,
    negatives: Tensor | None,
    *,
    margin: float = 0.3,
    scale: float = 64.0,
    form: Form = "eq34",
    margin_type: MarginType = "arcface",
) -> Tensor:
    """The mean loss over all R regions, a scalar in the inputs' type and never below fp32; 0 for no region.

    Both inputs are normalised here. positives_RM: class ids, padded with -1 in any place, copies ignored; a region
    without any has loss 0. negatives: ids (S,) of the sampled classes, or None for all; a region's own positives are
    never among its negatives. Differentiable in embeddings and centres; the centres' gradient is dense, and
    `CenterBank` is for many classes.
    Errors: RiceError for an id outside [-1, K) and for shapes that do not fit.
    """
    _check_shapes(embeddings_RD, centers_KD, positives_RM)
    classes = len(centers_KD)
    check_ids("positives", positives_RM, -1, classes)
    if negatives is None:
        negatives = torch.arange(classes, device=centers_KD.device)
    check_ids("negatives", negatives, 0, classes)
    these = candidates(torch.unique(negatives), distinct(positives_RM))
    dtype = torch.promote_types(torch.promote_types(embeddings_RD.dtype, centers_KD.dtype), torch.float32)
    loss = ClusterLoss(margin=margin, scale=scale, form=form, margin_type=margin_type)
    unit_RD = normalize(embeddings_RD.to(dtype), dim=1)
    total = cast(Tensor, _Total.apply(unit_RD, centers_KD.to(dtype), loss, these))
    return total / max(len(embeddings_RD), 1)


def check_ids(name: str, ids: Tensor, lowest: int, classes: int) -> None:
    """Errors: RiceError for an id outside [lowest, classes)."""
    if ids.numel():
        low, high = torch.stack(torch.aminmax(ids)).tolist()
        if low < lowest or high >= classes:
            wrong = low if low < lowest else high
            raise RiceError(f"{name}: expected class ids from {lowest} to {classes - 1}, got {wrong}")


def _check_shapes(embeddings_RD: Tensor, centers_KD: Tensor, positives_RM: Tensor) -> None:
    shapes = tuple(embeddings_RD.shape), tuple(centers_KD.shape), tuple(positives_RM.shape)
    ranks = [len(shape) for shape in shapes]
    if ranks != [2, 2, 2] or shapes[0][1] != shapes[1][1] or shapes[0][0] != shapes[2][0]:
        raise RiceError(f"expected embeddings (R, D), centres (K, D), positives (R, M); got {shapes}")


class _Total(torch.autograd.Function):
    """The sum over regions. The backward pass computes the logits again, a chunk at a time."""

    @staticmethod
    def forward(ctx: Any, unit_RD: Tensor, centers_KD: Tensor, loss: ClusterLoss, these: Candidates) -> Tensor:
        cosine_P, positive, negative = meet(unit_RD, Shard(centers_KD, loss), these)
        terms = loss.terms(positive.logarithm(), negative.logarithm())
        ctx.save_for_backward(unit_RD, centers_KD, cosine_P, *terms)
        ctx.loss, ctx.these = loss, these
        return terms.loss.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        unit_RD, centers_KD, cosine_P, *terms = ctx.saved_tensors
        rows = RowGradients(centers_KD)
        rows.claim(ctx.these.ids, ctx.these.center)
        slot = Backward(unit_RD, ctx.these, cosine_P, Terms(*terms), upstream)
        gradient_RD = slot.run(Shard(centers_KD, ctx.loss), rows)
        dense_KD = torch.zeros_like(centers_KD)
        dense_KD[rows.rows] = rows.values
        return gradient_RD, dense_KD, None, None
