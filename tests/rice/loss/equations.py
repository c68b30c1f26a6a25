"""Equations 3 and 4 in float64, region by region and positive by positive, with autograd for the gradients.

Written from the paper, with the margin as an angle: nothing of it is shared with what it checks.
"""

import math
from typing import Any

import torch
from torch import Tensor

FORMS = ("eq34", "softmax")
MARGINS = ("arcface", "cosface", "arcface_straight_through")


def expected_losses(
    embeddings: Tensor,
    centers: Tensor,
    positives: Tensor,
    negatives: Tensor | None,
    *,
    margin: float = 0.3,
    scale: float = 64.0,
    form: str = "eq34",
    margin_type: str = "arcface",
) -> list[Tensor]:
    """One loss per region; inputs in float64."""
    classes = range(len(centers)) if negatives is None else sorted(set(negatives.tolist()))
    unit_centers = torch.stack([center / center.norm() for center in centers])
    losses = []
    for embedding, labels in zip(embeddings, positives.tolist(), strict=True):
        own = {label for label in labels if label >= 0}
        if not own:
            losses.append(embedding.sum() * 0)
            continue
        cosines = unit_centers @ (embedding / embedding.norm())
        positive = sum((-scale * _with_margin(cosines[label], margin, margin_type)).exp() for label in own)
        others = [label for label in classes if label not in own]
        negative = (scale * cosines[others]).exp().sum()
        if form == "eq34":
            losses.append((1 + positive).log() + (1 + negative).log())
        else:
            losses.append((1 + positive * negative).log())
    return losses


def _with_margin(cosine: Tensor, margin: float, margin_type: str) -> Tensor:
    if margin_type == "cosface":
        return cosine - margin
    inside = cosine.acos() + margin <= math.pi
    value = (cosine.acos() + margin).cos() if inside else cosine + math.cos(margin) - 1
    return value if margin_type == "arcface" else value.detach() + cosine - cosine.detach()


def case(seed: int, *, regions: int, classes: int, width: int, most: int, share: float | None) -> dict[str, Any]:
    """Random embeddings, centres, labels (-1 and copies among them, one region without any) and a sample of classes."""
    generator = torch.Generator().manual_seed(seed)
    positives = torch.randint(-1, classes, (regions, most), generator=generator)
    positives[0] = -1
    if most > 1:
        positives[1, 1] = positives[1, 0]
    sample = None if share is None else torch.randperm(classes, generator=generator)[: max(int(share * classes), 1)]
    return {
        "embeddings": torch.randn(regions, width, generator=generator, dtype=torch.float64),
        "centers": torch.randn(classes, width, generator=generator, dtype=torch.float64) * 0.2,
        "positives": positives,
        "negatives": sample,
    }
