"""Small towers of transformers with every parameter random, so that no two of them can be confused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import MLCDVisionConfig, MLCDVisionModel

Reference = Callable[..., Any]


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Values of the size that trained networks have; norms, biases and the class token's angles too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        is_norm = "norm" in name and name.endswith("weight")
        scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        with torch.no_grad():
            parameter.copy_(noise * scale + (1.0 if is_norm else 0.0))


@pytest.fixture
def reference() -> Reference:
    """`reference(**fields)`: transformers' tower; small where the fields do not say otherwise."""

    def build(**fields: Any) -> Any:
        small = {
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        }
        config = MLCDVisionConfig(**{**small, **fields})
        model = MLCDVisionModel._from_config(config, attn_implementation="sdpa").eval()
        randomise(model)
        return model

    return build
