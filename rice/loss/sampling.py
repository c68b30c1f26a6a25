"""Which classes a region is told apart from: sampled negatives (section 3.3), counted, not stored.

The sample of a slot is a function of (seed, name, step, slot) alone, so every rank of any number of ranks knows it
without a word. Slots are sampled apart: 32K pictures of ten regions hold some 280K of a million classes together, more
than a sample of rho K = 100K.

Shapes: R regions, M positives per region (-1: none), S sampled classes.
"""

import torch
from torch import Tensor

from rice.errors import RiceError
from rice.permutation import permute


def sample_size(rho: float, classes: int) -> int:
    """floor(rho K); all classes for rho >= 1.

    Errors: RiceError for a sample of no class.
    """
    size = classes if rho >= 1 else int(rho * classes + 1e-9)
    if size < 1:
        raise RiceError(f"rho: {rho} of {classes} classes is none; expected at least {1 / classes:g}")
    return size


def sample(size: int, classes: int, key: tuple[int, ...], shard: range, device: torch.device) -> Tensor:
    """Those of `size` uniformly drawn classes that lie in the shard, counted from its first, ascending (S,) int64."""
    if size == classes:
        return torch.arange(len(shard), device=device)
    ids = permute(torch.arange(size, device=device), classes, *key)
    if len(shard) < classes:
        ids = ids[(ids >= shard.start) & (ids < shard.stop)] - shard.start
    return ids.sort().values


def distinct(positives_RM: Tensor) -> Tensor:
    """Every row ascending, its second and further copies of an id replaced by -1: eq. 4 sums over a set."""
    ascending = positives_RM.sort(dim=-1).values
    ascending[..., 1:].masked_fill_(ascending[..., 1:] == ascending[..., :-1], -1)
    return ascending


def places(ids_S: Tensor, positives_RM: Tensor) -> Tensor:
    """Where a region's own positives stand in the ascending sample, (M, R); S where they do not."""
    wanted_MR = positives_RM.t().contiguous()
    if not len(ids_S):
        return torch.zeros_like(wanted_MR)
    found_MR = torch.searchsorted(ids_S, wanted_MR)
    there_MR = ids_S[found_MR.clamp_max(len(ids_S) - 1)] == wanted_MR
    return found_MR.where(there_MR, len(ids_S))
