"""The mask head, its loss, and pasting its small masks into pictures.

Shapes: B images, R regions of all images, N detections of one image, G truth instances, C channels, K categories,
M edge of a predicted mask, H W the picture. Boxes are xyxy in pixels of what the mask lies in.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import roi_align

from probes.detection.boxes import pool
from probes.detection.cascade import Found, Regions
from probes.detection.config import HeadsConfig
from probes.detection.pyramid import ChannelNorm

_POOL = 14
MASK_EDGE = 2 * _POOL
"""M."""


class MaskHead(nn.Module):
    """Convolutions with LayerNorm, a transposed convolution to twice the size, one mask per category."""

    def __init__(self, config: HeadsConfig, classes: int, strides: Sequence[float]) -> None:
        super().__init__()
        self.classes, self.strides, width = classes, tuple(strides), config.channels
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(config.mask_convs))
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in range(config.mask_convs))
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.predict = nn.Conv2d(width, classes, 1)
        for layer in (*self.convs, self.upsample):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predict.weight, std=0.001)
        for layer in (self.upsample, self.predict):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels_R: Tensor) -> Tensor:
        """Logits (R, M, M) of each region's own category, fp32.

        Only that category's row of the last convolution is applied: the other K - 1 masks are never made.
        """
        x = pool(features, boxes, self.strides, _POOL).contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convs, self.norms, strict=True):
            x = nn.functional.relu(norm(convolution(x)))
        x_RCMM = nn.functional.relu(self.upsample(x))
        weight_RC, bias_R = self.predict.weight[labels_R, :, 0, 0], self.predict.bias[labels_R]  # type: ignore[index]
        x_RTC = x_RCMM.permute(0, 2, 3, 1).flatten(1, 2)
        logits_RT = torch.bmm(x_RTC, weight_RC[:, :, None].to(x_RTC.dtype))[..., 0] + bias_R[:, None].to(x_RTC.dtype)
        return logits_RT.float().view(-1, MASK_EDGE, MASK_EDGE)

    def loss(self, features: Sequence[Tensor], regions: Sequence[Regions], masks: Sequence[Tensor]) -> Tensor:
        """Mean binary cross entropy over the positive regions of the first stage; `masks`: bool (G, H, W) per image."""
        chosen = [part.labels < self.classes for part in regions]
        boxes = [part.boxes[used] for part, used in zip(regions, chosen, strict=True)]
        labels_R = torch.cat([part.labels[used] for part, used in zip(regions, chosen, strict=True)])
        logits_RMM: Tensor = self(features, boxes, labels_R)
        matched = [part.matched[used] for part, used in zip(regions, chosen, strict=True)]
        target_RMM = torch.cat([crop_masks(*parts) for parts in zip(masks, boxes, matched, strict=True)])
        if not len(labels_R):
            return logits_RMM.sum()  # nothing to learn, and still a gradient (of zero) for every parameter
        return nn.functional.binary_cross_entropy_with_logits(logits_RMM, target_RMM)

    @torch.no_grad()
    def detect(self, features: Sequence[Tensor], found: Sequence[Found]) -> list[Tensor]:
        """Probabilities (N, M, M) inside each detection's box."""
        counts = [len(part.labels) for part in found]
        labels_R = torch.cat([part.labels for part in found])
        logits_RMM = self(features, [part.boxes for part in found], labels_R)
        return list(torch.split(torch.sigmoid(logits_RMM), counts))


def crop_masks(masks_GHW: Tensor, boxes_N4: Tensor, matched_N: Tensor) -> Tensor:
    """What of its truth mask each box shows, (N, M, M) of 0 and 1: RoIAlign of the mask, cut at one half."""
    if not len(boxes_N4):
        return boxes_N4.new_zeros(0, MASK_EDGE, MASK_EDGE)
    needed, row_N = torch.unique(matched_N, return_inverse=True)
    rois_N5 = torch.cat([row_N[:, None].to(boxes_N4.dtype), boxes_N4], dim=1)
    shown_N1MM: Tensor = roi_align(
        masks_GHW[needed, None].to(boxes_N4.dtype), rois_N5, MASK_EDGE, sampling_ratio=0, aligned=True
    )
    return (shown_N1MM[:, 0] >= 0.5).float()


def paste_mask(mask_MM: NDArray[np.float32], box: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
    """A mask of probabilities inside `box` as pixels (H, W): bilinear at pixel centres, cut at one half.

    Bilinear sampling is separable, so two small matrix products do it, inside the box's window only. Column-major, as
    pycocotools wants it.
    """
    left, top, right, bottom = map(float, box)
    pasted_HW = np.zeros((height, width), dtype=bool, order="F")
    rows = _window(top, bottom, height)
    columns = _window(left, right, width)
    if rows and columns and bottom > top and right > left:
        down, across = _weights(rows, top, bottom), _weights(columns, left, right)
        pasted_HW[rows.start : rows.stop, columns.start : columns.stop] = down @ mask_MM @ across.T >= 0.5
    return pasted_HW


def _window(low: float, high: float, edge: int) -> range:
    return range(max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, edge))


def _weights(pixels: range, low: float, high: float) -> NDArray[np.float32]:
    """How much each of the M cells between `low` and `high` gives to each pixel, (pixels, M); nothing outside."""
    centre = (np.arange(pixels.start, pixels.stop) + 0.5 - low) / (high - low) * MASK_EDGE - 0.5
    weights: NDArray[np.float32] = np.maximum(1 - np.abs(centre[:, None] - np.arange(MASK_EDGE)), 0).astype(np.float32)
    return weights
