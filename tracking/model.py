"""What learns on frozen tokens (section 4.4): two ViT blocks over template and search, and OSTrack's CENTER head.

Shapes: B pairs, D width of the encoder, Z template tokens, X search tokens, T = Z + X (the template first), h w the
search grid, N heads, K channels per head. Boxes are centre x, centre y, width, height in shares of the search region.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from rice.errors import RiceError
from rice.model.linear import Linear
from rice.model.vit import MLP
from tracking.config import HeadsConfig

Grid = tuple[int, int]

_EPS = 1e-6
_LEAST = 1e-4
"""Scores and sizes keep this distance from 0 and 1 (OSTrack)."""


_RARE, _QUARTER = 0.02, 0.25


class Maps(NamedTuple):
    """The CENTER head's output: `score` (B, 1, h, w) and `size` (B, 2, h, w) in (0, 1), `offset` (B, 2, h, w) in cells,
    x before y."""

    score: Tensor
    offset: Tensor
    size: Tensor

    def boxes(self, response_B1hw: Tensor) -> tuple[Tensor, Tensor]:
        """The box (B, 4) where the response is highest, and that height (B,)."""
        h, w = response_B1hw.shape[-2:]
        best_B, index_B = response_B1hw.flatten(1).max(dim=1)
        index_B21 = index_B.view(-1, 1, 1).expand(-1, 2, 1)
        offset_B2 = self.offset.flatten(2).gather(2, index_B21).squeeze(2)
        size_B2 = self.size.flatten(2).gather(2, index_B21).squeeze(2)
        cell_B2 = torch.stack([index_B % w, index_B // w], dim=1)
        grid_2 = torch.tensor([w, h], dtype=offset_B2.dtype, device=offset_B2.device)
        return torch.cat([(cell_B2 + offset_B2) / grid_2, size_B2], dim=1), best_B


class Attention(nn.Module):
    """Multi-head self-attention of which only the last tokens' rows are wanted."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.proj = Linear(width, width)

    def forward(self, x_BTD: Tensor, first: int) -> Tensor:
        """(B, T, D) -> (B, T - first, D): rows of the tokens from `first` on, which attend to all."""
        q_BNTK = self._split(self.q(x_BTD[:, first:]))
        k_BNTK, v_BNTK = (self._split(part) for part in self.kv(x_BTD).chunk(2, dim=-1))
        y_BNTK = scaled_dot_product_attention(q_BNTK, k_BNTK, v_BNTK)
        y_BTD: Tensor = self.proj(y_BNTK.transpose(1, 2).flatten(2))
        return y_BTD

    def _split(self, x_BTD: Tensor) -> Tensor:
        batch, count, width = x_BTD.shape
        return x_BTD.view(batch, count, self.heads, width // self.heads).transpose(1, 2)


class Block(nn.Module):
    """A standard pre-norm ViT block. The last one of a stack is only asked for the search tokens: the same numbers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = MLP(width, 4 * width)

    def forward(self, x_BTD: Tensor, first: int = 0) -> Tensor:
        """(B, T, D) -> (B, T - first, D)."""
        x_BTD = x_BTD[:, first:] + self.attn(self.norm1(x_BTD), first)
        y_BTD: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return y_BTD


class CenterHead(nn.Module):
    """OSTrack's CENTER head: three branches of 3 x 3 convolutions, BatchNorm and ReLU, then 1 x 1."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        # A cell is seldom the target's, and the target's edge is about a quarter of the region's.
        self.score = _branch(width, channels, 1, bias=_logit(_RARE))
        self.offset = _branch(width, channels, 2, bias=0.0)
        self.size = _branch(width, channels, 2, bias=_logit(_QUARTER))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x_BDhw: Tensor) -> Maps:
        """Search features (B, D, h, w) -> maps of the same grid, fp32."""
        return Maps(_squash(self.score(x_BDhw)), self.offset(x_BDhw).float(), _squash(self.size(x_BDhw)))


class TrackingHead(nn.Module):
    """Everything that learns. `template`, `search`: their patch grids."""

    template_position: Tensor
    search_position: Tensor

    def __init__(self, config: HeadsConfig, *, width: int, template: Grid, search: Grid) -> None:
        super().__init__()
        self.template, self.search = template, search
        self.segment = nn.Parameter(torch.empty(2, width))
        heads = _heads(width, config.head_dim)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.center = CenterHead(width, config.channels)
        for name, grid in (("template_position", template), ("search_position", search)):
            position = sine_positions(grid, width) if config.positions else torch.zeros(grid[0] * grid[1], width)
            self.register_buffer(name, position, persistent=False)
        self._initialise()

    def forward(self, template_BZD: Tensor, search_BXD: Tensor) -> Maps:
        """Tokens as `tokens` gives them -> the CENTER head's maps over the search grid."""
        z_BZD = template_BZD + self.segment[0] + self.template_position
        x_BXD = search_BXD + self.segment[1] + self.search_position
        x_BTD = torch.cat([z_BZD, x_BXD], dim=1)
        for block in self.blocks[:-1]:
            x_BTD = block(x_BTD)
        x_BXD = self.norm(self.blocks[-1](x_BTD, first=template_BZD.shape[1]))
        x_BDhw = x_BXD.transpose(1, 2).reshape(len(x_BXD), -1, *self.search)
        maps: Maps = self.center(x_BDhw)
        return maps

    @torch.no_grad()
    def _initialise(self) -> None:
        """Queries and keys start equal, so that attention begins as a similarity of tokens: what the template's tokens
        are asked for is found by training, that they are to be matched is not."""
        nn.init.normal_(self.segment, std=0.02)
        for block in self.blocks:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
            attn = block.get_submodule("attn")
            query, key = attn.get_parameter("q.weight"), attn.get_parameter("kv.weight")
            nn.init.normal_(query, std=len(query) ** -0.5)
            key[: len(query)] = query


def build_head(config: HeadsConfig, *, width: int, template: Grid, search: Grid, seed: int = 0) -> TrackingHead:
    """A head whose weights are a function of the seed; the random state outside is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TrackingHead(config, width=width, template=template, search=search)


def tokens(patches_BDhw: Tensor) -> Tensor:
    """Frozen patch tokens (B, D, h, w) as (B, h w, D), normalised over D without parameters, so that raw and normed
    towers meet the head on equal terms. fp32."""
    tokens_BTD = patches_BDhw.flatten(2).transpose(1, 2).float()
    return layer_norm(tokens_BTD, tokens_BTD.shape[-1:])


def sine_positions(grid: Grid, width: int) -> Tensor:
    """Fixed 2D sine and cosine positions (h w, D): a quarter of the channels each for sin y, cos y, sin x, cos x.

    Distances are in patches from the centre of the grid, so that the middle of template and search mean the same.
    Channels that a width not divisible by 4 leaves over are zero.
    """
    quarter = width // 4
    rates_Q = 100.0 ** -(torch.arange(quarter, dtype=torch.float64) / max(quarter, 1))
    h, w = grid
    y_T1 = (torch.arange(h, dtype=torch.float64) - (h - 1) / 2).repeat_interleave(w)[:, None]
    x_T1 = (torch.arange(w, dtype=torch.float64) - (w - 1) / 2).repeat(h)[:, None]
    parts = [part for at in (y_T1, x_T1) for part in ((at * rates_Q).sin(), (at * rates_Q).cos())]
    return nn.functional.pad(torch.cat(parts, dim=1), (0, width - 4 * quarter)).float()


def _heads(width: int, head_dim: int) -> int:
    """As many heads of at least `head_dim` channels as divide the width."""
    heads = max(1, width // head_dim)
    while width % heads:
        heads -= 1
    return heads


def _branch(width: int, channels: int, outputs: int, bias: float) -> nn.Sequential:
    widths = [width, channels, channels // 2, channels // 4, channels // 8]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    last = nn.Conv2d(widths[-1], outputs, 1)
    nn.init.constant_(last.bias, bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, last)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _squash(logits: Tensor) -> Tensor:
    return logits.float().sigmoid().clamp(_LEAST, 1 - _LEAST)


def grids(sizes: tuple[int, int], patch: int) -> tuple[Grid, Grid]:
    """Patch grids of template and search. Errors: RiceError where a size is smaller than a patch."""
    if min(sizes) < patch:
        raise RiceError(f"expected template and search of at least one patch ({patch} px), got {sizes}")
    template, search = (edge // patch for edge in sizes)
    return (template, template), (search, search)
