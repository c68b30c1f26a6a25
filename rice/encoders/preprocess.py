"""A PIL picture cut as an encoder's own processor cuts it, before the normalisation, bit for bit."""

import math
from typing import TYPE_CHECKING

from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812

from rice.encoders.spec import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "lanczos": InterpolationMode.LANCZOS,
}


def preprocess(image: "Image", preprocessing: Preprocessing, size: int) -> Tensor:
    """(3, size, size) float RGB in [0, 1].

    Sources differ in who resamples: open_clip and timm let PIL do it and round the crop's corner; transformers 5 lets
    torchvision do it, on bytes (DINOv3: on floats), and floors the corner. Qwen's own smart resize keeps the aspect
    ratio; a probe needs a square, so its pictures are squashed, which is what smart resize does to a square one.
    """
    rgb = image.convert("RGB")
    if preprocessing.backend == "pil":
        pixels = F.pil_to_tensor(
            F.resize(rgb, _edges(rgb.height, rgb.width, preprocessing, size), _mode(preprocessing))
        )
        return _crop(pixels, size, rounded=True).float() / 255
    pixels = F.pil_to_tensor(rgb)
    if preprocessing.backend == "torchvision-float":
        pixels = pixels * (1 / 255)
    edges = _edges(rgb.height, rgb.width, preprocessing, size)
    pixels = _crop(F.resize(pixels, edges, _mode(preprocessing), antialias=True), size, rounded=False)
    return pixels if pixels.is_floating_point() else pixels.float() / 255


def _mode(preprocessing: Preprocessing) -> InterpolationMode:
    return _MODES[preprocessing.interpolation]


def _edges(height: int, width: int, preprocessing: Preprocessing, size: int) -> list[int]:
    """Height and width after the resize. The longer edge is truncated, as every source does."""
    target = math.floor(size / preprocessing.crop_fraction + 1e-6)  # 224 / (224 / 256) must be 256
    if preprocessing.resize == "squash":
        return [target, target]
    if height <= width:
        return [target, int(target * width / height)]
    return [int(target * height / width), target]


def _crop(pixels_3HW: Tensor, size: int, *, rounded: bool) -> Tensor:
    """The centre. The corner lies on a half pixel for odd remainders: torchvision rounds it, transformers floors it."""
    height, width = pixels_3HW.shape[-2:]
    top, left = (height - size) / 2, (width - size) / 2
    corner = (round(top), round(left)) if rounded else (int(top), int(left))
    return pixels_3HW[:, corner[0] : corner[0] + size, corner[1] : corner[1] + size]
