"""Two towers that transformers does not carry as they were published; both take any size.

Shapes: B images, T patches, D width, h w patch grid.
"""

from functools import partial

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, unfold
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.aimv2.modeling_aimv2 import Aimv2VisionEmbeddings, Aimv2VisionModel


class AnySizeAimv2Embeddings(Aimv2VisionEmbeddings):  # type: ignore[misc] # transformers has no types
    """AIMv2's embeddings; where transformers knows one size only, learned positions are resampled bicubically."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels to (B, T, D) tokens."""
        grid = (pixel_values.shape[-2] // self.patch_size, pixel_values.shape[-1] // self.patch_size)
        native = self.config.image_size // self.patch_size
        if self.config.is_native or grid == (native, native):
            tokens: Tensor = super().forward(pixel_values)
            return tokens
        tokens = self.rms_norm(self.patch_embed(pixel_values).flatten(2).transpose(1, 2))
        table_1Dhw = self.position_embedding.weight.T.unflatten(1, (native, native))[None]
        resampled = interpolate(table_1Dhw.float(), grid, mode="bicubic", align_corners=False)
        return tokens + resampled.flatten(2).transpose(1, 2).to(tokens.dtype)


class AnySizeAimv2(Aimv2VisionModel):  # type: ignore[misc]
    """AIMv2's vision tower at any size."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.embeddings = AnySizeAimv2Embeddings(config)
        self.post_init()


class UnitConfig(PreTrainedConfig):  # type: ignore[misc]
    """UNIT's ViT. `table_size`: edge in patches of its position table; `prefix`: class and register tokens."""

    model_type = "unit"
    hidden_size: int = 1280
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    mlp_ratio: float = 4.0
    image_size: int = 378
    patch_size: int = 14
    table_size: int = 73
    num_registers: int = 0


class UnitToken(nn.Module):
    """Holds the class and register tokens, under the published name."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(count, width) * width**-0.5)


class UnitPatches(nn.Module):
    """RADIO's patch generator as UNIT uses it: a table stretched to the longer edge, corners on corners, then cut."""

    def __init__(self, config: UnitConfig) -> None:
        super().__init__()
        width, self.patch_size, self.table_size = config.hidden_size, config.patch_size, config.table_size
        self.embedder = nn.Linear(3 * self.patch_size**2, width, bias=False)
        self.pos_embed = nn.Parameter(torch.randn(1, self.table_size**2, width) * width**-0.5)
        self.cls_token = UnitToken(1 + config.num_registers, width)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, prefix + T, D)."""
        height, width = (edge // self.patch_size for edge in pixels_B3HW.shape[-2:])
        cells_BTC = unfold(pixels_B3HW, self.patch_size, stride=self.patch_size).transpose(1, 2)
        tokens_BTD = self.embedder(cells_BTC) + self._positions(height, width).to(cells_BTC.dtype)
        prefix = self.cls_token.token.to(tokens_BTD.dtype).expand(len(tokens_BTD), -1, -1)
        return torch.cat([prefix, tokens_BTD], dim=1)

    def _positions(self, height: int, width: int) -> Tensor:
        edge = max(height, width)
        table = self.pos_embed.reshape(1, self.table_size, self.table_size, -1).permute(0, 3, 1, 2)
        stretched = interpolate(table.float(), (edge, edge), mode="bilinear", align_corners=True)
        return stretched[..., :height, :width].flatten(2).transpose(1, 2)


class UnitModel(PreTrainedModel):  # type: ignore[misc]
    """UNIT (github.com/yeezhu/UNIT): RADIO's patches, timm's blocks, and the final norm, which RADIO drops.

    The published network normalises pixels itself; here the encoder does, so that it happens once.
    """

    config_class = UnitConfig
    main_input_name = "pixel_values"

    def __init__(self, config: UnitConfig) -> None:
        super().__init__(config)
        self.patch_generator = UnitPatches(config)
        block = partial(
            timm.models.vision_transformer.Block,
            dim=config.hidden_size,
            num_heads=config.num_attention_heads,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.blocks = nn.ModuleList(block() for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.post_init()

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False) -> BaseModelOutput:
        """Hidden states: 0 is the first block's input, k is after block k; `last_hidden_state` is normed."""
        states = [self.patch_generator(pixel_values)]
        for block in self.blocks:
            states = [*states, block(states[-1])] if output_hidden_states else [block(states[-1])]
        return BaseModelOutput(
            last_hidden_state=self.norm(states[-1]), hidden_states=tuple(states) if output_hidden_states else None
        )
