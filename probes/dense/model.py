"""Tokens and pixels: what the probe reads from the encoder, and how the token grid lies over the picture.

Shapes: B images, D width, C classes, H W pixels of the original picture, S input edge, h w token grid, T = h w tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probes.cache import FeatureSource
from probes.images import squash
from probes.linear import layer_norm
from rice.data.coco import CocoSplit
from rice.encoders.base import Encoder
from rice.encoders.spec import EncoderSpec
from rice.files import sha256_json

_MAX_ELEMENTS = 2**25
"""Upsampled logits held at once: COCO's 81 classes of a 640 x 480 picture fit; LVIS's 1,204 are taken in parts."""


@dataclass(frozen=True)
class TokenGrid:
    """A grid of `tokens` x `tokens` cells of `patch` input pixels over a picture squashed to `size` x `size`.

    Where `size` is no multiple of `patch` the encoder drops the remainder at the right and the bottom; pixels there
    belong to the last cell, as border replication gives them.
    """

    size: int
    patch: int
    tokens: int

    @classmethod
    def of(cls, spec: EncoderSpec, size: int) -> "TokenGrid":
        """The grid of a square input. Errors: RiceError for a size that the encoder does not take."""
        return cls(size, spec.patch, spec.check_size(size, size)[0])

    def cells(self, pixels: int) -> NDArray[np.int64]:
        """Along one edge of the original picture, the cell of each pixel's centre: nearest upsampling, (pixels,)."""
        cells = ((np.arange(pixels) + 0.5) * self.size / pixels / self.patch).astype(np.int64)
        return np.minimum(cells, self.tokens - 1)

    def positions(self, pixels: int, device: torch.device) -> Tensor:
        """Along one edge, each pixel's centre in grid_sample's units: -1 and 1 are the grid's outer edges."""
        centres = (torch.arange(pixels, device=device, dtype=torch.float32) + 0.5) / pixels
        return centres * (2 * self.size / (self.patch * self.tokens)) - 1


def extract_tokens(encoder: Encoder, images_B3SS: Tensor) -> Tensor:
    """Patch tokens (B, T, D) after an affine-free LayerNorm in fp32, rows of the grid one after another.

    The normalisation bounds them by sqrt(D), so fp16 holds the tokens of every tower.
    """
    return layer_norm(encoder(images_B3SS).patches.flatten(2).mT)


def token_source(
    encoder: Encoder, key: str, split: CocoSplit, images: Sequence[int], grid: TokenGrid
) -> FeatureSource[int]:
    """The tokens of these images of a split, (T, D) each; `key` identifies encoder and dataset."""
    return FeatureSource(
        load=lambda item: squash(split.load_image(images[item]), grid.size),
        extract=partial(extract_tokens, encoder),
        count=len(images),
        shape=(grid.tokens**2, encoder.spec.width),
        key=sha256_json([key, split.name, list(images)]),
    )


def predict_pixels(logits_Chw: Tensor, grid: TokenGrid, height: int, width: int) -> Tensor:
    """Class of every pixel of the original picture, (H, W) int64: bilinear upsampling of the logits, then argmax.

    Equal to `interpolate(logits, (H, W), mode="bilinear", align_corners=False)` where the grid has no remainder.
    """
    device = logits_Chw.device
    rows, columns = grid.positions(height, device), grid.positions(width, device)
    where_1HW2 = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
    best = torch.full((height, width), -torch.inf, device=device)
    classes = torch.zeros((height, width), dtype=torch.int64, device=device)
    winners, step = possible_winners(logits_Chw), max(1, _MAX_ELEMENTS // (height * width))
    for first in range(0, len(winners), step):
        part = winners[first : first + step]
        up = nn.functional.grid_sample(
            logits_Chw[None, part].float(), where_1HW2, mode="bilinear", padding_mode="border", align_corners=False
        )
        value, index = up[0].max(dim=0)
        classes = torch.where(value > best, part[index], classes)
        best = torch.maximum(best, value)
    return classes


def possible_winners(logits_Chw: Tensor) -> Tensor:
    """Ascending indices of the classes that can be the argmax of some bilinearly upsampled pixel.

    A pixel's value lies between the smallest and the largest of its four tokens' values: where another class's smallest
    is larger everywhere, a class need not be upsampled. A trained head leaves a few of COCO's 81.
    """
    padded = nn.functional.pad(logits_Chw[None].float(), (1, 1, 1, 1), mode="replicate")
    largest = nn.functional.max_pool2d(padded, 2, stride=1)[0]
    smallest = -nn.functional.max_pool2d(-padded, 2, stride=1)[0]
    return (largest >= smallest.amax(0)).flatten(1).any(1).nonzero()[:, 0]
