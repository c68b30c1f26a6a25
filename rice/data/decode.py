"""From a picture's bytes to the pixels of a crop, by the shortest way.

A JPEG is cut to the crop before it is decoded, where its restart markers allow it, and decoded at 1/2, 1/4 or 1/8 by
libjpeg-turbo's scaled inverse transform where the crop still has the pixels that are asked for. Only the crop is
resized, in uint8. Anything else (PNG, CMYK, 16 bits, EXIF rotation, damage) takes Pillow's way.

Shapes: H, W a picture as decoded, h, w the crop in it, S the edge asked for.
"""

import io

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from rice.data.jpeg_window import cut
from rice.data.picture import DECODER_ERRORS, MOST_PIXELS, open_header, turned
from rice.data.regions import Crop

Pixels = NDArray[np.uint8]

_REDUCTIONS = (8, 4, 2)
"""What libjpeg-turbo has vector code for; 3/8, 5/8, ... take longer than a full decode."""
_COLOURS = ("YCbCr", "RGB", "Gray")
"""The others, of four channels, are Pillow's."""


class DamagedPictureError(Exception):
    """The bytes are no picture of the size that the annotations are made for. The message is the reason, one line."""


def decode_crop(data: bytes, frame: tuple[int, int], crop: Crop, size: int, *, flip: bool = False) -> Tensor:
    """The crop, resized bilinearly with antialiasing to size x size and mirrored where asked: RGB, uint8 (3, S, S),
    channels last in memory.

    frame: (width, height) of the upright picture, in whose pixels `crop` is given. EXIF rotation is applied only where
    the sizes call for it, as `CocoSplit.load_image` does.
    Errors: DamagedPictureError.
    """
    reduction = reduction_for(crop, size)
    decoded = _decode_jpeg(data, frame, crop, reduction)
    if decoded is None:
        decoded, reduction = (np.array(_open(data, frame)), crop), 1
    pixels, place = decoded
    return resize_crop(pixels, Crop(*(edge // reduction for edge in place)), size, flip)


def decode_picture(data: bytes, frame: tuple[int, int]) -> Pixels:
    """The whole upright picture, RGB (height, width, 3). Errors: DamagedPictureError."""
    decoded = _decode_jpeg(data, frame, Crop(0, 0, *frame), reduction=1)
    return np.array(_open(data, frame)) if decoded is None else decoded[0]


def reduction_for(crop: Crop, size: int) -> int:
    """By what factor the whole picture may shrink while decoding: the crop keeps size x size pixels, and its edges."""
    for reduction in _REDUCTIONS:
        if min(crop.width, crop.height) >= reduction * size and not any(edge % reduction for edge in crop):
            return reduction
    return 1


def _decode_jpeg(data: bytes, frame: tuple[int, int], crop: Crop, reduction: int) -> tuple[Pixels, Crop] | None:
    """(reduced pixels of a window or the whole picture, the crop's place in it before reduction).

    None for what libjpeg-turbo cannot read faultlessly as RGB.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != frame or colours not in _COLOURS or width * height > MOST_PIXELS:
            return None
        window = cut(data, crop)
        if window is not None:
            data, crop = window
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        reduced = -(-height // reduction), -(-width // reduction)
        pixels: Pixels = simplejpeg.decode_jpeg(data, fastupsample=True, min_height=reduced[0], min_width=reduced[1])
    except ValueError:
        return None
    return (pixels, crop) if pixels.shape[:2] == reduced else None


def _open(data: bytes, frame: tuple[int, int]) -> Image.Image:
    try:
        with open_header(io.BytesIO(data)) as picture:
            upright = turned(picture, frame)
            if upright.size != frame:
                raise DamagedPictureError(
                    f"expected {frame[0]}x{frame[1]} pixels, got {upright.width}x{upright.height}"
                )
            return to_rgb(upright)
    except DECODER_ERRORS as error:
        raise DamagedPictureError(_one_line(error)) from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """RGB of 8 bits a channel. Of 16 bits the upper 8 count; Pillow's own conversion would clip at 255."""
    if picture.mode.startswith("I"):
        wide = np.asarray(picture)
        return Image.fromarray((wide >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")


def resize_crop(pixels_HW3: Pixels, place: Crop, size: int, flip: bool = False) -> Tensor:
    """A crop of a decoded picture, resized as `decode_crop` does: uint8 (3, S, S), channels last in memory."""
    # The strides of the whole picture tell torch that channels come last, and its result is laid out alike.
    left, top, width, height = place
    image_13HW = torch.from_numpy(pixels_HW3)[None].permute(0, 3, 1, 2)
    crop_13hw = image_13HW[:, :, top : top + height, left : left + width]
    crop_13SS = interpolate(crop_13hw, (size, size), mode="bilinear", antialias=True)
    return (crop_13SS.flip(3) if flip else crop_13SS)[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
