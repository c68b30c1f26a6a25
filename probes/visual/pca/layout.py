"""How the pictures look: original left, components right, small captions, thin gaps.

Shapes: H W pixels of a frame, h w patch grid, 3 RGB (uint8).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

_VIDEO_PAPER, _VIDEO_INK = (16, 16, 16), (185, 185, 185)
_STRIP_PAPER, _STRIP_INK = (255, 255, 255), (80, 80, 80)
_WIDEST, _TALLEST = 3840, 2160  # larger H.264 plays in few browsers
_LOWEST_PANEL = 240
_STRIP_PANEL = 460
_STRIP_FONT = 12
_GAP = 4
_ELLIPSIS = "\u2026"


class Row(NamedTuple):
    """One frame of a strip: the original (H, W, 3), the components (h, w, 3), what to write beside them."""

    image: Pixels
    colours: Pixels
    label: str


@dataclass(frozen=True)
class VideoLayout:
    """Frames of the video: two panels of `height` x `width` pixels above a caption; every edge is even."""

    height: int
    width: int
    caption: int

    @classmethod
    def of(cls, height: int, width: int) -> "VideoLayout":
        """Panels as large as the source's frames, within what can be read and what browsers play."""
        factor = max(1.0, _LOWEST_PANEL / height)
        factor = min(factor, (_WIDEST - _GAP) / (2 * width), _TALLEST / (1.05 * height + 24))
        panel = _even(height * factor), _even(width * factor)
        return cls(*panel, caption=_even(max(0.045 * panel[0], 22)))

    def compose(self, image_HW3: Pixels, colours_hw3: Pixels, left: str, right: str) -> Pixels:
        """One frame (height + caption, 2 * width + gap, 3); captions that are too long are cut."""
        page = Image.new("RGB", (2 * self.width + _GAP, self.height + self.caption), _VIDEO_PAPER)
        _place(page, image_HW3, colours_hw3, (0, 0), (self.height, self.width))
        draw, font = ImageDraw.Draw(page), _font(round(self.caption * 0.5))
        middle = self.height + self.caption / 2
        for x, text in ((0, left), (self.width + _GAP, right)):
            inset = self.caption / 3
            draw.text((x + inset, middle), _cut(text, font, self.width - 2 * inset), _VIDEO_INK, font, anchor="lm")
        return np.asarray(page)


def strip_row(image_HW3: Pixels, colours_hw3: Pixels, label: str) -> Row:
    """A frame made small enough to keep."""
    height, width, _ = image_HW3.shape
    factor = _STRIP_PANEL / max(height, width)
    size = _even(width * factor), _even(height * factor)
    return Row(np.asarray(Image.fromarray(image_HW3).resize(size, Image.Resampling.LANCZOS)), colours_hw3, label)


def strip(rows: Sequence[Row], left: str, right: str) -> Image.Image:
    """Frames from top to bottom, original left, components right (Fig. 5); `left` and `right` head the columns."""
    height, width, _ = rows[0].image.shape
    font = _font(_STRIP_FONT)
    margin = round(max(font.getlength(row.label) for row in rows)) + 4 * _GAP
    head = 2 * _STRIP_FONT
    page = Image.new("RGB", (margin + 2 * (width + _GAP), head + len(rows) * (height + _GAP)), _STRIP_PAPER)
    draw = ImageDraw.Draw(page)
    for x, text in ((margin, left), (margin + width + _GAP, right)):
        draw.text((x, head / 2), _cut(text, font, width), _STRIP_INK, font, anchor="lm")
    for number, row in enumerate(rows):
        y = head + number * (height + _GAP)
        draw.text((margin - 2 * _GAP, y + height / 2), row.label, _STRIP_INK, font, anchor="rm")
        _place(page, row.image, row.colours, (margin, y), (height, width))
    return page


def _place(page: Image.Image, image: Pixels, colours: Pixels, corner: tuple[int, int], panel: tuple[int, int]) -> None:
    (x, y), (height, width) = corner, panel
    original = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    components = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    page.paste(original, (x, y))
    page.paste(components, (x + width + _GAP, y))


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + _ELLIPSIS) > width:
        text = text[:-1]
    return text + _ELLIPSIS


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _even(length: float) -> int:
    return max(2 * round(length / 2), 2)
