"""A feature pyramid straight from frozen patch tokens (paper, section 4.3): 4x, 2x, 1x, 0.5x and 0.25x of their grid.

The paper says that its pyramid is "constructed directly from frozen backbone embeddings" by max-pooling and unpooling,
and no more. Here each level is resized without parameters (nearest repeat, or maximum), then projected by 1 x 1 and
3 x 3 convolutions with a LayerNorm each, as ViTDet's pyramid does after its own resizing.

Shapes: B images, D width of the encoder, C channels, h w the patch grid. Levels go from fine to coarse.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

SCALES = (4.0, 2.0, 1.0, 0.5, 0.25)
"""Resolutions relative to the patch grid. The heads pool from all but the last, which only the RPN sees."""

_EPS = 1e-6


class Level(NamedTuple):
    """One level's scale; `stride` is in input pixels and need not be whole (patch 14 has 3.5)."""

    scale: float
    stride: float


def levels(patch: int) -> tuple[Level, ...]:
    """The pyramid's levels for a patch size."""
    return tuple(Level(scale, patch / scale) for scale in SCALES)


def normalise_tokens(patches_BDhw: Tensor) -> Tensor:
    """Affine-free LayerNorm over D: raw and normed towers meet every head on equal terms. fp32, channels last."""
    tokens_BhwD = patches_BDhw.permute(0, 2, 3, 1).float()
    return nn.functional.layer_norm(tokens_BhwD, tokens_BhwD.shape[-1:]).permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, h, w). On channels-last memory it is one pass without a copy."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPS)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Normalise each position over its channels."""
        x_BhwC = x_BChw.permute(0, 2, 3, 1)
        return nn.functional.layer_norm(x_BhwC, self.normalized_shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )


class Projection(nn.Module):
    """What one level learns: 1 x 1 convolution and LayerNorm at `scale` <= 1, 3 x 3 convolution and LayerNorm.

    A repeat commutes with all that treats each position by itself, so the 1 x 1 part runs before it: at 4x that is a
    sixteenth of the work, with the same numbers.
    """

    def __init__(self, width: int, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.lateral = nn.Conv2d(width, channels, 1, bias=False)
        self.lateral_norm = ChannelNorm(channels)
        self.output = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.output_norm = ChannelNorm(channels)
        for convolution in (self.lateral, self.output):
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, tokens_BDhw: Tensor) -> Tensor:
        """(B, C, ceil(scale h), ceil(scale w)); a cell at a pooled edge that is cut short pools what is there."""
        x = tokens_BDhw
        if self.scale < 1:
            x = nn.functional.max_pool2d(x, round(1 / self.scale), ceil_mode=True)
        x = self.lateral_norm(self.lateral(x))
        if self.scale > 1:
            x = nn.functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return self.output_norm(self.output(x))  # type: ignore[no-any-return]


class Pyramid(nn.Module):
    """All levels, from the tokens that `normalise_tokens` gives."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(Projection(width, channels, scale) for scale in SCALES)

    def forward(self, tokens_BDhw: Tensor) -> list[Tensor]:
        """Five maps (B, C, ...), fine to coarse. Level k's cell (i, j) begins at pixel (i, j) * stride_k exactly."""
        tokens = tokens_BDhw.contiguous(memory_format=torch.channels_last)
        return [projection(tokens) for projection in self.projections]
