"""Region retrieval: does the nearest region of another photo show the same thing?

Shapes: R regions, D width, Q regions of a chunk.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 512


@dataclass(frozen=True)
class Retrieval:
    """Of the `n` regions whose label occurs in another photo, each ranking the regions of the other photos by cosine.

    `top1`: share whose first one has their label. `mean_ap`: average precision. Both are means over the regions of a
    label, then over labels, in percent: in photos of everyday life one label in three says "person".
    """

    top1: float
    mean_ap: float
    n: int


def retrieve(embeddings_RD: Tensor, labels_R: Tensor, images_R: Tensor) -> Retrieval:
    """Score embeddings of any length. `images_R` tells which photo a region is of; labels of -1 take no part."""
    known = labels_R >= 0
    unit_RD = torch.nn.functional.normalize(embeddings_RD[known].float(), dim=-1)
    labels_R, images_R = labels_R[known], images_R[known]
    hits, precisions, asked = [], [], []
    for first in range(0, len(unit_RD), _CHUNK):
        rows = slice(first, first + _CHUNK)
        own_QR = images_R[rows, None] == images_R[None]
        right_QR = (labels_R[rows, None] == labels_R[None]) & ~own_QR
        ranks_QR = (unit_RD[rows] @ unit_RD.T).masked_fill(own_QR, -torch.inf).argsort(descending=True, stable=True)
        answerable_Q = right_QR.any(1)
        ranked_QR = right_QR.gather(1, ranks_QR)[answerable_Q]
        asked.append(labels_R[rows][answerable_Q])
        hits.append(ranked_QR[:, 0].double())
        precisions.append(_average_precision(ranked_QR))
    if not sum(map(len, asked)):
        return Retrieval(float("nan"), float("nan"), 0)
    label_Q = torch.cat(asked)
    top1, mean_ap = (100 * _balanced(torch.cat(values), label_Q) for values in (hits, precisions))
    return Retrieval(top1, mean_ap, len(label_Q))


def _balanced(values_Q: Tensor, labels_Q: Tensor) -> float:
    _, label_Q = torch.unique(labels_Q, return_inverse=True)
    sums, counts = (torch.zeros(int(label_Q.max()) + 1, dtype=torch.float64) for _ in range(2))
    sums.index_add_(0, label_Q.cpu(), values_Q.cpu())
    counts.index_add_(0, label_Q.cpu(), torch.ones(len(label_Q), dtype=torch.float64))
    return (sums / counts).mean().item()


def _average_precision(ranked_QR: Tensor) -> Tensor:
    """Mean, over a row's right ones, of the precision at their ranks."""
    ranks_R = torch.arange(1, ranked_QR.shape[1] + 1, device=ranked_QR.device)
    precision_QR = ranked_QR.double().cumsum(1) / ranks_R
    return (precision_QR * ranked_QR).sum(1) / ranked_QR.sum(1)
