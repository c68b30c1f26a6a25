"""Frames with the target's box drawn on them."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rice.data.video import Image_HW3
from tracking.tracker import Found
from tracking.windows import Box

Colour = tuple[int, int, int]

FOUND: Colour = (255, 64, 64)
TRUTH: Colour = (64, 255, 64)


def draw_found(frame_HW3: Image_HW3, found: Found, text: str = "", truth: Box | None = None) -> Image_HW3:
    """The frame with the tracker's box (red) and, where it is known, the truth's (green); `text` in the corner."""
    picture = Image.fromarray(frame_HW3)
    pen = ImageDraw.Draw(picture)
    line = max(1, round(min(picture.size) / 200))
    if truth is not None:
        _outline(pen, truth, TRUTH, line)
    _outline(pen, found.box, FOUND, line)
    font = ImageFont.load_default(max(10, round(min(picture.size) / 28)))
    if found.score is not None:
        _label(pen, (found.box[0], found.box[1]), f"{found.score:.2f}", font, picture.size)
    if text:
        pen.text((line + 3, line + 1), text, font=font, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def _outline(pen: ImageDraw.ImageDraw, box: Box, colour: Colour, line: int) -> None:
    x, y, width, height = (float(value) for value in box)
    pen.rectangle((x, y, x + max(width - 1, 0), y + max(height - 1, 0)), outline=colour, width=line)


def _label(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Above its box, or inside where the frame ends."""
    _, _, width, height = pen.textbbox((0, 0), text, font=font)
    x = min(max(at[0], 0), size[0] - width - 3)
    y = at[1] - height - 3 if at[1] > height + 3 else min(max(at[1], 0), size[1] - height - 3)
    pen.rectangle((x, y, x + width + 3, y + height + 3), fill=FOUND)
    pen.text((x + 1, y), text, font=font, fill=(0, 0, 0))
