"""Pictures with boxes, masks and scores drawn on them.

Shapes: H W the picture. Boxes are xywh in its pixels, as in COCO's results.
"""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_TINT = 0.45


def draw_results(
    picture: Image.Image, results: Sequence[Mapping[str, Any]], names: Mapping[int, str], *, threshold: float
) -> Image.Image:
    """The picture with every result of at least `threshold`, the surest on top. `names`: of the category ids."""
    shown = sorted((r for r in results if r.get("score", 1.0) >= threshold), key=lambda r: float(r.get("score", 1.0)))
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32).copy()
    order = {id_: index for index, id_ in enumerate(sorted(names))}
    for result in shown:
        if "segmentation" in result:
            mask_HW = decode(result["segmentation"], picture.height, picture.width)
            colour = np.array(category_colour(order[result["category_id"]]), dtype=np.float32)
            pixels[mask_HW] += (colour - pixels[mask_HW]) * _TINT
    drawn = Image.fromarray(pixels.round().astype(np.uint8))
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(min(picture.size) / 250))
    font = ImageFont.load_default(max(10, round(min(picture.size) / 36)))
    for result in shown:
        score = f" {result['score']:.2f}" if "score" in result else ""
        text = f"{names[result['category_id']]}{score}"
        _box(pen, result["bbox"], text, category_colour(order[result["category_id"]]), line, font, picture.size)
    return drawn


def decode(segmentation: Any, height: int, width: int) -> Any:
    """Bool (H, W)."""
    from rice.data.segmentation import decode_segmentation

    return decode_segmentation(segmentation, height, width)


def category_colour(index: int) -> Colour:
    """Bright, neighbours far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.8, 1)
    return round(red * 255), round(green * 255), round(blue * 255)


def _box(
    pen: ImageDraw.ImageDraw,
    box: Sequence[float],
    text: str,
    colour: Colour,
    line: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    left, top, width, height = box
    pen.rectangle((left, top, max(left + width - 1, left), max(top + height - 1, top)), outline=colour, width=line)
    _, _, text_width, text_height = pen.textbbox((0, 0), text, font=font)
    x = max(0, min(left, size[0] - text_width - 3))
    y = top - text_height - 3 if top > text_height + 3 else min(top + line, size[1] - text_height - 3)
    pen.rectangle((x, y, x + text_width + 3, y + text_height + 3), fill=colour)
    pen.text((x + 1, y), text, font=font, fill=(0, 0, 0))
