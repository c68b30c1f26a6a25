"""Any tower that transformers has, as a folder that `transformers.AutoModel.from_pretrained` loads.

Our ViT becomes an MLCDVisionModel, a plain open_clip ViT a CLIPVisionModel, towers of transformers stay what they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from rice.encoders.base import Encoder
from rice.encoders.hf_config import CONFIG, PROCESSOR
from rice.encoders.processor import processor_json
from rice.encoders.region_checkpoint import attach, save_rice
from rice.errors import RiceError
from rice.files import atomic_folder, write_json
from rice.model.region import RiceModel
from rice.model.vit import ViT

_EXPORTABLE = "our own ViT, towers of transformers that AutoModel knows, and plain open_clip ViTs"
_OPEN_CLIP_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
}
_OPEN_CLIP_MODULES = {
    "transformer.resblocks.": "encoder.layers.",
    "ln_pre.": "pre_layrnorm.",
    "ln_post.": "post_layernorm.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.out_proj.": ".self_attn.out_proj.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}


def export(encoder: Encoder, out: Path, *, region: Path | None = None) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json into the new folder `out`, all or nothing.

    `region`: a file of region layers (`rice.encoders.region_checkpoint`) that is kept beside them.
    The processor makes pictures of the encoder's size. An open_clip tower keeps its hidden states and its pooled class
    token; CLIPVisionModel leaves the norm of the patches (`post_layernorm`) to its user, where open_clip applies it.
    Errors: RiceError when `out` exists and is not an empty folder, or transformers has no class for this tower.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RiceError(f"expected a new or empty folder as --out, {out} exists; name another one or remove it")
    tower = transformers_tower(encoder)
    if region is not None:
        tower = attach(tower, region)
    with atomic_folder(out) as folder:
        if isinstance(tower, ViT | RiceModel):
            save_rice(tower, folder, encoder.spec)
            return
        tower.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):  # which safetensors lets nobody else read
            weights.chmod((folder / CONFIG).stat().st_mode)
        write_json(folder / PROCESSOR, processor_json(encoder.spec, tower.config.model_type))


def transformers_tower(encoder: Encoder) -> Any:
    """Our ViT, or a model of transformers with the encoder's values. Errors: RiceError where there is none."""
    module: Any = encoder.module
    if isinstance(module, ViT):
        return module
    if isinstance(module, PreTrainedModel) and module.config.model_type in MODEL_MAPPING_NAMES:
        return module
    if type(module).__module__.startswith("open_clip."):
        return _clip_of(module, encoder.spec.name)
    raise _refusal(encoder.spec.name, f"it is a {type(module).__name__}")


def _clip_of(tower: Any, name: str) -> nn.Module:
    """open_clip's VisionTransformer as a CLIPVisionModel. Errors: RiceError when they do not compute the same."""
    try:
        config = _clip_config(tower)
    except (AttributeError, KeyError) as error:
        raise _refusal(name, f"it is no plain ViT of open_clip ({error})") from error
    renamed = _clip_names(tower.state_dict())
    model: Any = CLIPVisionModel(config)
    differing = sorted(renamed.keys() ^ model.state_dict().keys())
    if differing or tower.attn_pool is not None or type(tower.patch_dropout) is not nn.Identity:
        reason = f"it has other parts than CLIP ({', '.join(differing[:3]) or 'a pooling head or patch dropout'})"
        raise _refusal(name, reason)
    model.load_state_dict(renamed)
    exported: nn.Module = model.to(next(iter(renamed.values())).dtype).eval()
    return exported


def _clip_config(tower: Any) -> Any:
    block = tower.transformer.resblocks[0]
    activation = {"GELU": "gelu", "QuickGELU": "quick_gelu"}[type(block.mlp.gelu).__name__]
    return CLIPVisionConfig(
        hidden_size=tower.class_embedding.shape[0],
        intermediate_size=block.mlp.c_fc.out_features,
        num_hidden_layers=len(tower.transformer.resblocks),
        num_attention_heads=block.attn.num_heads,
        image_size=tower.image_size[0],
        patch_size=tower.patch_size[0],
        hidden_act=activation,
        layer_norm_eps=block.ln_1.eps,
    )


def _clip_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's names for open_clip's tensors; the projection into the text's space has no place in a vision tower."""
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        new = _OPEN_CLIP_NAMES.get(name, name)
        for theirs, ours in _OPEN_CLIP_MODULES.items():
            new = new.replace(theirs, ours)
        if ".attn.in_proj_" in new:
            parts = zip("qkv", value.chunk(3), strict=True)
            renamed |= {new.replace(".attn.in_proj_", f".self_attn.{part}_proj."): rows for part, rows in parts}
        elif new != "proj":
            renamed[new] = value
    return renamed


def _refusal(name: str, reason: str) -> RiceError:
    return RiceError(f"{name} cannot be exported to transformers: {reason}; what can: {_EXPORTABLE}")
