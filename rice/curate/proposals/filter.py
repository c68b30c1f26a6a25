"""Which proposals of a picture are taken.

Shapes: R proposals, K of them that are taken.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rice.curate.proposals.config import ProposalConfig
from rice.curate.proposals.proposer import Proposals
from rice.data.coco_sample import outwards
from rice.errors import RiceError

NOT_FINITE = "not finite"
OUTSIDE = "outside or empty"
SMALL = "edge below min_region"
DUPLICATE = "duplicate"
ABOVE_CAP = "above the cap"

_MOST_PIXELS = np.iinfo(np.uint16).max


class Selection(NamedTuple):
    """The regions of one picture, best first.

    boxes: (K, 4) xyxy, whole pixels inside the picture. scores: (K,). dropped: proposals that were left out, by reason.
    """

    boxes: NDArray[np.uint16]
    scores: NDArray[np.float32]
    dropped: Counter[str]


def select(proposals: Proposals, width: int, height: int, config: ProposalConfig) -> Selection:
    """Take the best proposals of a picture of `width` x `height` pixels. Each is taken, or counted under one reason.

    Boxes are clipped to the picture, and then must have both edges (before rounding: 127.5 is below 128); they are
    rounded outwards, as `rice pack`'s. Of what is left the higher score goes first, at the same
    score the earlier one: it is a duplicate where its IoU with one before that was taken is above the limit.
    Errors: RiceError for a picture whose pixels 16 bits cannot count.
    """
    if max(width, height) > _MOST_PIXELS:
        raise RiceError(f"expected a picture of at most {_MOST_PIXELS} pixels an edge, got {width}x{height}; shrink it")
    dropped: Counter[str] = Counter()
    boxes_R4, scores_R = proposals
    finite = np.isfinite(boxes_R4).all(axis=1) & np.isfinite(scores_R)
    boxes_R4, scores_R = _keep(boxes_R4, scores_R, finite, NOT_FINITE, dropped)
    boxes_R4 = boxes_R4.clip(0, [width, height] * 2)
    boxes_R4, scores_R = _keep(boxes_R4, scores_R, _edges(boxes_R4) > 0, OUTSIDE, dropped)
    boxes_R4, scores_R = _keep(boxes_R4, scores_R, _edges(boxes_R4) >= config.min_region, SMALL, dropped)
    whole_R4 = outwards(boxes_R4)
    distinct = _distinct(whole_R4.astype(np.float64), scores_R, config.duplicate_iou)
    dropped[DUPLICATE] += len(boxes_R4) - len(distinct)
    dropped[ABOVE_CAP] += max(len(distinct) - config.most_regions, 0)
    taken = distinct[: config.most_regions]
    return Selection(whole_R4[taken], scores_R[taken], +dropped)


def _edges(boxes_R4: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shorter edge of each."""
    shorter_R: NDArray[np.float64] = (boxes_R4[:, 2:] - boxes_R4[:, :2]).min(axis=1)
    return shorter_R


def _keep(
    boxes_R4: NDArray[np.float64], scores_R: NDArray[np.float32], holds: NDArray[np.bool_], why: str, out: Counter[str]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    out[why] += int((~holds).sum())
    return boxes_R4[holds], scores_R[holds]


def _distinct(boxes_R4: NDArray[np.float64], scores_R: NDArray[np.float32], most_iou: float) -> NDArray[np.intp]:
    """Greedy: indices of what is no duplicate of a better one, best first."""
    left = np.argsort(-scores_R, kind="stable")
    taken: list[int] = []
    while len(left):
        first, left = left[0], left[1:]
        taken.append(int(first))
        left = left[_iou(boxes_R4[first], boxes_R4[left]) <= most_iou]
    return np.array(taken, dtype=np.intp)


def _iou(box_4: NDArray[np.float64], boxes_R4: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of one box with others, none empty. Exact up to one rounding: whole pixels."""
    shared = np.minimum(box_4[2:], boxes_R4[:, 2:]) - np.maximum(box_4[:2], boxes_R4[:, :2])
    shared_R = shared.clip(0).prod(axis=1)
    union_R = (box_4[2:] - box_4[:2]).prod() + (boxes_R4[:, 2:] - boxes_R4[:, :2]).prod(axis=1) - shared_R
    ratio_R: NDArray[np.float64] = shared_R / union_R
    return ratio_R
