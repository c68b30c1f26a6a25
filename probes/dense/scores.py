"""Scores that follow from pixel counts, of all pictures or of any weighing of them. Imports no torch.

Shapes: N pictures, C classes (0 = background), R rows of picture weights.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.protocol import Resampling

Counts = NDArray[np.int64]
Score = Callable[[NDArray[np.number], NDArray[np.number], NDArray[np.number]], NDArray[np.float64]]


def mean_iou(
    intersection: NDArray[np.number], union: NDArray[np.number], truth: NDArray[np.number]
) -> NDArray[np.float64]:
    """Mean over the classes that occur in the truth of intersection / union; inputs (..., C), output (...).

    NaN where no class occurs.
    """
    occurs = truth > 0
    iou = np.divide(intersection, union, out=np.zeros(union.shape), where=occurs)
    classes = occurs.sum(-1)
    mean: NDArray[np.float64] = np.divide(iou.sum(-1), classes, out=np.full(classes.shape, np.nan), where=classes > 0)
    return mean


def pixel_accuracy(
    intersection: NDArray[np.number], union: NDArray[np.number], truth: NDArray[np.number]
) -> NDArray[np.float64]:
    """Share of the valid pixels that were given their class; inputs (..., C), output (...)."""
    total = truth.sum(-1)
    share: NDArray[np.float64] = np.divide(
        intersection.sum(-1), total, out=np.full(np.shape(total), np.nan), where=total > 0
    )
    return share


def foreground_iou(
    intersection: NDArray[np.number], union: NDArray[np.number], truth: NDArray[np.number]
) -> NDArray[np.float64]:
    """`mean_iou` without the background."""
    return mean_iou(intersection[..., 1:], union[..., 1:], truth[..., 1:])


SCORES: dict[str, tuple[Score, str]] = {
    "mIoU": (mean_iou, "mean IoU over the classes in the test truth, background included, from all images' pixels"),
    "foreground mIoU": (foreground_iou, "mean IoU over the classes in the test truth, without the background"),
    "pixel accuracy": (pixel_accuracy, "share of all test pixels, background included, given their class"),
}


def resampling(items: Path) -> Iterator[Resampling]:
    """See `probes.protocol.Resamples`; of what `probes.dense.evaluate.write_items` wrote."""
    import pandas as pd

    frame = pd.read_parquet(items)
    lengths = frame["classes"].str.len()
    picture, kind = np.repeat(np.arange(len(frame)), lengths), np.concatenate(frame["classes"])
    parts_NC = []
    for column in ("intersection", "union", "truth"):
        counts_NC = np.zeros((len(frame), int(kind.max(initial=0)) + 1))
        counts_NC[picture, kind] = np.concatenate(frame[column])
        parts_NC.append(counts_NC)

    def scores(weights_RN: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        totals_RC = [weights_RN @ part_NC for part_NC in parts_NC]
        return {name: score(*totals_RC) for name, (score, _) in SCORES.items()}

    yield Resampling(ids=frame["image_id"].astype(str).tolist(), scores=scores)
