"""The nearest centre of every point, exactly: matrix products block by block, on any device.

Shapes: N points, K centres, D width. Distances are squared Euclidean ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_CACHED_SCORES = 1 << 19
"""A block of scores on a CPU: 2 MB, which a core's cache holds until its largest is found."""
_GPU_SCORES = 1 << 28
_CENTRES_AT_ONCE = 1 << 16
_CANDIDATES = 32
_BF16_ERROR = 1.01 * 2.0**-8
"""The most that a product of two vectors rounded to bf16 is wrong, over the product of their lengths: twice 2^-9."""


class Nearest(NamedTuple):
    """labels: (N,) int64, index of the nearest centre, the first of equals. distances: (N,) float32, squared."""

    labels: Tensor
    distances: Tensor


def nearest(points_ND: Tensor, centres_KD: Tensor, *, bf16: bool = False) -> Nearest:
    """The nearest of all centres.

    bf16: products of rounded values choose candidates, fp32 decides among them; where the rounding could hide a nearer
    one, fp32 goes through all. The same labels, for hardware that multiplies bf16 much faster.
    """
    if bf16:
        return _by_candidates(points_ND, centres_KD)
    scores_N, labels_N = _highest(points_ND, centres_KD)
    return Nearest(labels_N, _distances(points_ND, scores_N))


def _distances(points_ND: Tensor, scores_N: Tensor) -> Tensor:
    """|x - c|^2 from x c - |c|^2 / 2, which is what `_highest` compares."""
    return (points_ND.pow(2).sum(dim=1) - 2 * scores_N).clamp_(min=0)


def _highest(points_ND: Tensor, centres_KD: Tensor) -> tuple[Tensor, Tensor]:
    """The highest score of each point and its centre."""
    best_N = points_ND.new_full((len(points_ND),), -torch.inf)
    labels_N = torch.zeros(len(points_ND), dtype=torch.int64, device=points_ND.device)
    for first in range(0, len(centres_KD), _CENTRES_AT_ONCE):
        block_BD = centres_KD[first : first + _CENTRES_AT_ONCE]
        half_B, across_DB = block_BD.pow(2).sum(dim=1) * -0.5, block_BD.T.contiguous()
        rows = _rows(points_ND, len(block_BD))
        scores_RB = points_ND.new_empty((min(rows, len(points_ND)), len(block_BD)))
        for begin in range(0, len(points_ND), rows):
            part = slice(begin, begin + rows)
            scores = scores_RB[: len(points_ND[part])]
            torch.addmm(half_B, points_ND[part], across_DB, out=scores)
            found_R = _argmax(scores)
            values_R = scores.gather(1, found_R[:, None])[:, 0]
            better_R = values_R > best_N[part]
            best_N[part] = torch.where(better_R, values_R, best_N[part])
            labels_N[part] = torch.where(better_R, found_R + first, labels_N[part])
    return best_N, labels_N


def _argmax(scores_RB: Tensor) -> Tensor:
    """numpy's has vector code on a CPU, and takes a fifteenth of torch's time."""
    if scores_RB.device.type == "cpu":
        return torch.from_numpy(scores_RB.numpy().argmax(axis=1))
    return scores_RB.argmax(dim=1)


def _rows(points_ND: Tensor, centres: int) -> int:
    scores = _CACHED_SCORES if points_ND.device.type == "cpu" else _GPU_SCORES
    return max(64, scores // centres)


def _by_candidates(points_ND: Tensor, centres_KD: Tensor) -> Nearest:
    count = min(_CANDIDATES, len(centres_KD))
    half_K, across_DK = centres_KD.pow(2).sum(dim=1) * -0.5, centres_KD.T.contiguous().to(torch.bfloat16)
    longest = centres_KD.norm(dim=1).max()
    rows = min(_rows(points_ND, len(centres_KD)), max(1, _GPU_SCORES // (count * centres_KD.shape[1])))
    labels_N, distances_N = [], []
    for part_RD in torch.split(points_ND, rows):
        rough_RK = _product(part_RD.to(torch.bfloat16), across_DK).add_(half_K)
        rough_RC, candidates_RC = rough_RK.topk(count, dim=1)
        exact_RC = torch.einsum("rd,rcd->rc", part_RD, centres_KD[candidates_RC]) + half_K[candidates_RC]
        # Of equals the first centre, as everywhere.
        best_R = exact_RC.amax(dim=1)
        labels_R = torch.where(exact_RC == best_R[:, None], candidates_RC, len(centres_KD)).amin(dim=1)
        if count < len(centres_KD):
            error_R = _BF16_ERROR * longest * part_RD.norm(dim=1)
            unsure_U = (rough_RC[:, -1] + error_R >= best_R).nonzero()[:, 0]
            best_R[unsure_U], labels_R[unsure_U] = _highest(part_RD[unsure_U], centres_KD)
        labels_N.append(labels_R)
        distances_N.append(_distances(part_RD, best_R))
    return Nearest(torch.cat(labels_N), torch.cat(distances_N))


def _product(points_RD: Tensor, across_DK: Tensor) -> Tensor:
    """Of bf16 values, summed and left in fp32."""
    if points_RD.device.type == "cuda":
        return torch.mm(points_RD, across_DK, out_dtype=torch.float32)
    return points_RD.float() @ across_DK.float()
