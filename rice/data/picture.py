"""Opening a picture that came from outside, and turning it upright. Imports no torch."""

import struct
import zlib
from pathlib import Path

from PIL import Image, ImageOps

from rice.errors import RiceError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of the files that are taken for pictures."""

DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow's decoders raise on damaged files."""


def open_picture(path: Path) -> Image.Image:
    """The picture, decoded, in its own mode and orientation.

    Errors: RiceError naming the file: missing, no picture, damaged, or with more pixels than any photo.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except DECODER_ERRORS as error:
        raise RiceError(f"cannot read the image {path}: {error}; replace or remove it") from error


def open_upright(path: Path) -> Image.Image:
    """The picture as RGB, turned as EXIF says. Errors: as `open_picture`."""
    return ImageOps.exif_transpose(open_picture(path)).convert("RGB")


def turned(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture, turned as EXIF says only where `size`, the annotated (width, height), is that of the other way up.

    Data sets are annotated either way; nothing but the sizes tells which.
    """
    swapped = picture.size != size and picture.size == size[::-1]
    return ImageOps.exif_transpose(picture) if swapped else picture
