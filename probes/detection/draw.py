"""Pictures with boxes, masks and scores drawn on them.

Shapes: H W the picture. Boxes are xywh in its pixels, as in COCO's results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from rice.data.drawing import distinct_colour, draw_box
from rice.data.segmentation import decode_segmentation

_TINT = 0.45


def draw_results(
    picture: Image.Image, results: Sequence[Mapping[str, Any]], names: Mapping[int, str], *, threshold: float
) -> Image.Image:
    """The picture with every result of at least `threshold`, the surest on top. `names`: of the category ids."""
    shown = sorted((r for r in results if r.get("score", 1.0) >= threshold), key=lambda r: float(r.get("score", 1.0)))
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32).copy()
    colours = {id_: distinct_colour(index) for index, id_ in enumerate(sorted(names))}
    for result in shown:
        if "segmentation" in result:
            mask_HW = decode_segmentation(result["segmentation"], picture.height, picture.width)
            colour = np.array(colours[result["category_id"]], dtype=np.float32)
            pixels[mask_HW] += (colour - pixels[mask_HW]) * _TINT
    drawn = Image.fromarray(pixels.round().astype(np.uint8))
    for result in shown:
        left, top, width, height = result["bbox"]
        score = f" {result['score']:.2f}" if "score" in result else ""
        text = f"{names[result['category_id']]}{score}"
        draw_box(drawn, (left, top, left + width, top + height), colours[result["category_id"]], text)
    return drawn
