"""Features out of transformers' towers: the last hidden state, or another one, as a map.

Shapes: B images, T tokens, D width, h w patch grid, P patch edge, M merge edge.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rice.encoders.base import Features
from rice.encoders.hf_families import FAMILIES, Family
from rice.encoders.loaded import as_map
from rice.errors import RiceError


def extract(module: nn.Module, pixels_B3HW: Tensor, layer: int) -> Features:
    """Features of `hidden_states[layer]`; -1 is `last_hidden_state`, which in some towers is normed besides."""
    config: Any = module.config
    family = FAMILIES[config.model_type]
    patch = config.patch_size
    grid = (pixels_B3HW.shape[-2] // patch, pixels_B3HW.shape[-1] // patch)
    if config.model_type == "qwen2_5_vl_vision":
        return Features(_qwen(module, pixels_B3HW, layer, grid), None)
    if config.model_type == "siglip2_vision_model":
        output = module(**_naflex_inputs(pixels_B3HW, patch, grid), output_hidden_states=layer != -1)
    else:
        options = {"interpolate_pos_encoding": True} if family.interpolate else {}
        output = module(pixel_values=pixels_B3HW, output_hidden_states=layer != -1, **options)
    tokens_BTD = pick_layer(output, layer)
    prefix = (family.cls != "none") + (getattr(config, family.registers) if family.registers else 0)
    patches = as_map(tokens_BTD[:, prefix:], grid)
    return Features(patches, _cls(output, tokens_BTD, family, layer))


def pick_layer(output: Any, layer: int) -> Tensor:
    """One hidden state of a transformers output. Errors: RiceError outside the tower's range."""
    if layer == -1:
        last: Tensor = output.last_hidden_state
        return last
    states = output.hidden_states
    if not -len(states) <= layer < len(states):
        raise RiceError(f"expected a layer between {-len(states)} and {len(states) - 1}, got {layer}")
    state: Tensor = states[layer]
    return state


def _cls(output: Any, tokens_BTD: Tensor, family: Family, layer: int) -> Tensor | None:
    if family.cls == "none":
        return None
    if family.cls == "pooled" and layer == -1:
        pooled: Tensor = output.pooler_output
        return pooled
    return tokens_BTD[:, 0]


def _naflex_inputs(pixels_B3HW: Tensor, patch: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    """SigLIP 2 NaFlex takes patches, each row-major with channels last, and the grid that they came from."""
    (height, width), batch = grid, len(pixels_B3HW)
    cut_B3HW = pixels_B3HW[..., : height * patch, : width * patch]
    cells = cut_B3HW.reshape(batch, 3, height, patch, width, patch)
    patches_BTC = cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, height * width, -1)
    return {
        "pixel_values": patches_BTC,
        "pixel_attention_mask": torch.ones(patches_BTC.shape[:2], dtype=torch.int32, device=patches_BTC.device),
        "spatial_shapes": torch.tensor([grid] * batch, device=patches_BTC.device),
    }


def _qwen(module: nn.Module, pixels_B3HW: Tensor, layer: int, grid: tuple[int, int]) -> Tensor:
    """Qwen2.5-ViT before its merge: patches go in merge order and come out in window order; here, back to the grid."""
    config: Any = module.config
    merge, batch, (height, width) = config.spatial_merge_size, len(pixels_B3HW), grid
    grids = torch.tensor([[1, height, width]] * batch, device=pixels_B3HW.device)
    output = module(qwen_patches(pixels_B3HW, config), grid_thw=grids, output_hidden_states=layer != -1)
    units = (height // merge, width // merge)
    order = window_order(units, config.window_size // merge // config.patch_size).to(pixels_B3HW.device)
    states = pick_layer(output, layer).reshape(batch, len(order), merge * merge, -1)  # units in window order
    cells = states[:, order.argsort()].reshape(batch, *units, merge, merge, -1)  # row-major
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)


def qwen_patches(pixels_B3HW: Tensor, config: Any) -> Tensor:
    """(B*T, 3*2*P*P) patches in merge order, repeated over the temporal patch, as Qwen's processor cuts them."""
    patch, merge, frames = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
    batch, channels, height, width = pixels_B3HW.shape
    units = (height // patch // merge, width // patch // merge)
    cells = pixels_B3HW.reshape(batch, channels, units[0], merge, patch, units[1], merge, patch)
    cells = cells.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)  # (B, h/M, w/M, M, M, 3, 1, P, P)
    return cells.expand(-1, -1, -1, -1, -1, -1, frames, -1, -1).reshape(-1, channels * frames * patch * patch)


def window_order(units: tuple[int, int], window: int) -> Tensor:
    """Row-major indices of merge units in the order of Qwen2.5-ViT: window by window, row-major inside each."""
    rows, columns = torch.meshgrid(torch.arange(units[0]), torch.arange(units[1]), indexing="ij")
    across = units[1] + window  # more than any column
    windows = (rows // window) * across + columns // window
    inside = (rows % window) * window + columns % window
    return (windows * window * window + inside).flatten().argsort()
