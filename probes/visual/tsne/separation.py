"""How well categories are apart in an encoder's own features, before any projection.

Shapes: N objects, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rice.errors import require

NEIGHBOURS = 10


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Of `n` objects: mean share of an object's 10 nearest neighbours (cosine) that are of its category, in [0, 1];
    the share that neighbours drawn at random would have; mean silhouette under cosine distance, in [-1, 1].
    """

    n: int
    purity: float
    chance: float
    silhouette: float


def separation(features_ND: Tensor, labels: list[int]) -> Separation:
    """Errors: MissingExtraError without scikit-learn. At least two categories and more than 10 objects are needed."""
    metrics = require("sklearn.metrics", "page")
    labels_N = torch.tensor(labels)
    return Separation(
        n=len(labels),
        purity=purity(features_ND, labels_N),
        chance=((torch.bincount(labels_N)[labels_N] - 1).double().mean() / (len(labels) - 1)).item(),
        silhouette=float(metrics.silhouette_score(features_ND.double().numpy(), labels, metric="cosine")),
    )


def purity(features_ND: Tensor, labels_N: Tensor) -> float:
    """Mean share of the 10 nearest neighbours by cosine, without the object itself, that carry its label."""
    unit_ND = nn.functional.normalize(features_ND.double())
    nearest_NK = (unit_ND @ unit_ND.T).fill_diagonal_(-torch.inf).topk(NEIGHBOURS).indices
    return (labels_N[nearest_NK] == labels_N[:, None]).double().mean().item()
