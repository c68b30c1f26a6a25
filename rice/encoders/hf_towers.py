"""Two towers that transformers does not carry as they were published; both take any size.

Shapes: B images, T patches, D width, h w patch grid.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, RadioConfig
from transformers.models.aimv2.modeling_aimv2 import Aimv2VisionEmbeddings, Aimv2VisionModel
from transformers.models.radio.modeling_radio import RadioModel, RadioPatchEmbeddings


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
        resampled = nn.functional.interpolate(table_1Dhw.float(), grid, mode="bicubic", align_corners=False)
        return tokens + resampled.flatten(2).transpose(1, 2).to(tokens.dtype)


class AnySizeAimv2(Aimv2VisionModel):  # type: ignore[misc]
    """AIMv2's vision tower at any size."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.embeddings = AnySizeAimv2Embeddings(config)
        self.post_init()


class UnitEmbeddings(RadioPatchEmbeddings):  # type: ignore[misc]
    """RADIO's embeddings as UNIT's code has them: the table is stretched so that its corners stay corners."""

    def _interpolate_position_embedding(self, input_dims: tuple[int, int], dtype: torch.dtype) -> Tensor:
        table_1Dhw = self.position_embedding.unflatten(1, (self.max_rows, self.max_cols)).permute(0, 3, 1, 2)
        edge = max(input_dims)
        stretched = nn.functional.interpolate(table_1Dhw.float(), (edge, edge), mode="bilinear", align_corners=True)
        return stretched[..., : input_dims[0], : input_dims[1]].flatten(2).transpose(1, 2).to(dtype)


class UnitConfig(RadioConfig):  # type: ignore[misc]
    """RADIO's configuration under UNIT's name."""

    model_type = "unit"


class UnitModel(RadioModel):  # type: ignore[misc]
    """UNIT (github.com/yeezhu/UNIT): RADIO's ViT, followed by its final LayerNorm, which RADIO drops.

    The published network normalises pixels itself; here the encoder does, so that it happens once.
    """

    config_class = UnitConfig

    def __init__(self, config: UnitConfig) -> None:
        super().__init__(config)
        self.input_conditioner = nn.Identity()
        self.embeddings = UnitEmbeddings(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: bool) -> PreTrainedConfig:
        """As RADIO's, with `last_hidden_state` normed."""
        output = super().forward(pixel_values, **kwargs)
        output.last_hidden_state = self.norm(output.last_hidden_state)
        return output
