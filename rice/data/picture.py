"""Opening a picture that came from outside. Imports no torch."""

import struct
import zlib
from pathlib import Path

from PIL import Image

from rice.errors import RiceError

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
