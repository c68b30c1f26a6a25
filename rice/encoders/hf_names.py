"""Tensor names of the published files that transformers does not convert by itself.

AIMv2: Apple's names, as read by transformers' own conversion script. UNIT: names as they are.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_AIMV2_TABLE = "embeddings.position_embedding.weight"
_AIMV2 = (
    (r"^preprocessor\.patchifier\.proj\.", "embeddings.patch_embed."),
    (r"^preprocessor\.patchifier\.norm\.", "embeddings.rms_norm."),
    (r"^preprocessor\.pos_embed$", _AIMV2_TABLE),
    (r"^trunk\.post_trunk_norm\.", "rms_norm."),
    (r"^trunk\.blocks\.", "encoder.layers."),
    (r"\.norm_([12])\.", r".rms_norm\1."),
    (r"\.attn\.proj\.", ".attention.out_proj."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.mlp\.fc1\.", ".ffn.gate_proj."),
    (r"\.mlp\.fc2\.", ".ffn.down_proj."),
    (r"\.mlp\.fc3\.", ".ffn.up_proj."),
)


def from_published(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors under the names that our class has; what already has them stays."""
    if config["model_type"] == "unit":
        return {**config, **_unit_geometry(tensors)}, dict(tensors)
    if config["model_type"] != "aimv2_vision_model":
        return dict(config), dict(tensors)
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for pattern, replacement in _AIMV2:
            name = re.sub(pattern, replacement, name)
        renamed |= _split_qkv(name, value)
    table = renamed.get(_AIMV2_TABLE)
    if table is not None:  # published as (1, T, D)
        renamed[_AIMV2_TABLE] = table.reshape(-1, table.shape[-1])
    return dict(config), renamed


def _split_qkv(name: str, value: Tensor) -> dict[str, Tensor]:
    if ".attention.qkv." not in name:
        return {name: value}
    parts = zip("qkv", value.chunk(3), strict=True)
    return {name.replace(".qkv.", f".{letter}_proj."): part for letter, part in parts}


def _unit_geometry(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """UNIT's configuration file is not in transformers' form: its table's size and its extra tokens are read off."""
    table, extra = tensors.get("patch_generator.pos_embed"), tensors.get("patch_generator.cls_token.token")
    if table is None or extra is None:
        return {}
    return {"table_size": math.isqrt(table.shape[1]), "num_registers": extra.shape[0] - 1}
