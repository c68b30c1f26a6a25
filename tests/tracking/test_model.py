"""The blocks and the CENTER head are what their definitions say, in float64, and cost what arithmetic says."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rice.errors import RiceError
from tracking.config import HeadsConfig
from tracking.model import (
    Attention,
    Block,
    Maps,
    TrackingHead,
    build_head,
    grids,
    sine_positions,
    tokens,
)
from tracking.tracker import hann_window

CONFIG = HeadsConfig(channels=8, head_dim=4)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """Weights under which biases and norms have an effect of their own."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.double().eval()


def tiny_head(config: HeadsConfig = CONFIG, width: int = 8) -> TrackingHead:
    return build_head(config, width=width, template=(2, 2), search=(4, 4))


@torch.no_grad()
def test_a_block_asked_for_the_last_tokens_gives_a_full_blocks_rows() -> None:
    block = randomised(Block(12, 3))
    x = noise(2, 10, 12)
    whole = block(x)
    for first in (0, 1, 4, 9):
        torch.testing.assert_close(block(x, first), whole[:, first:], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(("width", "heads"), [(12, 3), (8, 1), (10, 5)])
def test_attention_is_torchs_own(width: int, heads: int) -> None:
    ours, reference = (
        randomised(Attention(width, heads)),
        nn.MultiheadAttention(width, heads, batch_first=True).double(),
    )
    reference.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
    reference.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
    reference.out_proj.load_state_dict(ours.proj.state_dict())
    x = noise(2, 7, width)
    for first in (0, 3):
        expected, _ = reference(x[:, first:], x, x)
        torch.testing.assert_close(ours(x, first), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_block_is_a_standard_pre_norm_block() -> None:
    block = randomised(Block(8, 2))
    reference = nn.TransformerEncoderLayer(
        8, 2, 32, dropout=0, activation="gelu", norm_first=True, batch_first=True, layer_norm_eps=1e-6
    ).double()
    layer = reference.self_attn
    layer.in_proj_weight.copy_(torch.cat([block.attn.q.weight, block.attn.kv.weight]))
    layer.in_proj_bias.copy_(torch.cat([block.attn.q.bias, block.attn.kv.bias]))
    layer.out_proj.load_state_dict(block.attn.proj.state_dict())
    reference.norm1.load_state_dict(block.norm1.state_dict())
    reference.norm2.load_state_dict(block.norm2.state_dict())
    first, second = (module for module in block.mlp.modules() if isinstance(module, nn.Linear))
    reference.linear1.load_state_dict(first.state_dict())
    reference.linear2.load_state_dict(second.state_dict())
    x = noise(2, 6, 8)
    torch.testing.assert_close(block(x), reference(x), rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_head_is_full_blocks_over_both_of_which_the_search_goes_on(blocks: int) -> None:
    head = randomised(tiny_head(HeadsConfig(blocks=blocks, channels=8, head_dim=4)))
    z, x = noise(3, 4, 8), noise(3, 16, 8, seed=1)
    both = torch.cat(
        [z + head.segment[0] + sine_positions((2, 2), 8), x + head.segment[1] + sine_positions((4, 4), 8)], 1
    )
    for block in head.blocks:
        both = block(both)
    rows = head.norm(both)[:, 4:]
    features = torch.stack([rows[:, 4 * row + column] for row in range(4) for column in range(4)], 2)
    expected = head.center(features.view(3, 8, 4, 4))
    found = head(z, x)
    assert [tuple(part.shape) for part in found] == [(3, 1, 4, 4), (3, 2, 4, 4), (3, 2, 4, 4)]
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("positions", [False, True])
def test_template_tokens_in_another_order_are_the_same_only_without_positions(positions: bool) -> None:
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    head = randomised(tiny_head(HeadsConfig(channels=8, head_dim=4, positions=positions)))
    seen: list[Tensor] = []
    head.norm.register_forward_hook(lambda _, __, y: seen.append(y))
    template, search = noise(1, 4, 8), noise(1, 16, 8, seed=1)
    head(template, search)
    head(template[:, order], search)
    assert torch.allclose(seen[0], seen[1], atol=1e-12) != positions


@torch.no_grad()
def test_the_center_head_is_three_branches_written_out() -> None:
    head = randomised(tiny_head()).center
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    x = noise(2, 8, 5, 5)
    found = head(x)
    for name, squashed in (("score", True), ("offset", False), ("size", True)):
        layers = list(getattr(head, name))
        y = x
        for conv, norm in zip(layers[0:-1:3], layers[1:-1:3], strict=True):
            y = nn.functional.conv2d(y, conv.weight, conv.bias, padding=1)
            shift, scale = (v[:, None, None] for v in (norm.running_mean, (norm.running_var + 1e-5).sqrt()))
            y = ((y - shift) / scale * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        y = nn.functional.conv2d(y, layers[-1].weight, layers[-1].bias)
        expected = (1 / (1 + (-y).exp())).clamp(1e-4, 1 - 1e-4) if squashed else y
        torch.testing.assert_close(getattr(found, name).double(), expected, rtol=1e-5, atol=1e-5)
        assert [layer.out_channels for layer in layers[0:-1:3]] == [8, 4, 2, 1]


@torch.no_grad()
def test_scores_and_sizes_stay_off_zero_and_one() -> None:
    head = tiny_head().center.eval()
    for sign in (-1, 1):
        for branch in (head.score, head.size):
            branch[-1].bias.fill_(sign * 1e4)
        maps = head(torch.zeros(1, 8, 3, 3))
        edge = 1e-4 if sign < 0 else 1 - 1e-4
        assert maps.score.unique().tolist() == maps.size.unique().tolist() == pytest.approx([edge], abs=1e-7)


def test_the_width_halves_and_what_learns_has_as_many_weights_as_arithmetic_says() -> None:
    """D = 768, 256 channels."""
    with torch.device("meta"):
        head = build_head(HeadsConfig(), width=768, template=(8, 8), search=(16, 16))
    d, widths = 768, [768, 256, 128, 64, 32]
    convolutions = sum(9 * a * b + b + 2 * b for a, b in itertools.pairwise(widths))
    center = 3 * convolutions + (32 * 1 + 1) + 2 * (32 * 2 + 2)
    block = 12 * d * d + (3 * d + d + 4 * d + d) + 4 * d
    assert sum(p.numel() for p in head.center.parameters()) == center
    assert sum(p.numel() for p in head.parameters()) == center + 2 * block + 2 * d + 2 * d
    assert [(name, buffer.shape) for name, buffer in head.named_buffers() if "position" in name] == [
        ("template_position", (64, 768)),
        ("search_position", (256, 768)),
    ]


def test_a_frame_costs_what_arithmetic_says() -> None:
    """Two whole blocks over 64 + 256 tokens take 4.844 GMAC; the last one is only asked for the search: 4.435. The
    CENTER head takes 1.656."""
    with torch.device("meta"):
        head = build_head(HeadsConfig(), width=768, template=(8, 8), search=(16, 16)).eval()
        z, x = torch.empty(1, 64, 768), torch.empty(1, 256, 768)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        head(z, x)
    d, every, search = 768, 320, 256
    first = every * 12 * d**2 + 2 * every**2 * d
    last = every * 2 * d**2 + search * 10 * d**2 + 2 * search * every * d
    center = search * (3 * 9 * (768 * 256 + 256 * 128 + 128 * 64 + 64 * 32) + 32 * (1 + 2 + 2))
    assert counter.get_total_flops() == 2 * (first + last + center)
    assert [round(macs / 1e9, 3) for macs in (2 * first, first + last, center)] == [4.844, 4.435, 1.656]


@pytest.mark.parametrize("cells", [1, 4, 7, 16, 18])
def test_the_window_is_numpys_hanning_without_its_zeros(cells: int) -> None:
    edge = np.hanning(cells + 2)[1:-1]
    found = hann_window(cells)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, np.outer(edge, edge), rtol=0, atol=1e-7)
    assert (found > 0).all()


def test_tokens_are_rows_of_the_map_with_mean_zero_and_variance_one() -> None:
    patches = noise(2, 6, 3, 5) * 9 + 4
    found = tokens(patches)
    assert (found.shape, found.dtype) == ((2, 15, 6), torch.float32)
    for row in range(3):
        for column in range(5):
            one = patches[:, :, row, column]
            expected = (one - one.mean(1, keepdim=True)) / (one.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
            torch.testing.assert_close(found[:, 5 * row + column].double(), expected, rtol=0, atol=1e-6)


def test_tokens_do_not_depend_on_an_encoders_gain_and_offset() -> None:
    patches = noise(2, 6, 3, 5)
    torch.testing.assert_close(tokens(7 * patches + 3), tokens(patches), rtol=0, atol=1e-3)
    assert tokens(patches.to(torch.bfloat16)).dtype == torch.float32


def test_a_head_is_a_function_of_its_seed_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (build_head(CONFIG, width=8, template=(2, 2), search=(4, 4), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert one.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    weights = [(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True) if a.ndim > 1]
    assert not any(torch.equal(a, b) for a, b in weights)


def test_a_fresh_head_matches_tokens_and_expects_rare_targets_of_a_quarter() -> None:
    head = build_head(HeadsConfig(channels=8, head_dim=64), width=256, template=(2, 2), search=(4, 4))
    for block in head.blocks:
        assert torch.equal(block.attn.q.weight, block.attn.kv.weight[:256])
        assert block.attn.q.weight.std().item() == pytest.approx(1 / 16, rel=0.02)
        assert not block.attn.q.bias.any()
        assert not block.attn.kv.bias.any()
    biases = [branch[-1].bias.sigmoid().tolist() for branch in (head.center.score, head.center.size)]
    assert biases[0] == pytest.approx([0.02])
    assert biases[1] == pytest.approx([0.25, 0.25])
    assert not head.center.offset[-1].bias.any()
    assert head.segment.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(("grid", "width"), [((4, 4), 16), ((3, 5), 8), ((16, 16), 12), ((1, 1), 10), ((2, 2), 3)])
def test_positions_are_sines_and_cosines_of_the_distance_from_the_centre(grid: tuple[int, int], width: int) -> None:
    quarter = width // 4
    expected = np.zeros((grid[0] * grid[1], width))
    for row in range(grid[0]):
        for column in range(grid[1]):
            for k in range(quarter):
                y, x = (
                    (at - (edge - 1) / 2) * 100 ** (-k / quarter) for at, edge in ((row, grid[0]), (column, grid[1]))
                )
                values = (math.sin(y), math.cos(y), math.sin(x), math.cos(x))
                for part, value in enumerate(values):
                    expected[row * grid[1] + column, part * quarter + k] = value
    np.testing.assert_allclose(sine_positions(grid, width), expected, rtol=0, atol=1e-6)


def test_the_middle_of_template_and_search_have_the_same_positions() -> None:
    small = sine_positions((4, 4), 16).view(4, 4, 16)
    large = sine_positions((8, 8), 16).view(8, 8, 16)
    torch.testing.assert_close(large[2:6, 2:6], small, rtol=0, atol=1e-6)
    assert len({tuple(row) for row in large.view(64, 16).mul(1e4).round().tolist()}) == 64


@pytest.mark.parametrize(
    ("width", "head_dim", "heads"), [(128, 32, 4), (768, 64, 12), (100, 32, 2), (7, 64, 1), (13, 4, 1), (1152, 64, 18)]
)
def test_heads_divide_the_width_and_are_no_narrower_than_asked(width: int, head_dim: int, heads: int) -> None:
    head = tiny_head(HeadsConfig(channels=8, head_dim=head_dim), width=width)
    assert [block.attn.heads for block in head.blocks] == [heads, heads]
    maps = head.eval()(torch.rand(2, 4, width), torch.rand(2, 16, width))
    assert all(torch.isfinite(part).all() for part in maps)


def test_boxes_are_read_where_the_response_is_highest() -> None:
    dice = torch.Generator().manual_seed(0)
    h, w, batch = 5, 7, 9
    maps = Maps(*(torch.rand(batch, channels, h, w, generator=dice) for channels in (1, 2, 2)))
    response = torch.rand(batch, 1, h, w, generator=dice)
    boxes, scores = maps.boxes(response)
    for k in range(batch):
        cells = [(float(response[k, 0, i, j]), i, j) for i in range(h) for j in range(w)]
        best, i, j = max(cells)
        offset_x, offset_y = maps.offset[k, :, i, j].tolist()
        expected = [(j + offset_x) / w, (i + offset_y) / h, *maps.size[k, :, i, j].tolist()]
        assert boxes[k].tolist() == pytest.approx(expected, abs=1e-6)
        assert scores[k].item() == best


def test_grids_are_whole_patches_and_a_size_below_one_is_refused() -> None:
    assert grids((128, 256), 16) == ((8, 8), (16, 16))
    assert grids((126, 252), 14) == ((9, 9), (18, 18))
    with pytest.raises(RiceError, match=r"at least one patch \(16 px\), got \(8, 32\)"):
        grids((8, 32), 16)
