"""A picture, and values that leave no parameter at its initial zero or one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn


@pytest.fixture
def picture() -> Image.Image:
    """333 x 500 pixels, neither flat nor pure noise: an odd remainder on both edges of every crop."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((500, 333), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = generator.integers(-20, 21, smooth.shape, dtype=np.int16)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Fill every parameter, norms and positions included, so that nothing cancels by being zero or one."""

    def fill(module: nn.Module, seed: int = 1) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                scale_of_norm = parameter.ndim == 1 and name.endswith("weight")
                parameter.copy_(1 + 0.2 * noise if scale_of_norm else 0.1 * noise)
        return module.eval()

    return fill
