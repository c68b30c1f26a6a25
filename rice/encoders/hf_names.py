"""Tensor names of the published files that transformers does not convert by itself.

AIMv2: Apple's names, as read by transformers' own conversion script. UNIT: timm's names under RADIO's patch generator.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_AIMV2 = (
    (r"^preprocessor\.patchifier\.proj\.", "embeddings.patch_embed."),
    (r"^preprocessor\.patchifier\.norm\.", "embeddings.rms_norm."),
    (r"^preprocessor\.pos_embed$", "embeddings.position_embedding.weight"),
    (r"^trunk\.post_trunk_norm\.", "rms_norm."),
    (r"^trunk\.blocks\.", "encoder.layers."),
    (r"\.norm_([12])\.", r".rms_norm\1."),
    (r"\.attn\.proj\.", ".attention.out_proj."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.mlp\.fc1\.", ".ffn.gate_proj."),
    (r"\.mlp\.fc2\.", ".ffn.down_proj."),
    (r"\.mlp\.fc3\.", ".ffn.up_proj."),
)
_UNIT = (
    (r"^model\.patch_generator\.embedder\.", "embeddings.patch_projection."),
    (r"^model\.patch_generator\.pos_embed$", "embeddings.position_embedding"),
    (r"^model\.patch_generator\.cls_token\.token$", "embeddings.cls_register_token"),
    (r"^model\.norm\.", "norm."),
    (r"^model\.blocks\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
)
_PUBLISHED = {"aimv2_vision_model": _AIMV2, "unit": _UNIT}


def from_published(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors under the names that transformers' class has; what already has them stays."""
    kind = config["model_type"]
    renamed = dict(tensors)
    if kind in _PUBLISHED:
        renamed = {}
        for name, value in tensors.items():
            for pattern, replacement in _PUBLISHED[kind]:
                name = re.sub(pattern, replacement, name)
            renamed |= _split_qkv(name, value)
    fields = dict(config)
    if kind == "aimv2_vision_model" and "embeddings.position_embedding.weight" in renamed:
        name = "embeddings.position_embedding.weight"
        renamed[name] = renamed[name].reshape(-1, renamed[name].shape[-1])  # published as (1, T, D)
    if kind == "unit":
        fields |= _unit_geometry(renamed, int(config["patch_size"]))
    return fields, renamed


def _split_qkv(name: str, value: Tensor) -> dict[str, Tensor]:
    if ".attention.qkv." not in name:
        return {name: value}
    parts = zip("qkv", value.chunk(3), strict=True)
    return {name.replace(".qkv.", f".{letter}_proj."): part for letter, part in parts}


def _unit_geometry(tensors: Mapping[str, Tensor], patch: int) -> dict[str, Any]:
    """UNIT's configuration file is not in transformers' form: the table's size and the extra tokens are its shapes."""
    table = tensors.get("embeddings.position_embedding")
    extra = tensors.get("embeddings.cls_register_token")
    if table is None or extra is None:
        return {}
    return {"max_img_size": math.isqrt(table.shape[1]) * patch, "num_registers": extra.shape[0] - 1}
