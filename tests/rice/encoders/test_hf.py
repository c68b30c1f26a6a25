"""Every transformers family: the same picture through its own processor and model, and through ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from rice.encoders import hf
from rice.encoders.base import Encoder

TOLERANCE = 1e-5
Randomise = Callable[[nn.Module], nn.Module]

SMALL = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
NO_MLP_WIDTH = {k: v for k, v in SMALL.items() if k != "intermediate_size"}

# Published geometry and processors, written out from the repositories' own files; only width and depth are small.
CLIP_336 = transformers.CLIPImageProcessor(
    size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, resample=3
)
SIGLIP_384 = transformers.SiglipImageProcessor(size={"height": 384, "width": 384}, resample=3)
SIGLIP2_512 = transformers.SiglipImageProcessor(size={"height": 512, "width": 512}, resample=2)
DINOV2 = transformers.BitImageProcessor(
    size={"shortest_edge": 256},
    crop_size={"height": 224, "width": 224},
    resample=3,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
)
DINOV3 = transformers.DINOv3ViTImageProcessor(size={"height": 224, "width": 224}, resample=2)
VIT = transformers.ViTImageProcessor(size={"height": 224, "width": 224}, resample=2)

# name: (model class, configuration, processor, class and register tokens)
CASES: dict[str, tuple[Any, Any, Any, int]] = {
    "clip": (
        transformers.CLIPVisionModel,
        transformers.CLIPVisionConfig(**SMALL, image_size=336, patch_size=14, hidden_act="quick_gelu"),
        CLIP_336,
        1,
    ),
    "mlcd": (transformers.MLCDVisionModel, transformers.MLCDVisionConfig(**SMALL, image_size=336), CLIP_336, 1),
    "siglip": (
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig(**SMALL, image_size=384, patch_size=14),
        SIGLIP_384,
        0,
    ),
    "siglip2": (
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig(**SMALL, image_size=512, patch_size=16),
        SIGLIP2_512,
        0,
    ),
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**NO_MLP_WIDTH, image_size=224), DINOV2, 1),
    "dinov2-giant": (
        transformers.Dinov2Model,
        transformers.Dinov2Config(**NO_MLP_WIDTH, image_size=224, use_swiglu_ffn=True),
        DINOV2,
        1,
    ),
    "dinov2-registers": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(**NO_MLP_WIDTH, image_size=224, patch_size=14),
        DINOV2,
        5,
    ),
    "dinov3": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**SMALL, image_size=224, num_register_tokens=4),
        DINOV3,
        5,
    ),
    "aimv2": (
        transformers.Aimv2VisionModel,
        transformers.Aimv2VisionConfig(**SMALL, image_size=336, patch_size=14, use_head=False),
        CLIP_336,
        0,
    ),
    "vit": (transformers.ViTModel, transformers.ViTConfig(**SMALL, image_size=224), VIT, 1),
}


def save(name: str, folder: Path, randomise: Randomise) -> nn.Module:
    """The source's own model with random values, in a folder as its library writes it."""
    cls, config, processor, _ = CASES[name]
    model = randomise(cls(config))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def encoder_at(folder: Path, weights: str | None = "default") -> Encoder:
    return Encoder(*hf.load(str(folder), weights), weights="default")


def tokens(model: nn.Module, pixels: Tensor, **options: Any) -> Any:
    with torch.no_grad():
        return model(pixel_values=pixels, **options)


def as_map(tokens_BTD: Tensor, prefix: int) -> Tensor:
    grid = int((tokens_BTD.shape[1] - prefix) ** 0.5)
    return tokens_BTD[:, prefix:].reshape(-1, grid, grid, tokens_BTD.shape[-1]).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", CASES)
def test_picture_gives_what_the_source_gives(
    name: str, tmp_path: Path, picture: Image.Image, randomise: Randomise
) -> None:
    model = save(name, tmp_path, randomise)
    encoder = encoder_at(tmp_path)
    source = tokens(model, CASES[name][2](picture, return_tensors="pt").pixel_values)
    ours = encoder(encoder.preprocess(picture)[None])
    expected = as_map(source.last_hidden_state, CASES[name][3])
    assert ours.patches.shape == expected.shape
    assert (ours.patches - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max())
    if ours.cls is not None:
        cls = source.last_hidden_state[:, 0] if name == "vit" else source.pooler_output
        assert (ours.cls - cls).abs().max() <= TOLERANCE * max(1, cls.abs().max())
    assert (ours.cls is None) == (CASES[name][3] == 0)
