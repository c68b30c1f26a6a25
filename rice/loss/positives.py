"""The positives' side of equations 3 and 4: (region, centre) pairs, of which each rank has those of its own centres.

Shapes: R regions, P pairs, p of a chunk, D width. x_RD: unit embeddings times scale.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rice.loss.rows import RowGradients
from rice.loss.streaming import Candidates, Shard, Sums, unit_centers

_NUMBERS = 2**23
"""Of gathered centres at a time."""


def positive_cosines(x_RD: Tensor, shard: Shard, these: Candidates) -> Tensor:
    """(P,)."""
    dots = [
        (x_RD[region_p] * unit_centers(shard.weight, center_p)[0]).sum(1)
        for region_p, center_p in _pairs(these, x_RD.shape[1])
    ]
    return torch.cat([x_RD.new_zeros(0), *dots]) / shard.loss.scale


def positive_sums(cosine_P: Tensor, shard: Shard, these: Candidates, regions: int) -> Sums:
    """Of exp(-s_p) over a region's positives in the shard."""
    summand_P = -shard.loss.positive(cosine_P)[0]
    top_R = cosine_P.new_full((regions,), -torch.inf).scatter_reduce_(0, these.region, summand_P, "amax")
    total_R = cosine_P.new_zeros(regions)
    return Sums(top_R, total_R.index_add_(0, these.region, (summand_P - top_R[these.region]).exp()))


def positive_gradients(
    x_RD: Tensor,
    cosine_P: Tensor,
    shard: Shard,
    these: Candidates,
    exponent_R: Tensor,
    upstream: Tensor,
    into_RD: Tensor | None,
    rows: RowGradients | None,
) -> None:
    """As `streaming.negative_gradients`; dL/ds_p = -exp(-s_p - exponent)."""
    logit_P, slope_P = shard.loss.positive(cosine_P)
    drive_P = (-logit_P - exponent_R[these.region]).exp() * slope_P * -upstream
    start = 0
    for region_p, center_p in _pairs(these, x_RD.shape[1]):
        part = slice(start, start := start + len(region_p))
        unit_pD, inverse_p1 = unit_centers(shard.weight, center_p)
        drive_p1, cosine_p1 = drive_P[part, None], cosine_P[part, None]
        if rows is not None:
            across_pD = (x_RD[region_p] / shard.loss.scale).addcmul_(unit_pD, cosine_p1, value=-1.0)
            rows.add(center_p, across_pD.mul_(drive_p1 * inverse_p1))
        if into_RD is not None:
            into_RD.index_add_(0, region_p, unit_pD.mul_(drive_p1))


def _pairs(these: Candidates, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(_NUMBERS // width, 1)
    for start in range(0, len(these.region), size):
        part = slice(start, start + size)
        yield these.region[part], these.center[part]
