"""Boxes and their names drawn onto pictures, and colours to tell them apart. Imports no torch.

Boxes are xyxy, in the picture's pixels. Lines and letters grow with the picture.
"""

import colorsys
import functools
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]


def distinct_colour(index: int) -> Colour:
    """Bright colours, neighbours far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, 1)
    return (round(red * 255), round(green * 255), round(blue * 255))


def draw_box(picture: Image.Image, box: Sequence[float], colour: Colour, text: str = "") -> None:
    """Outline a box in place; `text` stands above its corner, or inside where the picture ends."""
    left, top, right, bottom = box
    pen, line = ImageDraw.Draw(picture), line_width(picture)
    pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=line)
    if not text:
        return
    font = font_for(picture)
    _, _, width, height = pen.textbbox((0, 0), text, font=font)
    x = max(0, min(left, picture.width - width - 3))
    y = top - height - 3 if top > height + 3 else min(max(top, 0) + line, picture.height - height - 3)
    pen.rectangle((x, y, x + width + 3, y + height + 3), fill=colour)
    pen.text((x + 1, y), text, font=font, fill=(0, 0, 0))


def line_width(picture: Image.Image) -> int:
    """In pixels."""
    return max(1, round(min(picture.size) / 250))


def font_for(picture: Image.Image) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Legible where the picture is seen as a whole."""
    return _font(max(10, round(min(picture.size) / 36)))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
