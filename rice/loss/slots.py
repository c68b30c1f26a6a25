"""One slot's classification against one shard of centres: what of it is reduced over ranks, and its gradients.

Shapes: R regions, M positives per region, S sampled centres, P (region, positive) pairs, D width.
"""

from typing import NamedTuple

from torch import Tensor

from rice.loss import positives, streaming
from rice.loss.equations import Terms
from rice.loss.rows import RowGradients
from rice.loss.sampling import places
from rice.loss.streaming import Candidates, Shard, Sums


class Met(NamedTuple):
    """The positives' cosines, and both sums over the shard."""

    cosine: Tensor
    positive: Sums
    negative: Sums


def candidates(ids_S: Tensor, positives_RM: Tensor) -> Candidates:
    """Of an ascending sample, and of distinct positives in the shard's own counting (negative: elsewhere, or none)."""
    region_P, column_P = (positives_RM >= 0).nonzero(as_tuple=True)
    return Candidates(ids_S, places(ids_S, positives_RM), region_P, positives_RM[region_P, column_P])


def meet(unit_RD: Tensor, shard: Shard, these: Candidates) -> Met:
    """Forward."""
    x_RD = unit_RD * shard.loss.scale
    cosine_P = positives.positive_cosines(x_RD, shard, these)
    positive = positives.positive_sums(cosine_P, shard, these, len(x_RD))
    return Met(cosine_P, positive, streaming.negative_sums(x_RD, shard, these))


def gradients(
    unit_RD: Tensor,
    shard: Shard,
    these: Candidates,
    cosine_P: Tensor,
    terms: Terms,
    upstream: Tensor,
    rows: RowGradients,
) -> Tensor:
    """Backward: of the sum over regions, times upstream, by the unit embeddings (R, D); added to `rows`, which the
    candidates have claimed, by the centres.
    """
    x_RD = unit_RD * shard.loss.scale
    gradient_RD = streaming.negative_gradients(x_RD, shard, these, terms.negative, upstream, rows)
    gradient_RD += positives.positive_gradients(x_RD, cosine_P, shard, these, terms.positive, upstream, rows)
    return gradient_RD
