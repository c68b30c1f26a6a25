"""How well masks of expressions agree with the true ones: cIoU, gIoU, Pr@0.5, and the two accuracies of gRefCOCO.

An expression whose mask has no pixel that counts has no target: the right answer to it is an empty mask.
cIoU: Yang et al., "LAVT" (CVPR 2022), overall IoU. gIoU, N-acc, T-acc: Liu, Ding, Jiang, "GRES" (CVPR 2023),
section 5.1. Imports no torch. Shapes: N expressions, H and W of a picture in pixels.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mllm.lisa.pictures import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

PRECISE = 0.5
"""The IoU from which on an expression with a target counts in Pr@0.5."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """One expression's, in pixels that count. `target`: whether there is one; `empty`: whether nothing was predicted.

    Without a target the predicted pixels are the union (GRES, section 5.1).
    """

    intersection: int
    union: int
    target: bool
    empty: bool

    @property
    def iou(self) -> float:
        """0 to 1; without a target 1 where nothing was predicted, else 0."""
        return self.intersection / self.union if self.union else 1.0


@dataclass(frozen=True, slots=True)
class Measure:
    """`value` in percent over `n` expressions; `stderr` where it is a mean over them."""

    value: float
    n: int
    stderr: float | None = None


def overlaps(predicted_NHW: "Tensor", true_NHW: "Tensor") -> list[Overlap]:
    """Of N pairs of masks of one size. predicted_NHW: bool. true_NHW: uint8, 1 target, 0 not, IGNORE does not count.

    Errors: ValueError for shapes that differ.
    """
    if predicted_NHW.shape != true_NHW.shape:
        raise ValueError(f"expected masks of one size, got {predicted_NHW.shape} and {true_NHW.shape}")
    target_NHW = true_NHW == 1
    said_NHW = predicted_NHW & (true_NHW != IGNORE)
    both, said, true = (
        mask_NHW.flatten(1).sum(dim=1).tolist() for mask_NHW in (said_NHW & target_NHW, said_NHW, target_NHW)
    )
    return [
        Overlap(intersection=i, union=s + t - i, target=t > 0, empty=s == 0)
        for i, s, t in zip(both, said, true, strict=True)
    ]


def summary(found: Iterable[Overlap]) -> Mapping[str, Measure]:
    """Of "ciou", "giou", "pr50", "n_acc" and "t_acc" those that there is anything to judge by. Sums are exact."""
    every = list(found)
    targets = [one for one in every if one.target]
    measures = {
        "giou": _mean([one.iou for one in every]),
        "pr50": _mean([one.iou >= PRECISE for one in targets]),
        "n_acc": _mean([one.empty for one in every if not one.target]),
        "t_acc": _mean([not one.empty for one in targets]),
    }
    whole = sum(one.union for one in every)
    ciou = None if not whole else Measure(100 * (sum(one.intersection for one in every) / whole), len(every))
    return {name: measure for name, measure in ({"ciou": ciou} | measures).items() if measure is not None}


def _mean(values: Sequence[float]) -> Measure | None:
    if not values:
        return None
    count = len(values)
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)) if count > 1 else None
    return Measure(100 * mean, count, None if spread is None else 100 * spread / math.sqrt(count))
