"""How a picture is shown: mirrored, scaled, cut and padded to the encoder's square; and its boxes and masks with it.

The picture keeps its aspect ratio, lies at the top left, and the rest of the square is padding.

Shapes: N boxes, H W the picture, h w what of it is shown, S edge of the square. Boxes are xyxy.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Boxes = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """One way to show a picture of width x height pixels.

    First mirrored where `flip`, then scaled to `scaled` (width, height), of which the part from `offset` (x, y) on is
    shown, `shown` (width, height) pixels of it.
    """

    width: int
    height: int
    flip: bool
    scaled: tuple[int, int]
    offset: tuple[int, int]
    shown: tuple[int, int]

    @classmethod
    def whole(cls, width: int, height: int, edge: int, *, flip: bool = False, scale: float = 1.0) -> "View":
        """The picture with its longer edge at `scale` times `edge`; from the top left, where it does not fit."""
        ratio = scale * min(edge / width, edge / height)
        scaled = max(1, round(width * ratio)), max(1, round(height * ratio))
        return cls(width, height, flip, scaled, (0, 0), (min(scaled[0], edge), min(scaled[1], edge)))

    @classmethod
    def random(
        cls, width: int, height: int, edge: int, *, jitter: tuple[float, float], flip: float, dice: np.random.Generator
    ) -> "View":
        """A draw of large-scale jitter: any scale of the range, any place of the cut, mirrored or not."""
        view = cls.whole(width, height, edge, flip=bool(dice.random() < flip), scale=float(dice.uniform(*jitter)))
        room = [full - part for full, part in zip(view.scaled, view.shown, strict=True)]
        offset = int(dice.integers(room[0] + 1)), int(dice.integers(room[1] + 1))
        return cls(width, height, view.flip, view.scaled, offset, view.shown)

    @property
    def crops(self) -> bool:
        """Whether anything of the picture is cut off."""
        return self.scaled != self.shown

    def boxes(self, boxes_N4: Boxes) -> Boxes:
        """Boxes of the picture as pixels of the square, cut to what is shown; a box that is not has no area."""
        scale = np.array([self.scaled[0] / self.width, self.scaled[1] / self.height] * 2)
        x_N2, y_N2 = boxes_N4[:, 0::2], boxes_N4[:, 1::2]
        if self.flip:
            x_N2 = self.width - x_N2[:, ::-1]
        moved = np.stack([x_N2[:, 0], y_N2[:, 0], x_N2[:, 1], y_N2[:, 1]], axis=1) * scale - (self.offset * 2)
        cut: Boxes = moved.clip(0, np.array([*self.shown, *self.shown]))
        return cut

    def boxes_back(self, boxes_N4: Boxes) -> Boxes:
        """The way back: boxes of the square as pixels of the picture, cut to it. Mirrored views have none."""
        if self.flip:
            raise ValueError("a mirrored picture is not judged")
        scale = np.array([self.width / self.scaled[0], self.height / self.scaled[1]] * 2)
        back: Boxes = ((boxes_N4 + (self.offset * 2)) * scale).clip(0, [self.width, self.height] * 2)
        return back

    def picture(self, image: Image.Image) -> Image.Image:
        """What is shown, (h, w): bilinear, antialiased; only the part that is shown is resampled."""
        across, down = self.width / self.scaled[0], self.height / self.scaled[1]
        left, top = self.offset
        if self.flip:
            left = self.scaled[0] - left - self.shown[0]
        window = (left * across, top * down, (left + self.shown[0]) * across, (top + self.shown[1]) * down)
        part = image.resize(self.shown, Image.Resampling.BILINEAR, box=window)
        return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else part

    def mask(self, mask_HW: Mask) -> Mask:
        """A mask as it is shown, (h, w): the pixels that it covers by at least half."""
        if self.scaled == (self.width, self.height) and not self.crops:
            return mask_HW[:, ::-1] if self.flip else mask_HW
        shown = self.picture(Image.fromarray(mask_HW.view(np.uint8) * np.uint8(255)))
        covered: Mask = np.asarray(shown) >= 128
        return covered


def to_square(part: Image.Image, edge: int, fill: tuple[float, float, float]) -> Tensor:
    """RGB as (3, S, S) float in [0, 1], padded on the right and below with `fill` (the encoder's mean: zero to it)."""
    square_3SS = torch.tensor(fill)[:, None, None].expand(3, edge, edge).contiguous()
    pixels_hw3 = torch.from_numpy(np.array(part.convert("RGB")))
    square_3SS[:, : part.height, : part.width] = pixels_hw3.permute(2, 0, 1).float() / 255
    return square_3SS
