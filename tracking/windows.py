"""Square windows around a target, as OSTrack cuts them, and boxes in and out of them.

Three of OSTrack's quirks are left out: its crop drops the last row and column of the frame; its training takes
(S - 1) / 2 for the centre of a crop where its test takes S / 2; and its window is rounded to whole pixels while its
boxes are placed relative to the unrounded one. Here a box and its picture share one exact geometry.

Shapes: S edge of the cut picture, H W the frame. Boxes are x, y, width, height, in pixels of the frame whose top left
corner is (0, 0), or in shares of a window.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rice.data.video import Image_HW3

Box = Sequence[float] | NDArray[np.float64]
Crop_SS3 = NDArray[np.uint8]

_LARGEST = 2**20
"""Pixels: wider windows than any frame could fill."""


class Window(NamedTuple):
    """A square of whole pixels, which may reach beyond the frame."""

    left: int
    top: int
    side: int

    @classmethod
    def around(cls, box: Box, factor: float) -> "Window":
        """Of edge ceil(sqrt(w h) factor), centred on the box to the pixel (OSTrack)."""
        x, y, width, height = box
        side = min(max(math.ceil(math.sqrt(width * height) * factor), 1), _LARGEST)
        return cls(round(x + width / 2 - side / 2), round(y + height / 2 - side / 2), side)

    def meets(self, height: int, width: int) -> bool:
        """Whether it holds a pixel of the frame."""
        return self.left < width and self.top < height and self.left + self.side > 0 and self.top + self.side > 0

    def cut(self, frame_HW3: Image_HW3, size: int) -> Crop_SS3:
        """The window as an S x S picture: bilinear without a filter, as OSTrack resizes; black beyond the frame.

        Only the pixels that are seen are touched, so that a window far larger than its frame costs no more.
        """
        height, width, _ = frame_HW3.shape
        if not self.meets(height, width):
            return np.zeros((size, size, 3), np.uint8)
        left, top = max(self.left, 0), max(self.top, 0)
        right, bottom = min(self.left + self.side, width), min(self.top + self.side, height)
        # A black rim where the window goes on, so that the frame's last pixel fades as in a padded picture.
        above, below = int(self.top < 0), int(self.top + self.side > height)
        before, behind = int(self.left < 0), int(self.left + self.side > width)
        region = np.pad(frame_HW3[top:bottom, left:right], ((above, below), (before, behind), (0, 0)))
        scale = self.side / size
        place = (scale, 0.0, self.left - left + before, 0.0, scale, self.top - top + above)
        picture = Image.fromarray(region).transform(
            (size, size), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR
        )
        return np.asarray(picture)

    def inside(self, box: Box) -> tuple[float, float, float, float]:
        """A box of the frame in shares of the window."""
        x, y, width, height = box
        side = self.side
        return (x - self.left) / side, (y - self.top) / side, width / side, height / side

    def outside(self, box: Box) -> tuple[float, float, float, float]:
        """A box in shares of the window as one of the frame."""
        x, y, width, height = box
        side = self.side
        return x * side + self.left, y * side + self.top, width * side, height * side


def clip_box(box: Box, height: int, width: int, margin: float) -> tuple[float, float, float, float]:
    """The box cut at the frame, of which it keeps `margin` pixels; it is never smaller than that (OSTrack: 10).

    In frames smaller than the margin it keeps what there is.
    """
    x, y, box_width, box_height = box
    left, right = _clip(x, x + box_width, width, min(margin, width))
    top, bottom = _clip(y, y + box_height, height, min(margin, height))
    return left, top, max(right - left, min(margin, width)), max(bottom - top, min(margin, height))


def _clip(low: float, high: float, edge: int, margin: float) -> tuple[float, float]:
    return min(max(low, 0.0), edge - margin), min(max(high, margin), float(edge))
