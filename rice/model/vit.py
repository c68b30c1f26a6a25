"""The vision transformer of RICE and MLCD (section 3.1): pre-norm, 2D rotary positions, learned class-token angles.

Shapes: B images, H W input pixels, h w patch grid, T = 1 + h*w tokens (the class token first), D width, N heads,
K channels per head, L blocks.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from rice.errors import RiceError
from rice.model.config import ViTConfig
from rice.model.linear import Linear
from rice.model.rope import Grid, rotate, turns


class ViTOutput(NamedTuple):
    """`hidden` (B, T, D): the hidden state asked for, not post-normed. `pooled` (B, D): its class token, post-normed.

    `grid`: (h, w), so that `hidden[:, 1:]` unflattens.
    """

    hidden: Tensor
    pooled: Tensor
    grid: Grid


class Attention(nn.Module):
    """Multi-head self-attention with q, k and v from one product; q and k are rotated together."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.qkv = Linear(config.width, 3 * config.width)
        self.proj = Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor, cos_T1A: Tensor, sin_T1A: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D). `cos`, `sin`: as of `rice.model.rope.turns`."""
        batch, tokens, width = x_BTD.shape
        qkv_BT3NK = self.qkv(x_BTD).view(batch, tokens, 3, self.heads, self.head_dim)
        qk_BTMK = rotate(qkv_BT3NK[:, :, :2].flatten(2, 3), cos_T1A, sin_T1A)
        q_BNTK, k_BNTK = (part.transpose(1, 2) for part in qk_BTMK.chunk(2, dim=2))
        v_BNTK = qkv_BT3NK[:, :, 2].transpose(1, 2)
        y_BNTK = scaled_dot_product_attention(q_BNTK, k_BNTK, v_BNTK)
        y_BTD: Tensor = self.proj(y_BNTK.transpose(1, 2).reshape(batch, tokens, width))
        return y_BTD


class MLP(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D). Without gradients the GELU overwrites fc1's output, a tenth of the time at 224."""
        hidden = self.fc1(x_BTD)
        hidden = gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden)
        y_BTD: Tensor = self.fc2(hidden)
        return y_BTD


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = MLP(config.width, config.mlp_width)

    def forward(self, x_BTD: Tensor, cos_T1A: Tensor, sin_T1A: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x_BTD = x_BTD + self.attn(self.norm1(x_BTD), cos_T1A, sin_T1A)
        y_BTD: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return y_BTD


_CONTRAST_FILTERS, _CONTRAST_BLOCKS = 0.02, 0.1
"""Standard deviations of `begin_with_contrast`, found for 64 channels."""


class ViT(nn.Module):
    """The tower. Starts from MLCD's random initialisation."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.class_pos_emb = nn.Parameter(torch.empty(1, config.head_dim // 2))
        self.patch_embed = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.pre_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.post_norm = nn.LayerNorm(config.width, eps=config.eps)
        self._initialise()

    def forward(self, images_B3HW: Tensor, layer: int = -1) -> ViTOutput:
        """Hidden state `layer` of normalised images, of any height and width; the remainder of a patch is dropped.

        `layer` counts L + 1 states as transformers does: 0 after the pre-norm, -1 or L after the last block. Blocks
        after it are not computed. Errors: RiceError for a layer that does not exist, or an image below one patch.
        """
        grid = self._grid(images_B3HW)
        x_BTD = self._embed(images_B3HW)
        cos_T1A, sin_T1A = turns(grid, self.class_pos_emb, self.config.theta)
        for block in self.blocks[: self._blocks_before(layer)]:
            x_BTD = block(x_BTD, cos_T1A, sin_T1A)
        return ViTOutput(x_BTD, self.post_norm(x_BTD[:, 0]), grid)

    def _embed(self, images_B3HW: Tensor) -> Tensor:
        patches_BTD = self.patch_embed(images_B3HW).flatten(2).transpose(1, 2)
        class_B1D = self.class_embedding.expand(len(images_B3HW), 1, -1)
        x_BTD: Tensor = self.pre_norm(torch.cat([class_B1D, patches_BTD], dim=1))
        return x_BTD

    def _grid(self, images_B3HW: Tensor) -> Grid:
        height, width = images_B3HW.shape[-2:]
        if min(height, width) < self.config.patch:
            raise RiceError(f"expected images of at least one patch ({self.config.patch} px), got {height} x {width}")
        return height // self.config.patch, width // self.config.patch

    def _blocks_before(self, layer: int) -> int:
        states = self.config.depth + 1
        if not -states <= layer < states:
            raise RiceError(f"expected a layer in [{-states}, {states - 1}] of {states} hidden states, got {layer}")
        return layer % states

    @torch.no_grad()
    def _initialise(self) -> None:
        """As `transformers.MLCDVisionModel` does: residual branches shrink with depth, biases are 0, norms 1."""
        if self.class_embedding.is_meta:  # nothing to draw, and torch would import its compiler for it: 1.8 s
            return
        width, residual = self.config.width, (2 * self.config.depth) ** -0.5
        nn.init.normal_(self.class_embedding, std=width**-0.5)
        nn.init.normal_(self.class_pos_emb, std=(self.config.head_dim // 2) ** -0.5)
        nn.init.normal_(self.patch_embed.weight, std=0.02)
        stds = {
            "attn.qkv": width**-0.5 * residual,
            "attn.proj": width**-0.5,
            "mlp.fc1": (2 * width) ** -0.5,
            "mlp.fc2": width**-0.5 * residual,
        }
        for block in self.blocks:
            for name, std in stds.items():
                layer = block.get_submodule(name)
                nn.init.normal_(layer.get_parameter("weight"), std=std)
                nn.init.zeros_(layer.get_parameter("bias"))


@torch.no_grad()
def begin_with_contrast(vit: ViT) -> None:
    """Draw another random start: smooth filters of brightness without a mean, and wider values in the blocks.

    MLCD's start sees little of a patch but its mean colour, as the norm behind the filters keeps what is largest. A
    large tower gets over it; one of 64 channels that is to tell textures apart may spend a laptop's whole training on
    it. A filter is noise of half the patch's resolution, the same for all colours.
    """
    width, patch = vit.config.width, vit.config.patch
    noise_D1hw = torch.randn(width, 1, patch // 2, patch // 2)
    filters_D1pp = nn.functional.interpolate(noise_D1hw, (patch, patch), mode="bicubic") * _CONTRAST_FILTERS
    centred_D1pp = filters_D1pp - filters_D1pp.mean(dim=(2, 3), keepdim=True)
    vit.patch_embed.weight.copy_(centred_D1pp.expand_as(vit.patch_embed.weight))
    for module in vit.blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=_CONTRAST_BLOCKS)
