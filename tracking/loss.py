"""OSTrack's losses: focal on the score map, GIoU and L1 on the box of the highest score.

Shapes: B pairs, h w the search grid. Truth boxes are x, y, width, height in shares of the search region.
"""

import torch
from torch import Tensor
from torch.nn.functional import l1_loss
from torchvision.ops import generalized_box_iou_loss

from tracking.model import Maps

WEIGHTS = {"focal": 1.0, "giou": 2.0, "l1": 5.0}

_OVERLAP = 0.7
_ALPHA, _BETA = 2, 4


def tracking_loss(maps: Maps, truth_B4: Tensor) -> dict[str, Tensor]:
    """Weighted parts, whose sum is the loss. The box is read where the predicted score is highest, as OSTrack does."""
    boxes_B4, _ = maps.boxes(maps.score)
    predicted_B4 = _corners(boxes_B4[:, :2] - boxes_B4[:, 2:] / 2, boxes_B4[:, 2:])
    corners_B4 = _corners(truth_B4[:, :2], truth_B4[:, 2:]).clamp(0, 1)
    parts = {
        "focal": focal_loss(maps.score, heat_map(truth_B4, maps.score.shape[-1])),
        "giou": generalized_box_iou_loss(predicted_B4, corners_B4, reduction="mean"),
        "l1": l1_loss(predicted_B4, corners_B4),
    }
    return {name: WEIGHTS[name] * value for name, value in parts.items()}


def focal_loss(score_B1hw: Tensor, truth_B1hw: Tensor) -> Tensor:
    """CenterNet's: log-loss of the cells that are 1, and of the others with less weight near them; per 1-cell."""
    positive = truth_B1hw == 1
    hits = score_B1hw.log() * (1 - score_B1hw) ** _ALPHA
    misses = (1 - score_B1hw).log() * score_B1hw**_ALPHA * (1 - truth_B1hw) ** _BETA
    return -torch.where(positive, hits, misses).sum() / positive.sum().clamp(min=1)


def heat_map(truth_B4: Tensor, cells: int) -> Tensor:
    """(B, 1, h, w): a Gaussian around the cell border nearest to the target's centre, 1 there, cut at its radius.

    A centre outside the region has no cell that is 1.
    """
    boxes_B4 = truth_B4 * cells
    radius_B = _radius(boxes_B4[:, 2], boxes_B4[:, 3]).clamp(min=0).floor().view(-1, 1, 1)
    centre_B2 = (boxes_B4[:, :2] + boxes_B4[:, 2:] / 2).round()
    at = torch.arange(cells, device=truth_B4.device, dtype=truth_B4.dtype)
    across_Bhw = at.view(1, 1, -1) - centre_B2[:, 0].view(-1, 1, 1)
    down_Bhw = at.view(1, -1, 1) - centre_B2[:, 1].view(-1, 1, 1)
    sigma = (2 * radius_B + 1) / 6
    map_Bhw = torch.exp(-(across_Bhw**2 + down_Bhw**2) / (2 * sigma**2))
    near = (across_Bhw.abs() <= radius_B) & (down_Bhw.abs() <= radius_B)
    return (map_Bhw * near).unsqueeze(1)


def _radius(width_B: Tensor, height_B: Tensor) -> Tensor:
    """CornerNet's: how far a corner may move for an overlap of 0.7, in its first published form, which OSTrack (and
    CenterNet) use: the roots lack the division by 2a. Of its three cases the last alone is ever the least: at most 0.14
    of width and height together, where the others are at least half of that sum."""
    total, area, over = width_B + height_B, width_B * height_B, _OVERLAP
    return -over * total + (over**2 * total**2 + 4 * over * (1 - over) * area).sqrt()


def _corners(corner_B2: Tensor, size_B2: Tensor) -> Tensor:
    return torch.cat([corner_B2, corner_B2 + size_B2], dim=1)
