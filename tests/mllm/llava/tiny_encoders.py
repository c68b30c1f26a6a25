"""Random encoders of each kind of tower, 32 pixels, a few thousand parameters, alike every time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import rice
from rice.encoders.base import Encoder
from rice.encoders.loaded import Loaded
from rice.encoders.rice import load_config
from rice.encoders.spec import vit_spec
from rice.encoders.weights import Source
from rice.model.config import ViTConfig

EDGE = 32
KINDS = ("clip", "siglip", "dinov2", "rice", "own", "dinov2_with_registers")


def _hf(folder: Path, kind: str, **fields: Any) -> Encoder:
    """A tower of transformers through its folder, as a user's."""
    torch.manual_seed(0)
    names = {
        "clip": ("CLIPVisionConfig", "CLIPVisionModel"),
        "siglip": ("SiglipVisionConfig", "SiglipVisionModel"),
        "dinov2": ("Dinov2Config", "Dinov2Model"),
        "dinov2_with_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel"),
    }
    config, model = (getattr(transformers, name) for name in names[kind])
    sizes = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": EDGE, "patch_size": 8}
    built = model(config(**sizes, **fields))
    for parameter in built.parameters():  # scales and shifts that are not one and nought
        parameter.data += torch.randn_like(parameter) * 0.05
    built.save_pretrained(folder)
    return rice.load_encoder(f"hf:{folder}")


def tiny_encoder(kind: str, folder: Path) -> Encoder:
    """Of one of KINDS. `folder`: where a folder of transformers may be written."""
    makers: dict[str, Callable[[], Encoder]] = {
        "clip": lambda: _hf(folder / kind, kind, intermediate_size=48),
        "siglip": lambda: _hf(folder / kind, kind, intermediate_size=48, vision_use_head=False),
        "dinov2": lambda: _hf(folder / kind, kind, mlp_ratio=2),
        "dinov2_with_registers": lambda: _hf(folder / kind, kind, mlp_ratio=2, num_register_tokens=4),
        "rice": _vit,
        "own": lambda: rice.load_encoder("tiny_encoders:convolution"),
    }
    return makers[kind]()


def _vit() -> Encoder:
    config = ViTConfig(image_size=EDGE, patch=8, width=32, depth=4, heads=2, mlp_width=48)
    loaded: Loaded = load_config(config, vit_spec(config, name="rice:tiny", source="rice:tiny"), Source("random"))
    return Encoder(loaded.module, loaded.spec, loaded.extract, weights="random")


class _Convolution(nn.Module):
    """With a buffer that no checkpoint of torch would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 20, 8, stride=8)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 20)[:, None, None], persistent=False)

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        mapped: torch.Tensor = self.patches(pixels_B3HW) * self.scale
        return mapped


@rice.register_encoder(
    "tiny-convolution", patch=8, width=20, native_size=EDGE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)
)
def convolution(weights: str | None) -> nn.Module:
    """An encoder of a user's own."""
    return _Convolution()
