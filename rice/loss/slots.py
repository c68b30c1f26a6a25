"""One slot's classification against one shard of centres: what of it is reduced over ranks, and its gradients.

Shapes: R regions, M positives per region, S sampled centres, P (region, positive) pairs, D width.
"""

from typing import NamedTuple

import torch
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


class Backward(NamedTuple):
    """What the backward pass of a slot starts from: unit embeddings (R, D), pairs' cosines (P,), an upstream scalar."""

    unit: Tensor
    these: Candidates
    cosine: Tensor
    terms: Terms
    upstream: Tensor

    def run(self, shard: Shard, rows: RowGradients | None, *, embeddings: bool = True) -> Tensor:
        """Gradient of upstream times the sum over regions by the unit embeddings (R, D), zeros unless wanted.

        That by the centres is added to `rows`, where given, which must have claimed `ids`.
        """
        unit_RD, these, cosine_P, terms, upstream = self
        x_RD, gradient_RD = unit_RD * shard.loss.scale, unit_RD.new_zeros(unit_RD.shape)
        into = gradient_RD if embeddings else None
        streaming.negative_gradients(x_RD, shard, these, terms.negative, upstream, into, rows)
        positives.positive_gradients(x_RD, cosine_P, shard, these, terms.positive, upstream, into, rows)
        return gradient_RD

    def ids(self) -> tuple[Tensor, Tensor]:
        """The rows of the shard that take part, some twice."""
        return self.these.ids, self.these.center

    def within(self, low: int, high: int) -> "Backward":
        """The part of it that concerns the rows of the shard from `low` to below `high`."""
        ids_S, own_MR, region_P, center_P = self.these
        first, last = torch.searchsorted(ids_S, ids_S.new_tensor([low, high])).tolist()
        inside_P = (center_P >= low) & (center_P < high)
        these = Candidates(ids_S[first:last], own_MR - first, region_P[inside_P], center_P[inside_P])
        return self._replace(these=these, cosine=self.cosine[inside_P])
