"""LISA's losses of a mask: binary cross entropy and dice (Lai et al., 2024, section 3.2), of the pixels with a label.

Masks are compared at the picture's own size, which may be ten million pixels. So they are taken a few at a time, large
ones one by one, and intermediate values are computed anew for the gradient: beside logits (4 bytes a pixel), masks (1)
and the gradient (4, and 8 while it is gathered), 16 bytes are needed for each pixel of those few, not of all.

Shapes: N masks, K of them, H, W one picture.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.checkpoint import checkpoint

TARGET, NO_LABEL = 1, 255
"""Values of a mask's pixels beside 0."""
_SCALE, _EPSILON = 1000.0, 1e-6
"""Of LISA's dice: with sums divided by the scale, the epsilon counts as a thousandth of a pixel."""

_TOGETHER = 2**20
"""Pixels of masks that are taken together, where one does not have more."""


def mask_losses(logits_NHW: Tensor, masks_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy (N,), a mean over pixels, and dice loss (N,), 0 to 1, both in float32.

    masks_NHW: uint8; pixels with NO_LABEL take part in neither. A mask that has no others costs 0, and so does, in its
    dice loss, an empty one that is predicted without a pixel. Where there is no mask, both are empty.
    """
    if not len(logits_NHW):
        none = logits_NHW.float().sum((1, 2))
        return none, none
    few = max(1, _TOGETHER // logits_NHW[0].numel())
    parts = [
        checkpoint(_losses, logits_KHW, masks_KHW, use_reentrant=False, preserve_rng_state=False)
        for logits_KHW, masks_KHW in zip(torch.split(logits_NHW, few), torch.split(masks_NHW, few), strict=True)
    ]
    bce_N, dice_N = (torch.cat(values) for values in zip(*parts, strict=True))
    return bce_N, dice_N


def _losses(logits_KHW: Tensor, masks_KHW: Tensor) -> tuple[Tensor, Tensor]:
    logits_KHW = logits_KHW.float()
    counts_KHW = (masks_KHW != NO_LABEL).float()
    target_KHW = (masks_KHW == TARGET).float()
    entropy_KHW = binary_cross_entropy_with_logits(logits_KHW, target_KHW, weight=counts_KHW, reduction="none")
    inside_KHW = logits_KHW.sigmoid()
    common_K = 2 * (inside_KHW * target_KHW).sum((1, 2)) / _SCALE
    both_K = ((inside_KHW * counts_KHW).sum((1, 2)) + target_KHW.sum((1, 2))) / _SCALE
    bce_K = entropy_KHW.sum((1, 2)) / counts_KHW.sum((1, 2)).clamp(min=1)
    return bce_K, 1 - (common_K + _EPSILON) / (both_K + _EPSILON)
