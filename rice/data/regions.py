"""What a training sample shows: the crop, its regions and their labels (paper 3.2). Imports no torch.

Shapes: R regions annotated, N regions sampled, M positives. Boxes are xyxy in pixels.
Everything is drawn from `Draws`, whose numbers depend on (seed, epoch, sample) alone: neither the number of ranks or
workers, nor what was drawn for another picture, nor numpy's version changes them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
Indices = NDArray[np.int64]

_ATTEMPTS = 10
_GRID = 8
"""Crops lie on multiples of 8 pixels: of JPEG's blocks, so that a picture decoded at 1/2, 1/4 or 1/8 is cut exactly."""
_GRID_FROM = 128
"""Smaller pictures are cut at any pixel; there the grid would be felt, and nothing is won."""


class Crop(NamedTuple):
    """A window of a picture, in whole pixels."""

    left: int
    top: int
    width: int
    height: int


class Draws:
    """Uniform numbers in [0, 1) of one (seed, epoch, sample): Philox keyed by the three, read as 53 bits each."""

    def __init__(self, seed: int, epoch: int, sample: int, *, counter: int = 0) -> None:
        """counter: where in the generator's 2^256 blocks the numbers begin."""
        self._of = seed, epoch, sample
        key = (seed & (1 << 64) - 1) << 64 | (epoch & 0xFF_FFFF) << 40 | sample
        self._bits = np.random.Philox(key=key, counter=counter)

    def apart(self) -> "Draws":
        """Numbers of the same sample from half the period ahead: drawing them leaves what else it shows as it is."""
        return Draws(*self._of, counter=1 << 255)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """(count,) float64."""
        raw: NDArray[np.uint64] = self._bits.random_raw(count)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_crop(width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], draws: Draws) -> Crop:
    """A window of `scale` of the picture's area with width / height in `ratio`, both uniform (the latter in its log).

    As torchvision's RandomResizedCrop: ten attempts, then the largest centred window of an allowed ratio. Pictures
    of 128 pixels and more are cut on a grid of 8.
    """
    grid = _GRID if min(width, height) >= _GRID_FROM else 1
    uniforms = draws.uniform(4 * _ATTEMPTS).reshape(_ATTEMPTS, 4).tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, aspect, x, y in uniforms:
        pixels = width * height * (scale[0] + area * (scale[1] - scale[0]))
        shape = math.exp(low + aspect * (high - low))
        w, h = _on_grid(math.sqrt(pixels * shape), grid), _on_grid(math.sqrt(pixels / shape), grid)
        if 0 < w <= width and 0 < h <= height:
            return Crop(_place(x, width - w, grid), _place(y, height - h, grid), w, h)
    return _central(width, height, ratio, grid)


def _on_grid(value: float, grid: int) -> int:
    return round(value / grid) * grid


def _place(uniform: float, room: int, grid: int) -> int:
    return int(uniform * (room // grid + 1)) * grid


def _central(width: int, height: int, ratio: tuple[float, float], grid: int) -> Crop:
    w = min(width, math.floor(height * ratio[1]))
    h = min(height, math.floor(width / ratio[0]))
    w, h = max(w // grid, 1) * grid, max(h // grid, 1) * grid
    return Crop((width - w) // 2 // grid * grid, (height - h) // 2 // grid * grid, w, h)


def through_crop(boxes_R4: Boxes, crop: Crop, size: int, flip: bool) -> Boxes:
    """The boxes in the pixels of the crop resized to size x size, then mirrored; clipped to it, some empty by that."""
    scale = np.array([size / crop.width, size / crop.height] * 2)
    moved_R4: Boxes = (boxes_R4 - np.array([crop.left, crop.top] * 2)) * scale
    moved_R4 = moved_R4.clip(0, size)
    if flip:
        moved_R4[:, [0, 2]] = size - moved_R4[:, [2, 0]]
    return moved_R4


def visible_share(boxes_R4: Boxes, crop: Crop) -> NDArray[np.float64]:
    """(R,) in [0, 1]: how much of each box's area lies inside the crop. The boxes are not empty."""
    low, high = [crop.left, crop.top] * 2, [crop.left + crop.width, crop.top + crop.height] * 2
    inside_R4 = boxes_R4.clip(low, high)
    share: NDArray[np.float64] = _areas(inside_R4) / _areas(boxes_R4)
    return share


def _areas(boxes_R4: Boxes) -> NDArray[np.float64]:
    edges_2R = (boxes_R4[:, 2:] - boxes_R4[:, :2]).T
    areas: NDArray[np.float64] = edges_2R[0] * edges_2R[1]
    return areas


def balanced(count: int, wanted: int, draws: Draws) -> Indices:
    """`wanted` of `count` regions (paper 3.2): without replacement where there are enough, else all and repeats.

    Indices (wanted,), or (0,) where count is 0. As many numbers are drawn whatever the branch: count + wanted.
    """
    uniforms = draws.uniform(count + wanted)
    order = np.argsort(uniforms[:count], kind="stable")
    if not count or count >= wanted:
        return order[:wanted]
    repeats = (uniforms[2 * count :] * count).astype(np.int64)
    return np.concatenate([order, repeats])


def draw_caption(captions: Sequence[str], draws: Draws) -> str:
    """One of `captions`, "" of none."""
    if not captions:
        return ""
    return captions[int(draws.apart().uniform(1)[0] * len(captions))]


def draw_positives(tokens: NDArray[np.int32], wanted: int, draws: Draws) -> Indices:
    """At most `wanted` distinct ids of `tokens`, drawn where there are more. No number is drawn for no token."""
    if not len(tokens):
        return np.zeros(0, dtype=np.int64)
    distinct = np.unique(tokens).astype(np.int64)
    return distinct[np.argsort(draws.uniform(len(distinct)), kind="stable")][:wanted]
