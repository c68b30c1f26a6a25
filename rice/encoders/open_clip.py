"""Towers of open_clip: `open_clip:ARCH[/TAG]`, and the zoo's entry of this source. Only the vision tower is built.

Patches are the tokens that open_clip pools: after `ln_post`, unless the tower norms what it has pooled. Towers that
wrap a timm model give timm's features.
Shapes: B images, T tokens, D width, h w patch grid.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from rice.encoders import timm as timm_models
from rice.encoders.base import Features
from rice.encoders.loaded import Loaded, as_map, seeded_init
from rice.encoders.spec import CLIP_MEAN, CLIP_STD, EncoderSpec, Preprocessing
from rice.encoders.weights import Source, open_checkpoint, pick
from rice.errors import RiceError, nearest

_ANCHORS = ("conv1.weight", "trunk.patch_embed.proj.weight")


def load(target: str, weights: str | None, *, allow_pickle: bool = False) -> Loaded:
    """Load `open_clip:ARCH[/TAG]`; TAG names published weights. Errors: RiceError."""
    spec = describe(target)
    name, tag = _split(target)
    source = pick(weights, _published(name, tag), spec.name, "name a tag (open_clip:ARCH/TAG)")
    return load_architecture({"name": name}, spec, source, allow_pickle=allow_pickle)


def load_architecture(
    architecture: Mapping[str, Any], spec: EncoderSpec, source: Source, *, allow_pickle: bool = False
) -> Loaded:
    """Build an architecture of open_clip with the values of `source`. Errors: RiceError."""
    checkpoint = None if source.kind == "random" else open_checkpoint(source, allow_pickle=allow_pickle)
    with seeded_init():
        module = build(architecture)
    if checkpoint is not None:
        timm_models.fill(module, checkpoint.read(checkpoint.prefix(_ANCHORS)), checkpoint.label)
        spec = checkpoint.noted(spec, source)
    return Loaded(module, spec, extract)


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """The vision tower of `architecture["name"]`; `architecture["vision"]` replaces fields of its configuration."""
    config = _config(architecture["name"])
    vision = CLIPVisionCfg(**config["vision_cfg"] | architecture.get("vision", {}))
    module: nn.Module = _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))
    if not isinstance(module, VisionTransformer) and not vision.timm_model_name:
        raise RiceError(f"open_clip's {architecture['name']} has no vision transformer: it gives no patch tokens")
    return module.eval()


def describe(target: str) -> EncoderSpec:
    """The spec of `open_clip:target`, from open_clip's own configurations and an unallocated tower."""
    name, tag = _split(target)
    published = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    _check_activation(name, tag, published)
    with torch.device("meta"):
        module: Any = build({"name": name})
    preprocessing = Preprocessing(
        resize="squash" if published.get("resize_mode") == "squash" else "shortest",
        interpolation=published.get("interpolation", "bicubic"),
        backend="pil",
    )
    mean, std = tuple(published.get("mean", CLIP_MEAN)), tuple(published.get("std", CLIP_STD))
    if not isinstance(module, VisionTransformer):
        base = timm_models.facts(module.trunk, {"input_size": module.image_size, "mean": mean, "std": std}, name=name)
        return replace(base, name=f"open_clip:{target}", source=f"open_clip:{target}", preprocessing=preprocessing)
    patch, width = module.patch_size[0], module.class_embedding.shape[0]
    return EncoderSpec(
        name=f"open_clip:{target}",
        source=f"open_clip:{target}",
        patch=patch,
        size_multiple=patch,
        width=width,
        depth=len(module.transformer.resblocks),
        mlp_width=module.transformer.resblocks[0].mlp.c_fc.out_features,
        native_size=module.image_size[0],
        mean=mean,
        std=std,
        norm="post" if _norms_tokens(module) else "none",
        preprocessing=preprocessing,
        note=None if tag else "no tag: mean and std are open_clip's defaults",
    )


def extract(module: nn.Module, pixels_B3HW: Tensor, layer: int) -> Features:
    """Features of the pooled tokens (-1), or of a hidden state: 0 is the first block's input, k is after block k."""
    tower: Any = module
    if not isinstance(module, VisionTransformer):
        return timm_models.extract(tower.trunk, pixels_B3HW, layer)
    grid = (pixels_B3HW.shape[-2] // tower.patch_size[0], pixels_B3HW.shape[-1] // tower.patch_size[1])
    tokens_BTD = _embed(tower, pixels_B3HW, grid)
    depth = len(tower.transformer.resblocks)
    index = layer if layer >= 0 else depth + 1 + layer
    if not 0 <= index <= depth:
        raise RiceError(f"expected a layer between {-depth - 1} and {depth}, got {layer}")
    if layer == -1:
        tokens_BTD = tower.transformer(tokens_BTD)
        tokens_BTD = tower.ln_post(tokens_BTD) if _norms_tokens(tower) else tokens_BTD
    elif index:
        tokens_BTD = tower.transformer.forward_intermediates(tokens_BTD, indices=[index - 1], stop_early=True)[1][0]
    return Features(as_map(tokens_BTD[:, 1:], grid), tokens_BTD[:, 0])


def _embed(tower: Any, pixels_B3HW: Tensor, grid: tuple[int, int]) -> Tensor:
    """The first block's input. open_clip resamples positions when it loads weights; here, whenever the size changes."""
    patches_BTD = tower.conv1(pixels_B3HW).flatten(2).transpose(1, 2)
    cls_B1D = tower.class_embedding.to(patches_BTD.dtype).expand(len(patches_BTD), 1, -1)
    tokens_BTD = torch.cat([cls_B1D, patches_BTD], dim=1)
    return tower.ln_pre(tokens_BTD + _positions(tower, grid).to(tokens_BTD.dtype))  # type: ignore[no-any-return]


def _positions(tower: Any, grid: tuple[int, int]) -> Tensor:
    """(1 + h*w, D): bicubic with antialiasing, as open_clip's `resize_pos_embed`."""
    table: Tensor = tower.positional_embedding
    if grid == tower.grid_size:
        return table
    map_1Dhw = as_map(table[None, 1:].float(), tower.grid_size)
    resized = nn.functional.interpolate(map_1Dhw, grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])


def _norms_tokens(tower: Any) -> bool:
    return tower.attn_pool is None and not tower.final_ln_after_pool


def _split(target: str) -> tuple[str, str | None]:
    name, _, tag = target.partition("/")
    _config(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag and tag not in tags:
        raise RiceError(f"open_clip has no weights {tag!r} for {name}.{nearest(tag, tags)} Known: {', '.join(tags)}")
    return name, tag or None


def _config(name: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        raise RiceError(f"open_clip has no architecture {name!r}.{nearest(name, open_clip.list_models())}")
    return config


def _published(name: str, tag: str | None) -> Source | None:
    """The hub repository of a tag; weights that are only at a plain address are not fetched."""
    repo = open_clip.get_pretrained_cfg(name, tag).get("hf_hub", "") if tag else ""
    return Source("hub", repo.rsplit("/", 1)[0]) if repo else None


def _check_activation(name: str, tag: str | None, published: Mapping[str, Any]) -> None:
    """open_clip only warns when weights trained with QuickGELU meet an architecture without it; features are wrong."""
    has, needs = bool(_config(name).get("quick_gelu")), bool(published.get("quick_gelu"))
    if tag and has != needs:
        other = f"{name}-quickgelu" if needs else name.removesuffix("-quickgelu")
        raise RiceError(
            f"{tag} was trained {'with' if needs else 'without'} QuickGELU: ask for open_clip:{other}/{tag}"
        )
