"""Boxes on a pyramid: anchors, matching, sampling, levels and pooling.

torchvision's own anchors are rounded and its strides are integers (3.5 becomes 3), and its multi-scale pooling is not
aligned; so those are here, as detectron2 defines them, with torchvision's matcher, sampler, coder and RoIAlign beneath.

Shapes: N boxes, G truth boxes, R regions of all images, L levels, C channels, P edge of a pooled region. Boxes are
xyxy in input pixels, fp32.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection import _utils as detection
from torchvision.ops import box_iou, roi_align

_CANONICAL_CELLS = 14.0
"""A box of this many cells of the patch grid on a side belongs to that grid: 224 pixels to stride 16 (FPN, eq. 1)."""

_PATCH_LEVEL = 2
"""Index of the level at the resolution of the patch grid."""

_EPS = 1e-8


def cell_anchors(stride: float, scale: float, ratios: Sequence[float]) -> Tensor:
    """Anchors around the origin, (A, 4), of area (scale * stride)^2, not rounded; `ratios` are height over width."""
    area = torch.tensor((scale * stride) ** 2, dtype=torch.float64)
    ratio_A = torch.tensor(tuple(ratios), dtype=torch.float64)
    width_A = (area / ratio_A).sqrt()
    height_A = width_A * ratio_A
    return (torch.stack([-width_A, -height_A, width_A, height_A], dim=1) / 2).float()


@functools.lru_cache(maxsize=64)
def grid_anchors(
    grid: tuple[int, int], stride: float, scale: float, ratios: tuple[float, ...], device: torch.device
) -> Tensor:
    """Anchors of one level, (h * w * A, 4): rows, then columns, then ratios; cell (i, j) has its at (j, i) * stride."""
    rows, columns = (torch.arange(edge, dtype=torch.float32) * stride for edge in grid)
    y_hw, x_hw = torch.meshgrid(rows, columns, indexing="ij")
    shift_T14 = torch.stack([x_hw, y_hw, x_hw, y_hw], dim=-1).reshape(-1, 1, 4)
    return (shift_T14 + cell_anchors(stride, scale, ratios)).reshape(-1, 4).to(device)


class Matching:
    """Which truth box each box belongs to, by IoU.

    `high`, `low`: from `high` on a box is positive, below `low` negative, ignored between. `best_too`: the boxes that
    overlap a truth box most are positive however low that is (RPN).
    """

    def __init__(self, high: float, low: float, *, best_too: bool) -> None:
        self._matcher = detection.Matcher(high, low, allow_low_quality_matches=best_too)

    @torch.no_grad()
    def __call__(self, truth_G4: Tensor, boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
        """(index of the truth box, 0 where there is none; label: 1 positive, 0 negative, -1 ignored), each (N,)."""
        if not len(truth_G4) or not len(boxes_N4):
            zero_N = torch.zeros(len(boxes_N4), dtype=torch.int64, device=boxes_N4.device)
            return zero_N, zero_N
        matched_N = self._matcher(box_iou(truth_G4, boxes_N4))
        label_N = torch.where(matched_N >= 0, 1, torch.where(matched_N == self._matcher.BELOW_LOW_THRESHOLD, 0, -1))
        return matched_N.clamp(min=0), label_N


def sample(label_N: Tensor, count: int, positives: float) -> tuple[Tensor, Tensor]:
    """Indices of at most `positives * count` random positives (label > 0) and, up to `count` in all, of negatives (0).

    From torch's global generator, one permutation of each.
    """
    positive, negative = torch.where(label_N > 0)[0], torch.where(label_N == 0)[0]
    most = min(len(positive), int(count * positives))
    chosen = positive[torch.randperm(len(positive), device=label_N.device)[:most]]
    rest = negative[torch.randperm(len(negative), device=label_N.device)[: count - most]]
    return chosen, rest


def level_of(boxes_R4: Tensor, strides: Sequence[float]) -> Tensor:
    """Index of the level that each box is pooled from, (R,): where it has 14 to 28 cells on a side (FPN, eq. 1)."""
    canonical = _CANONICAL_CELLS * strides[0] * 2**_PATCH_LEVEL
    edge_R = ((boxes_R4[:, 2] - boxes_R4[:, 0]) * (boxes_R4[:, 3] - boxes_R4[:, 1])).sqrt()
    level_R = torch.floor(_PATCH_LEVEL + torch.log2(edge_R / canonical + _EPS))
    return level_R.clamp(0, len(strides) - 1).long()


def pool(features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[float], size: int) -> Tensor:
    """RoIAlign, aligned, of every image's boxes from the level of each: (R, C, P, P), in the order of the boxes."""
    boxes_R4 = torch.cat(list(boxes))
    counts = torch.tensor([len(part) for part in boxes], device=boxes_R4.device)
    image_R = torch.repeat_interleave(torch.arange(len(boxes), device=boxes_R4.device), counts)
    rois_R5 = torch.cat([image_R[:, None].to(boxes_R4.dtype), boxes_R4], dim=1)
    level_R = level_of(boxes_R4, strides)
    features = [feature.float() for feature in features]
    pooled_RCPP = features[0].new_zeros(len(rois_R5), features[0].shape[1], size, size)
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        (chosen,) = torch.where(level_R == level)
        part = roi_align(feature, rois_R5[chosen], size, spatial_scale=1 / stride, sampling_ratio=0, aligned=True)
        pooled_RCPP[chosen] = part
    return pooled_RCPP


def distance_sum(predicted_N4: Tensor, target_N4: Tensor) -> Tensor:
    """Sum of absolute differences: smooth L1 with beta 0, as in the recipe."""
    return (predicted_N4 - target_N4).abs().sum()
