"""The angular margin over all of [-1, 1]."""

import math

import pytest
import torch

from rice.loss.equations import arcface

MARGINS = (0.0, 0.1, 0.3, 1.0, 2.5)


@pytest.mark.parametrize("margin", MARGINS)
def test_is_the_cosine_of_the_larger_angle_with_its_true_slope(margin: float) -> None:
    theta = torch.linspace(3e-5, math.pi - margin - 1e-6, 10_001, dtype=torch.float64)
    value, slope = arcface(theta.cos(), margin)
    torch.testing.assert_close(value, (theta + margin).cos(), rtol=0, atol=1e-11)
    torch.testing.assert_close(slope, (theta + margin).sin() / theta.sin(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_never_falls_and_never_jumps(margin: float, dtype: torch.dtype) -> None:
    cosine = torch.linspace(-1, 1, 20_001, dtype=dtype)
    value, slope = arcface(cosine, margin)
    rises = value.diff()
    assert (rises >= -4 * torch.finfo(dtype).eps).all()
    assert (slope >= 0).all()
    assert slope.isfinite().all()
    assert rises[:-10].max() < 0.01  # towards cos = 1 the slope grows without bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_beyond_one_changes_nothing(dtype: torch.dtype) -> None:
    beyond = torch.tensor([1.0, -1.0], dtype=dtype) * (1 + 3 * torch.finfo(dtype).eps)
    for found, expected in zip(arcface(beyond, 0.3), arcface(beyond.sign(), 0.3), strict=True):
        assert torch.equal(found, expected)
