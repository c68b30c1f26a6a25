"""A contact sheet of scenes with their outlines, boxes, names and words, to be looked at."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from rice.data.drawing import distinct_colour, draw_box
from rice.data.world.actors import CATEGORIES
from rice.data.world.scene import Scene, outline

_COLUMNS = 4
_TILE = 384
_WORD_COLOUR = (255, 255, 255)


def contact_sheet(scenes: Sequence[Scene], names: Sequence[str] = CATEGORIES) -> Image.Image:
    """Scenes in rows of four, each enlarged by a whole factor to about 384 pixels. names: of the categories."""
    tiles = [_tile(scene, names) for scene in scenes]
    width, height = tiles[0].size
    sheet = Image.new("RGB", (_COLUMNS * width, -(-len(tiles) // _COLUMNS) * height))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % _COLUMNS * width, index // _COLUMNS * height))
    return sheet


def _tile(scene: Scene, names: Sequence[str]) -> Image.Image:
    height, width, _ = scene.image.shape
    scale = max(round(_TILE / max(height, width)), 1)
    pixels = scene.image.repeat(scale, axis=0).repeat(scale, axis=1)
    for thing in scene.objects:
        pixels[outline(thing.mask.repeat(scale, axis=0).repeat(scale, axis=1))] = distinct_colour(thing.identity + 1)
    tile = Image.fromarray(pixels)
    for thing in scene.objects:
        box = [edge * scale for edge in thing.box]
        draw_box(tile, box, distinct_colour(thing.identity + 1), names[thing.category])
    for word in scene.words:
        ImageDraw.Draw(tile).polygon([(x * scale, y * scale) for x, y in word.quad], outline=_WORD_COLOUR)
        draw_box(tile, [edge * scale for edge in word.box], _WORD_COLOUR, word.text)
    return tile
