"""Pictures are cut as each source's own processor cuts them."""

from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image

from rice.encoders.preprocess import preprocess
from rice.encoders.spec import Preprocessing

SIZES = [(333, 500), (500, 333), (301, 301), (97, 130), (224, 1000)]
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def transformers_cut(processor: Any) -> Any:
    return lambda image: processor(image, return_tensors="pt").pixel_values[0]


# name: (the source's own, ours, size, largest difference: transformers multiplies by 1/255 where ours divides)
CASES: dict[str, tuple[Any, Preprocessing, int, float]] = {
    "CLIP": (
        transformers_cut(
            transformers.CLIPImageProcessor(
                size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, do_normalize=False
            )
        ),
        Preprocessing(),
        336,
        1e-7,
    ),
    "DINOv2": (
        transformers_cut(
            transformers.BitImageProcessor(
                size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, do_normalize=False
            )
        ),
        Preprocessing(crop_fraction=224 / 256),
        224,
        1e-7,
    ),
    "SigLIP2": (
        transformers_cut(
            transformers.SiglipImageProcessor(size={"height": 384, "width": 384}, resample=2, do_normalize=False)
        ),
        Preprocessing(resize="squash", interpolation="bilinear"),
        384,
        1e-7,
    ),
    "DINOv3": (
        transformers_cut(transformers.DINOv3ViTImageProcessor(do_normalize=False)),
        Preprocessing(resize="squash", interpolation="bilinear", backend="torchvision-float"),
        224,
        0,
    ),
    "DFN5B": (
        open_clip.image_transform(378, is_train=False, mean=ZERO, std=ONE, resize_mode="squash"),
        Preprocessing(resize="squash", backend="pil"),
        378,
        0,
    ),
    "open_clip": (
        open_clip.image_transform(336, is_train=False, mean=ZERO, std=ONE, resize_mode="shortest"),
        Preprocessing(backend="pil"),
        336,
        0,
    ),
    "timm": (
        timm.data.create_transform((3, 224, 224), crop_pct=0.9, interpolation="bicubic", mean=ZERO, std=ONE),
        Preprocessing(backend="pil", crop_fraction=0.9),
        224,
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_the_source(name: str, size: tuple[int, int]) -> None:
    source, preprocessing, edge, tolerance = CASES[name]
    image = picture(*size)
    ours = preprocess(image, preprocessing, edge)
    assert ours.shape == (3, edge, edge)
    assert ours.dtype == torch.float32
    assert (ours - source(image)).abs().max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_other_colour_modes_are_converted_first(mode: str) -> None:
    image = picture(97, 130, mode)
    source, preprocessing, edge, tolerance = CASES["CLIP"]
    ours = preprocess(image, preprocessing, edge)
    assert (ours - source(image.convert("RGB"))).abs().max() <= tolerance


@pytest.mark.parametrize("name", CASES)
def test_values_stay_in_range(name: str) -> None:
    _, preprocessing, edge, _ = CASES[name]
    ours = preprocess(picture(97, 130), preprocessing, edge)
    assert ours.min() >= 0
    assert ours.max() <= 1 + 1e-6
