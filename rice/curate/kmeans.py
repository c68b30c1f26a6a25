"""K-means for a million clusters: two levels to begin with, then Lloyd's steps that go too far.

    cells       k-means of a part of the points, half the root of K of them
    children    in each cell k-means by itself, in proportion to the cell's share of the squared error
    all         Lloyd's steps among all K centres

Lloyd's step is the best one for the labels as they are; as they follow the centres, going `overshoot` times as far, and
on by `momentum` of the step before, reaches the same error in a third of the steps. The last step of each part is
Lloyd's. A cluster that is left without points takes the farthest point of one of the largest errors.

Every choice is a function of the points and their keys, whatever rank holds them: runs on another number of ranks
differ by the order of fp32 sums. Shapes: N points of this rank, K clusters, D width, C cells.
"""

import itertools
import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from rice.curate.config import KMeansConfig
from rice.curate.nearest import Nearest, nearest
from rice.errors import RiceError
from rice.loss.ranks import Ranks
from rice.train.agree import gather

Report = Callable[[str, int, float], None]
"""Called after each step: the part ("cells", "children", "all"), the step, the mean squared distance before it."""

_PER_CELL = 1024
"""Points that a cell of the first level is learnt from."""


def learn(points_ND: Tensor, keys_N: Tensor, config: KMeansConfig, report: Report = lambda *_: None) -> Tensor:
    """Centres (K, D) of all ranks' points, the same on every rank; see the top of this file.

    points_ND: fp32, this rank's. keys_N: float64, uniform in [0, 1) and distinct over all ranks: the order in which
    points are taken where some are drawn.
    Errors: RiceError for fewer points than clusters.
    """
    total = int(Ranks().add(torch.tensor(len(points_ND))))
    if total < config.clusters:
        raise RiceError(f"expected at least as many points as clusters, got {total:,} for {config.clusters:,}")
    if config.clusters == 1:
        return _step_centres(points_ND, torch.zeros_like(keys_N, dtype=torch.int64), 1)[0]
    count = config.cells or max(1, round(math.sqrt(config.clusters) / 2))
    some_N = keys_N < _PER_CELL * count / total
    one_N = torch.zeros(int(some_N.sum()), dtype=torch.int64, device=points_ND.device)
    cells_CD = _levels(points_ND[some_N], keys_N[some_N], one_N, torch.tensor([count]), config, report, "cells")
    found = nearest(points_ND, cells_CD)
    children_C = shares(_errors(found, count).cpu(), _sizes(found.labels, count).cpu(), config.clusters)
    centres_KD = _levels(points_ND, keys_N, found.labels, children_C, config, report, "children")
    before_KD = centres_KD
    for step in range(config.steps):
        found = nearest(points_ND, centres_KD)
        moved_KD, error = _moved(points_ND, found, centres_KD, before_KD, config.pace(step, config.steps))
        before_KD, centres_KD = centres_KD, moved_KD
        report("all", step, error)
    return centres_KD


def shares(errors_C: Tensor, sizes_C: Tensor, clusters: int) -> Tensor:
    """Children of each cell: in proportion to its error, at least 1 where it has points, at most its points; their sum
    is `clusters`."""
    wanted_C = clusters * errors_C.double() / errors_C.double().sum().clamp(min=1e-300)
    low_C, high_C = (sizes_C > 0).long(), sizes_C.long()
    children_C = wanted_C.floor().long().clamp(low_C, high_C)
    while (missing := clusters - int(children_C.sum())) != 0:
        room_C = children_C < high_C if missing > 0 else children_C > low_C
        # The largest remainders first, each once, until the sum is right.
        remainder_C = torch.where(room_C, (wanted_C - children_C) * (1 if missing > 0 else -1), -torch.inf)
        chosen = remainder_C.argsort(descending=True, stable=True)[: min(abs(missing), int(room_C.sum()))]
        children_C[chosen] += 1 if missing > 0 else -1
    return children_C


def _levels(
    points_ND: Tensor,
    keys_N: Tensor,
    cell_N: Tensor,
    children_C: Tensor,
    config: KMeansConfig,
    report: Report,
    part: str,
) -> Tensor:
    """K-means in every cell by itself, with so many centres each: all of them, cell by cell."""
    starts_C = children_C.cumsum(0) - children_C
    order_N = cell_N.argsort(stable=True)
    bounds = [0, *torch.bincount(cell_N, minlength=len(children_C)).cumsum(0).tolist()]
    sorted_ND, sorted_keys_N = points_ND[order_N], keys_N[order_N]
    before_KD = centres_KD = _drawn(sorted_ND, sorted_keys_N, bounds, children_C.tolist())
    for step in range(config.level_steps):
        labels_N, distances_N = torch.empty_like(order_N), sorted_ND.new_empty(len(order_N))
        for cell, (first, count) in enumerate(zip(starts_C.tolist(), children_C.tolist(), strict=True)):
            inside = slice(bounds[cell], bounds[cell + 1])
            if bounds[cell] < bounds[cell + 1]:
                found = nearest(sorted_ND[inside], centres_KD[first : first + count])
                labels_N[inside], distances_N[inside] = found.labels + first, found.distances
        found = Nearest(labels_N, distances_N)
        moved_KD, error = _moved(sorted_ND, found, centres_KD, before_KD, config.pace(step, config.level_steps))
        before_KD, centres_KD = centres_KD, moved_KD
        report(part, step, error)
    return centres_KD


def _drawn(points_ND: Tensor, keys_N: Tensor, bounds: list[int], counts: list[int]) -> Tensor:
    """Of each cell the points of the lowest keys over all ranks, in the order of their keys."""
    own = [keys_N[a:b].sort() for a, b in itertools.pairwise(bounds)]
    offered = [keys.values[:count].tolist() for keys, count in zip(own, counts, strict=True)]
    everyone = [offered] if Ranks().size == 1 else gather(lambda: offered)
    centres_KD = points_ND.new_zeros((sum(counts), points_ND.shape[1]))
    first = 0
    for cell, count in enumerate(counts):
        lowest = sorted(key for ranks in everyone for key in ranks[cell])[:count]
        place = {key: first + k for k, key in enumerate(lowest)}
        mine = [(place[key], k) for k, key in enumerate(offered[cell]) if key in place]
        if mine:
            rows, ranks = (list(part) for part in zip(*mine, strict=True))
            centres_KD[rows] = points_ND[bounds[cell] + own[cell].indices[ranks]]
        first += count
    return Ranks().add(centres_KD)


def _moved(
    points_ND: Tensor, found: Nearest, centres_KD: Tensor, before_KD: Tensor, pace: tuple[float, float]
) -> tuple[Tensor, float]:
    """One step from `centres_KD`, for which `found` holds, after `before_KD`; and their mean squared distance."""
    overshoot, momentum = pace
    means_KD, sizes_K = _step_centres(points_ND, found.labels, len(centres_KD))
    moved_KD = torch.lerp(centres_KD, means_KD, overshoot) + momentum * (centres_KD - before_KD)
    moved_KD = torch.where((sizes_K > 0)[:, None], moved_KD, centres_KD)
    errors_K = _errors(found, len(centres_KD))
    empty_E = (sizes_K == 0).nonzero()[:, 0]
    if len(empty_E):
        fill(moved_KD, empty_E, errors_K, points_ND, found.labels, found.distances)
    return moved_KD, float(errors_K.sum() / sizes_K.sum())


def fill(
    centres_KD: Tensor, empty_E: Tensor, errors_K: Tensor, points_ND: Tensor, labels_N: Tensor, distances_N: Tensor
) -> int:
    """Each of the empty clusters takes the farthest point of a cluster, of the largest errors first, in place.

    How many found one: clusters whose points are all alike have none to give.
    """
    farthest_K = torch.zeros_like(errors_K, dtype=torch.float32)
    ranks = Ranks()
    ranks.reduce(farthest_K.scatter_reduce_(0, labels_N, distances_N, "amax"), dist.ReduceOp.MAX)
    givers_E = errors_K.argsort(descending=True, stable=True)[: len(empty_E)]
    givers_E = givers_E[farthest_K[givers_E] > 0]
    # The first of this rank's points that are as far from each cluster's centre as any.
    rows_F = (distances_N == farthest_K[labels_N]).nonzero()[:, 0]
    row_K = torch.full_like(errors_K, len(points_ND), dtype=torch.int64).scatter_reduce_(
        0, labels_N[rows_F], rows_F, "amin"
    )
    row_E = row_K[givers_E]
    # Of equally far points on several ranks, the first rank's.
    holder_E = ranks.reduce(torch.where(row_E < len(points_ND), ranks.rank, ranks.size), dist.ReduceOp.MIN)
    taken_ED = points_ND.new_zeros((len(givers_E), points_ND.shape[1]))
    mine_E = holder_E == ranks.rank
    taken_ED[mine_E] = points_ND[row_E[mine_E]]
    centres_KD[empty_E[: len(givers_E)]] = ranks.add(taken_ED)
    return len(givers_E)


def _step_centres(points_ND: Tensor, labels_N: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Means (K, D) of all ranks' points by label, and how many there are (K,)."""
    sums_KD = points_ND.new_zeros((clusters, points_ND.shape[1])).index_add_(0, labels_N, points_ND)
    sizes_K = _sizes(labels_N, clusters)
    return Ranks().add(sums_KD) / sizes_K.clamp(min=1)[:, None], sizes_K


def _errors(found: Nearest, clusters: int) -> Tensor:
    """Squared error of each cluster, float64, over all ranks."""
    errors_K = torch.zeros(clusters, dtype=torch.float64, device=found.labels.device)
    return Ranks().add(errors_K.index_add_(0, found.labels, found.distances.double()))


def _sizes(labels_N: Tensor, clusters: int) -> Tensor:
    """Points of each cluster, over all ranks."""
    return Ranks().add(torch.bincount(labels_N, minlength=clusters))
