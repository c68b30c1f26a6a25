"""A contact sheet of scenes with their outlines, boxes, names and words, to be looked at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rice.data.world.actors import CATEGORIES
from rice.data.world.layouts import distinct_colour
from rice.data.world.scene import Mask_HW, Scene

_TILE = 384
_WORD_COLOUR = (255, 255, 255)


def contact_sheet(scenes: Sequence[Scene], columns: int = 4, annotated: bool = True) -> Image.Image:
    """Scenes in rows of `columns`, each enlarged by a whole factor to about 384 pixels."""
    tiles = [_tile(scene, annotated) for scene in scenes]
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * width, index // columns * height))
    return sheet


def _tile(scene: Scene, annotated: bool) -> Image.Image:
    height, width, _ = scene.image.shape
    scale = max(round(_TILE / max(height, width)), 1)
    tile = Image.fromarray(scene.image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
    if not annotated:
        return tile
    pixels = np.array(tile)
    for thing in scene.objects:
        pixels[_outline(thing.mask.repeat(scale, axis=0).repeat(scale, axis=1))] = distinct_colour(thing.identity + 1)
    tile = Image.fromarray(pixels)
    draw = ImageDraw.Draw(tile)
    for thing in scene.objects:
        _label(draw, thing.box, scale, CATEGORIES[thing.category], distinct_colour(thing.identity + 1))
    for word in scene.words:
        draw.polygon([(x * scale, y * scale) for x, y in word.quad], outline=_WORD_COLOUR)
        _label(draw, word.box, scale, word.text, _WORD_COLOUR)
    return tile


def _outline(mask_HW: Mask_HW) -> Mask_HW:
    """The mask's own pixels with a neighbour outside it."""
    inner_HW = np.zeros_like(mask_HW)
    inner_HW[1:-1, 1:-1] = mask_HW[:-2, 1:-1] & mask_HW[2:, 1:-1] & mask_HW[1:-1, :-2] & mask_HW[1:-1, 2:]
    return mask_HW & ~inner_HW


def _label(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], scale: int, text: str, colour: tuple[int, int, int]
) -> None:
    left, top, right, bottom = (edge * scale for edge in box)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=colour)
    font = ImageFont.load_default(11)
    _, _, text_width, text_height = draw.textbbox((0, 0), text, font=font)
    x = min(left, draw.im.size[0] - text_width - 2)
    y = top - text_height - 2 if top > text_height + 2 else bottom
    draw.rectangle((x, y, x + text_width + 1, y + text_height + 1), fill=(0, 0, 0))
    draw.text((x + 1, y), text, font=font, fill=colour)
