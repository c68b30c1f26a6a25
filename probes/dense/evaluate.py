"""Pixels counted per picture, and the scores and standard errors that follow from the counts.

Shapes: N pictures, C classes (0 = background), H W pixels of a picture, R bootstrap replicates.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from probes.dense.data import Material
from probes.dense.model import predict_pixels
from probes.dense.scores import Counts, Score
from probes.fit import split_batches
from probes.images import load_ahead
from rice.data.coco import IGNORE, CocoSplit
from rice.errors import RiceError
from rice.files import atomic_write
from rice.progress import Progress

REPLICATES = 1000
_BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class PixelCounts:
    """Per picture and class, ignored pixels left out: sufficient for every score here, and for resampling pictures.

    All (N, C). `intersection`: pixels rightly given the class; `predicted`: given it; `truth`: of it.
    """

    intersection: Counts
    predicted: Counts
    truth: Counts

    @property
    def union(self) -> Counts:
        """Pixels given the class or of it."""
        return self.predicted + self.truth - self.intersection


def count_pixels(predicted_HW: Tensor, truth_HW: Tensor, classes: int) -> tuple[Counts, Counts, Counts]:
    """One picture's intersection, predicted and truth pixels per class, each (C,). Both maps int64 on one device."""
    valid_HW = truth_HW != IGNORE
    predicted, truth = predicted_HW[valid_HW], truth_HW[valid_HW]
    kinds = (truth[predicted == truth], predicted, truth)
    intersection, given, present = (torch.bincount(kind, minlength=classes).cpu().numpy() for kind in kinds)
    return intersection, given, present


@torch.no_grad()
def judge(
    head: Callable[[Tensor], Tensor], material: Material, split: CocoSplit, batch: int, progress: Progress
) -> PixelCounts:
    """Count the pixels of every picture of `split` at its own resolution. `head`: tokens (B, T, D) -> logits (B, T, C).

    Errors: RiceError when not one pixel can be judged.
    """
    batches = split_batches(np.arange(len(split.images)), batch)
    maps = load_ahead(split.semantic_map, batches)
    streams = zip(material.test.stream(batches), maps, strict=True)
    pictures = []
    for tokens_BTD, truths in progress.track(streams, f"{split.name}: judge pixels", len(batches)):
        logits_BCT = head(tokens_BTD.to(material.device)).mT
        for logits_CT, truth_HW in zip(logits_BCT, truths, strict=True):
            logits_Chw = logits_CT.reshape(-1, material.grid.tokens, material.grid.tokens)
            predicted_HW = predict_pixels(logits_Chw, material.grid, *truth_HW.shape)
            truth = torch.from_numpy(truth_HW.astype(np.int64)).to(material.device)
            pictures.append(count_pixels(predicted_HW, truth, len(logits_Chw)))
    return stack_counts(pictures)


def stack_counts(pictures: Iterable[tuple[Counts, Counts, Counts]]) -> PixelCounts:
    """`count_pixels` of all pictures. Errors: RiceError when not one pixel can be judged."""
    counts = PixelCounts(*(np.stack(part) for part in zip(*pictures, strict=True)))
    if not counts.truth.any():
        raise RiceError("the test split has no pixel to judge: all are ignored")
    return counts


def score_with_error(counts: PixelCounts, score: Score) -> tuple[float, float | None]:
    """A score over all pictures, and its standard error over pictures: bootstrap, 1,000 replicates, fixed seed.

    Each replicate weighs the pictures by a multinomial draw; a class that it leaves without truth is left out of it.
    The error is None for a single picture.
    """
    parts_NC = (counts.intersection, counts.union, counts.truth)
    value = float(score(*(part.sum(0) for part in parts_NC)))
    n = len(counts.truth)
    if n < 2:
        return value, None
    weights_RN = np.random.default_rng(_BOOTSTRAP_SEED).multinomial(n, np.full(n, 1 / n), size=REPLICATES)
    weights_RN = weights_RN.astype(np.float64)  # so that the products run in BLAS; exact below 2^53
    replicates_R = score(*(weights_RN @ part for part in parts_NC))
    return value, float(np.nanstd(replicates_R, ddof=1))


def write_items(path: Path, image_ids: list[int], counts: PixelCounts, learning_rate: float) -> None:
    """One row per picture: its pixels judged and right, and, for the classes that it has or was given, the lists
    `classes`, `intersection`, `union`, `truth` (pixels). Enough to compute every metric on any set of pictures."""
    import pandas as pd

    present_NC = counts.union > 0
    classes = [np.nonzero(row)[0] for row in present_NC]

    def lists(values_NC: Counts) -> list[list[int]]:
        return [row[chosen].tolist() for row, chosen in zip(values_NC, classes, strict=True)]

    frame = pd.DataFrame(
        {
            "image_id": image_ids,
            "pixels": counts.truth.sum(1),
            "correct": counts.intersection.sum(1),
            "classes": [chosen.tolist() for chosen in classes],
            "intersection": lists(counts.intersection),
            "union": lists(counts.union),
            "truth": lists(counts.truth),
            "learning_rate": learning_rate,
        }
    )
    with atomic_write(path, "wb") as file:
        frame.to_parquet(file, index=False)
