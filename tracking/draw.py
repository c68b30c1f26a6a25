"""Frames with the target's box drawn on them."""

import numpy as np
from PIL import Image, ImageDraw

from rice.data.drawing import Colour, draw_box, font_for, line_width
from rice.data.video import Image_HW3
from tracking.tracker import Found
from tracking.windows import Box

FOUND: Colour = (255, 64, 64)
TRUTH: Colour = (64, 255, 64)


def draw_found(frame_HW3: Image_HW3, found: Found, text: str = "", truth: Box | None = None) -> Image_HW3:
    """The frame with the tracker's box (red) and, where it is known, the truth's (green); `text` in the corner."""
    picture = Image.fromarray(frame_HW3)
    if truth is not None:
        draw_box(picture, _corners(truth), TRUTH)
    draw_box(picture, _corners(found.box), FOUND, "" if found.score is None else f"{found.score:.2f}")
    if text:
        at, font = (line_width(picture) + 3, line_width(picture) + 1), font_for(picture)
        pen = ImageDraw.Draw(picture)
        pen.text(at, text, font=font, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def _corners(box: Box) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in box)
    return x, y, x + width, y + height
