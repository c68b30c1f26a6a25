"""The pyramid is what the plain definition says: resize without parameters, then 1 x 1, norm, 3 x 3, norm."""

import pytest
import torch
from torch import Tensor, nn

from probes.detection.pyramid import SCALES, ChannelNorm, Projection, Pyramid, levels, normalise_tokens

WIDTH, CHANNELS = 12, 6


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights under which norms have an effect of their own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def tokens(height: int, width: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, WIDTH, height, width, generator=torch.Generator().manual_seed(height * width))


def norm_by_hand(x: Tensor, norm: ChannelNorm) -> Tensor:
    """Over the channels of each position, float64."""
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    weight, bias = norm.weight.double()[:, None, None], norm.bias.double()[:, None, None]
    return (x - mean) / (variance + 1e-6).sqrt() * weight + bias


def level_by_hand(x: Tensor, projection: Projection, scale: float) -> Tensor:
    """In the order of the definition, float64: resize first."""
    x = x.double()
    if scale > 1:
        times = int(scale)
        x = x.repeat_interleave(times, 2).repeat_interleave(times, 3)
    if scale < 1:
        step = int(1 / scale)
        rows = [x[:, :, i : i + step].amax(2, keepdim=True) for i in range(0, x.shape[2], step)]
        x = torch.cat(rows, 2)
        x = torch.cat([x[:, :, :, j : j + step].amax(3, keepdim=True) for j in range(0, x.shape[3], step)], 3)
    x = torch.einsum("oc,bchw->bohw", projection.lateral.weight.double()[:, :, 0, 0], x)
    x = norm_by_hand(x, projection.lateral_norm)
    x = nn.functional.conv2d(x, projection.output.weight.double(), padding=1)
    return norm_by_hand(x, projection.output_norm)


@pytest.mark.parametrize("grid", [(8, 8), (9, 9), (7, 10), (1, 1)])
@torch.no_grad()
def test_every_level_is_the_plain_definition(grid: tuple[int, int]) -> None:
    pyramid = randomised(Pyramid(WIDTH, CHANNELS))
    x = tokens(*grid)
    found = pyramid(x)
    assert len(found) == len(SCALES) == 5
    for level, projection, scale in zip(found, pyramid.projections, (4, 2, 1, 0.5, 0.25), strict=True):
        expected = level_by_hand(x, projection, scale)
        assert level.dtype == torch.float32
        torch.testing.assert_close(level.double(), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("edge", "expected"), [(37, [148, 74, 37, 19, 10]), (32, [128, 64, 32, 16, 8])])
@torch.no_grad()
def test_a_pooled_edge_that_does_not_divide_keeps_its_last_cell(edge: int, expected: list[int]) -> None:
    found = Pyramid(WIDTH, CHANNELS)(tokens(edge, edge, batch=1))
    assert [tuple(level.shape[-2:]) for level in found] == [(n, n) for n in expected]


@pytest.mark.parametrize("patch", [14, 16])
@torch.no_grad()
def test_cell_k_of_every_level_begins_at_pixel_k_times_the_stride(patch: int) -> None:
    """A change of one token reaches, through the 3 x 3 convolution, one cell around those that cover its pixels."""
    edge = 13
    pyramid = randomised(Pyramid(WIDTH, CHANNELS))
    base = tokens(edge, edge, batch=1)
    for row, column in ((0, 0), (5, 12), (12, 7), (8, 9)):
        changed = base.clone()
        changed[:, :, row, column] += 50 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
        for level, before, after in zip(levels(patch), pyramid(base), pyramid(changed), strict=True):
            moved = (before - after).abs().amax((0, 1)) > 1e-3
            cells = before.shape[-1]
            for axis, token in ((1, row), (0, column)):
                start, stop = token * patch, (token + 1) * patch
                covering = [k for k in range(cells) if k * level.stride < stop and (k + 1) * level.stride > start]
                around = set(range(max(covering[0] - 1, 0), min(covering[-1] + 1, cells - 1) + 1))
                assert set(torch.where(moved.any(axis))[0].tolist()) == around


@pytest.mark.parametrize(
    ("patch", "strides"), [(14, [3.5, 7, 14, 28, 56]), (16, [4, 8, 16, 32, 64]), (8, [2, 4, 8, 16, 32])]
)
def test_strides_are_the_patch_over_the_scale_exactly(patch: int, strides: list[float]) -> None:
    assert [level.stride for level in levels(patch)] == strides
    assert [level.scale for level in levels(patch)] == [4, 2, 1, 0.5, 0.25]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_channel_norm_is_torchs_layer_norm_over_the_channels(memory: torch.memory_format) -> None:
    ours, reference = randomised(ChannelNorm(WIDTH)), nn.LayerNorm(WIDTH, eps=1e-6)
    reference.load_state_dict(ours.state_dict())
    x = tokens(5, 7).contiguous(memory_format=memory)
    expected = torch.stack([torch.stack([reference(x[b, :, i].T).T for i in range(5)], 1) for b in range(len(x))])
    torch.testing.assert_close(ours(x), expected)


def test_normalised_tokens_have_mean_zero_and_variance_one_at_every_position() -> None:
    x = tokens(5, 7) * torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(0)).mul(100).add(1) + 30
    found = normalise_tokens(x.double()).double()
    expected = (x.double() - x.double().mean(1, keepdim=True)) / x.double().std(1, keepdim=True, correction=0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_normalising_twice_is_normalising_once() -> None:
    once = normalise_tokens(tokens(5, 7) * 9 + 4)
    torch.testing.assert_close(normalise_tokens(once), once, rtol=0, atol=1e-4)


def test_normalised_tokens_do_not_depend_on_scale_and_offset_of_the_encoder() -> None:
    """No affine part: a tower whose last norm has a gain, and one that has none, give the heads the same."""
    x = tokens(5, 7)
    torch.testing.assert_close(normalise_tokens(x * 7 + 3), normalise_tokens(x), rtol=0, atol=1e-4)


def test_tokens_of_half_precision_are_normalised_in_fp32() -> None:
    x = tokens(3, 3).to(torch.bfloat16)
    found = normalise_tokens(x)
    assert found.dtype == torch.float32
    expected = nn.functional.layer_norm(x.double().permute(0, 2, 3, 1), (WIDTH,)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
