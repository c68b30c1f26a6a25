"""Opening a picture that came from outside, and turning it upright: the only module that calls Pillow's open.

Imports no torch.
"""

import stat
import struct
import zlib
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps

from rice.errors import RiceError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of the files that are taken for pictures."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
"""Of Pillow. It knows others, one of which (EPS) runs a program to draw what a file says."""

MOST_PIXELS = 178_956_970
"""Pillow's own limit against decompression bombs. It is a setting of the whole process, which other libraries raise."""

DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow's decoders raise on damaged files."""


def open_header(file: Path | IO[bytes]) -> Image.Image:
    """A picture of one of FORMATS, not decoded yet. Errors: those of DECODER_ERRORS, also for more than MOST_PIXELS.

    A path must be a file: a pipe would be waited for.
    """
    if isinstance(file, Path) and not stat.S_ISREG(file.stat().st_mode):
        raise OSError("it is no file")
    picture = Image.open(file, formats=FORMATS)
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise Image.DecompressionBombError(
            f"it has {picture.width}x{picture.height} pixels, of {MOST_PIXELS:,} at most"
        )
    return picture


def open_picture(path: Path) -> Image.Image:
    """The picture, decoded, in its own mode and orientation.

    Errors: RiceError naming the file: missing, no picture, damaged, or with more pixels than any photo.
    """
    try:
        with open_header(path) as picture:
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
