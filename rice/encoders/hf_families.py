"""Vision towers of transformers, by `model_type`: what config.json leaves out and what each one's output means.

Imports no torch and no transformers, so that planning stays cheap; a test holds every default to transformers' own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rice.encoders.spec import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from rice.errors import RiceError, nearest

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of tower.

    `model`: class in transformers (or our subclass of it, "module:class"). `width` ... `image_size`: names of the
    configuration's fields. `defaults`: values of the fields that this package reads, where config.json omits them.
    `norm`: whether `last_hidden_state` has passed the tower's final norm. `cls`: "token" is the first token of
    `last_hidden_state`, "pooled" the normed class token (`pooler_output`). `anchors`: tensor names by which the
    tower is found in a larger checkpoint. `optional`: prefixes of tensors that do not touch the patches and may be
    missing. `interpolate`: its forward resamples positions when asked. `fixed`: fields that are always set so (pooling
    heads are not built). `native_size`: of a tower without one. `mean`, `std`, `preprocessing`: the processor's
    documented defaults.
    """

    model: str
    defaults: Mapping[str, Any] = field(hash=False)
    norm: Literal["none", "post"]
    cls: Literal["none", "token", "pooled"]
    anchors: tuple[str, ...]
    optional: tuple[str, ...] = ()
    registers: str | None = None
    gated: str | bool = False
    width: str = "hidden_size"
    depth: str = "num_hidden_layers"
    image_size: str = "image_size"
    interpolate: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict, hash=False)
    native_size: int | None = None
    mean: Triple
    std: Triple
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


def sizes(*, width: int, mlp: int, depth: int, image: int, patch: int) -> dict[str, int]:
    """Sizes by the names that most configurations have for them; `image` and `patch` in pixels."""
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": depth,
        "image_size": image,
        "patch_size": patch,
    }


_SQUASH_BICUBIC = Preprocessing(resize="squash")
_SQUASH_BILINEAR = Preprocessing(resize="squash", interpolation="bilinear")
_BASE = sizes(width=768, mlp=3072, depth=12, image=224, patch=16)
# last_hidden_state: after layernorm, class token included; the processor resizes to 256 and crops 224.
_DINOV2 = Family(
    model="Dinov2Model",
    defaults={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "mlp_ratio": 4,
        "image_size": 224,
        "patch_size": 14,
        "use_swiglu_ffn": False,
    },
    norm="post",
    cls="token",
    anchors=("embeddings.patch_embeddings.projection.weight",),
    optional=("embeddings.mask_token",),
    gated="use_swiglu_ffn",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    preprocessing=Preprocessing(crop_fraction=224 / 256),
)

FAMILIES: dict[str, Family] = {
    # last_hidden_state: the last block's output; post_layernorm touches the class token alone.
    "clip_vision_model": Family(
        model="CLIPVisionModel",
        defaults=_BASE | {"patch_size": 32},
        norm="none",
        cls="pooled",
        anchors=("embeddings.patch_embedding.weight",),
        interpolate=True,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    # The MLCD/RICE ViT: as CLIP, with 2D RoPE instead of position embeddings.
    "mlcd_vision_model": Family(
        model="MLCDVisionModel",
        defaults=sizes(width=1664, mlp=8192, depth=48, image=336, patch=14),
        norm="none",
        cls="pooled",
        anchors=("embeddings.patch_embedding.weight",),
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    # last_hidden_state: after post_layernorm. Fixed-size SigLIP 2 checkpoints are of this type too.
    "siglip_vision_model": Family(
        model="SiglipVisionModel",
        defaults=_BASE,
        norm="post",
        cls="none",
        anchors=("embeddings.patch_embedding.weight",),
        interpolate=True,
        fixed={"vision_use_head": False},
        mean=HALF,
        std=HALF,
        preprocessing=_SQUASH_BICUBIC,
    ),
    # NaFlex: patchified pixels, positions resampled to any grid.
    "siglip2_vision_model": Family(
        model="Siglip2VisionModel",
        defaults={k: v for k, v in _BASE.items() if k != "image_size"} | {"num_patches": 256},
        norm="post",
        cls="none",
        anchors=("embeddings.patch_embedding.weight",),
        fixed={"vision_use_head": False},
        mean=HALF,
        std=HALF,
        preprocessing=_SQUASH_BILINEAR,
    ),
    "dinov2": _DINOV2,
    "dinov2_with_registers": replace(
        _DINOV2,
        model="Dinov2WithRegistersModel",
        defaults={**_DINOV2.defaults, "patch_size": 16, "num_register_tokens": 4},
        registers="num_register_tokens",
    ),
    # last_hidden_state: after norm; the processor resizes floats, not bytes.
    "dinov3_vit": Family(
        model="DINOv3ViTModel",
        defaults=sizes(width=384, mlp=1536, depth=12, image=224, patch=16)
        | {"num_register_tokens": 0, "use_gated_mlp": False},
        norm="post",
        cls="token",
        anchors=("embeddings.patch_embeddings.weight",),
        optional=("embeddings.mask_token",),
        registers="num_register_tokens",
        gated="use_gated_mlp",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        preprocessing=Preprocessing(resize="squash", interpolation="bilinear", backend="torchvision-float"),
    ),
    # last_hidden_state: after rms_norm; no class token. The published files use Apple's own tensor names.
    "aimv2_vision_model": Family(
        model="rice.encoders.hf_towers:AnySizeAimv2",
        defaults=sizes(width=1024, mlp=2816, depth=24, image=224, patch=14),
        norm="post",
        cls="none",
        anchors=("embeddings.patch_embed.weight", "preprocessor.patchifier.proj.weight"),
        gated=True,
        fixed={"use_head": False},
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    # last_hidden_state: after layernorm; cls is its first token, not the tanh pooler.
    "vit": Family(
        model="ViTModel",
        defaults=_BASE,
        norm="post",
        cls="token",
        anchors=("embeddings.patch_embeddings.projection.weight",),
        optional=("pooler.",),
        interpolate=True,
        mean=HALF,
        std=HALF,
        preprocessing=_SQUASH_BILINEAR,
    ),
    # last_hidden_state: before the 2 x 2 merge, put back from window order into the grid.
    "qwen2_5_vl_vision": Family(
        model="transformers.models.qwen2_5_vl.modeling_qwen2_5_vl:Qwen2_5_VisionTransformerPretrainedModel",
        defaults={
            "hidden_size": 3584,
            "intermediate_size": 3420,
            "depth": 32,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": (7, 15, 23, 31),
        },
        norm="none",
        cls="none",
        anchors=("patch_embed.proj.weight",),
        optional=("merger.",),
        gated=True,
        depth="depth",
        native_size=560,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        preprocessing=_SQUASH_BICUBIC,
    ),
    # UNIT: RADIO's ViT with its final norm kept. Its own code normalises inside; here the encoder does, once.
    "unit": Family(
        model="rice.encoders.hf_towers:UnitModel",
        defaults={
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "mlp_ratio": 4.0,
            "image_size": 378,
            "patch_size": 14,
            "num_registers": 0,
        },
        norm="post",
        cls="token",
        anchors=("patch_generator.embedder.weight",),
        registers="num_registers",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
}

# Multi-tower types, and names that older files use for the tower itself.
TOWER_OF = {
    "clip": "clip_vision_model",
    "siglip": "siglip_vision_model",
    "siglip2": "siglip2_vision_model",
    "aimv2": "aimv2_vision_model",
    "mlcd": "mlcd_vision_model",
    "mlcd_vision": "mlcd_vision_model",
    "qwen2_5_vl": "qwen2_5_vl_vision",
}


def tower_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The vision tower's part of a parsed config.json, its `model_type` set.

    Errors: RiceError for a type that this package does not know, with the known ones.
    """
    inner = config.get("vision_config", config)
    if not isinstance(inner, Mapping):
        raise RiceError(f"expected vision_config in {where} to be an object, got {type(inner).__name__}")
    kind = str(inner.get("model_type") or config.get("model_type") or "")
    kind = TOWER_OF.get(kind, kind)
    if kind not in FAMILIES:
        raise RiceError(
            f"{where} has model_type {kind or None!r}, expected one of {', '.join(FAMILIES)}.{nearest(kind, FAMILIES)}"
            " Wrap it as your own encoder: @rice.register_encoder"
        )
    kept = {k: v for k, v in inner.items() if k not in ("auto_map", "architectures")}
    return kept | {"model_type": kind}
