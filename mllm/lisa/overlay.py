"""A picture with masks laid over it and, below it, what was asked for. Imports no torch.

Shapes: M masks, H, W the picture.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from rice.data.drawing import Colour, distinct_colour, font_for, line_width

NOTHING = "nothing found"
_LEGIBLE = 384
_STRENGTH = 0.45
_PAPER, _INK = (255, 255, 255), (0, 0, 0)


def draw_overlay(picture: Image.Image, masks_MHW: NDArray[np.bool_], texts: Sequence[str]) -> Image.Image:
    """A new RGB picture: each mask translucent and outlined in a colour of its own, the texts listed in these colours.

    A mask without a pixel is said to be so beside its text. A later mask lies over an earlier one. Pictures below 384
    pixels are enlarged by a whole factor, without smoothing.
    """
    enlarged = max(1, round(_LEGIBLE / max(picture.size)))
    pixels_HW3 = np.array(picture.convert("RGB")).repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    line = line_width(Image.fromarray(pixels_HW3))
    for index, mask_HW in enumerate(masks_MHW):
        _lay(pixels_HW3, mask_HW.repeat(enlarged, axis=0).repeat(enlarged, axis=1), distinct_colour(index), line)
    notes = [text if mask_HW.any() else f"{text} ({NOTHING})" for text, mask_HW in zip(texts, masks_MHW, strict=True)]
    return _captioned(Image.fromarray(pixels_HW3), notes)


def _lay(pixels_HW3: NDArray[np.uint8], mask_HW: NDArray[np.bool_], colour: Colour, line: int) -> None:
    """In place. The outline lies within the mask, so that a mask of few pixels is seen too."""
    mixed_K3 = (1 - _STRENGTH) * pixels_HW3[mask_HW] + _STRENGTH * np.array(colour)
    pixels_HW3[mask_HW] = mixed_K3.round().astype(np.uint8)
    pixels_HW3[mask_HW & ~binary_erosion(mask_HW, iterations=line)] = colour


def _captioned(picture: Image.Image, notes: Sequence[str]) -> Image.Image:
    """The picture above lines of text, each note beginning with its colour's square."""
    font = font_for(picture)
    length = partial(ImageDraw.Draw(picture).textlength, font=font)
    _, top, _, bottom = font.getbbox("Mg")
    step, square = round(1.5 * (bottom - top)), round(bottom - top)
    lines = [
        (None if continued else index, words)
        for index, note in enumerate(notes)
        for continued, words in enumerate(_lines(note, picture.width - 2 * square - 8, length))
    ]
    sheet = Image.new("RGB", (picture.width, picture.height + step * len(lines) + (8 if lines else 0)), _PAPER)
    sheet.paste(picture)
    pen = ImageDraw.Draw(sheet)
    for row, (index, words) in enumerate(lines):
        y = picture.height + 4 + row * step
        if index is not None:
            pen.rectangle((4, y + 2, 4 + square, y + 2 + square), fill=distinct_colour(index))
        pen.text((8 + round(1.5 * square), y), words, font=font, fill=_INK)
    return sheet


def _lines(note: str, width: int, length: Callable[[str], float]) -> Iterator[str]:
    """Broken between words where a line would be longer than `width` pixels."""
    line = ""
    for word in note.split():
        longer = f"{line} {word}".strip()
        if line and length(longer) > width:
            yield line
            longer = word
        line = longer
    yield line
