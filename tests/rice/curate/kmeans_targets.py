"""What the ranks of test_kmeans.py do."""

from typing import Any

import torch
import torch.distributed as dist

from rice.curate.config import KMeansConfig
from rice.curate.kmeans import learn


def points(count: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around a few places, some of them equal, and their keys."""
    dice = torch.Generator().manual_seed(seed)
    places = torch.randn(7, width, generator=dice) * 3
    points_ND = places[torch.randint(7, (count,), generator=dice)] + torch.randn(count, width, generator=dice)
    points_ND[: count // 10] = points_ND[0]
    return points_ND, torch.rand(count, dtype=torch.float64, generator=dice)


def learn_part(count: int, width: int, clusters: int, uneven: bool) -> Any:
    """Centres from this rank's part of the points: every so-manieth, or all but a few on the last rank."""
    points_ND, keys_N = points(count, width, 0)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    mine_N = torch.arange(count) % world == rank
    if uneven:
        mine_N = torch.arange(count) >= 5 if rank == world - 1 else (torch.arange(count) < 5) & (rank == 0)
        mine_N = mine_N if world > 1 else torch.ones(count, dtype=torch.bool)
    errors: list[float] = []
    centres_KD = learn(
        points_ND[mine_N], keys_N[mine_N], KMeansConfig(clusters=clusters), lambda *said: errors.append(said[2])
    )
    return centres_KD.tolist(), errors
