"""Models of timm: `timm:NAME`. Patches are `forward_features`; another layer is a block's output, before any norm.

Transformers give their patch tokens; hierarchical models and CNNs their last map, one cell per `reduction` pixels.
Shapes: B images, T tokens, D width, h w patch grid.
"""

import sys
from typing import Any

import timm
import torch
from torch import Tensor, nn

from rice.encoders.base import Features
from rice.encoders.loaded import Loaded, as_map, seeded_init
from rice.encoders.spec import EncoderSpec, Interpolation, Preprocessing
from rice.encoders.weights import Source, open_checkpoint, pick
from rice.errors import RiceError, nearest

_INTERPOLATIONS: tuple[Interpolation, ...] = ("bicubic", "bilinear", "lanczos")


def load(target: str, weights: str | None, *, allow_pickle: bool = False) -> Loaded:
    """Load `timm:NAME`. Errors: RiceError for an unknown name, or values that cannot be read or do not fit."""
    spec = describe(target)
    repo = _config(target).get("hf_hub_id")
    source = pick(weights, Source("hub", repo) if repo else None, spec.name)
    checkpoint = None if source.kind == "random" else open_checkpoint(source, allow_pickle=allow_pickle)
    with seeded_init():
        module = build(target)
    if checkpoint is not None:
        fill(module, _converted(module, checkpoint.read()), checkpoint.label)
        spec = checkpoint.noted(spec, source)
    return Loaded(module, spec, extract)


def build(name: str) -> nn.Module:
    """The model without its classifier, taking any size where timm can resample its positions."""
    if not timm.is_model(name):
        raise RiceError(f"timm has no model {name!r}.{nearest(name, timm.list_models())}")
    try:
        module: nn.Module = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:  # this kind of model has no such switch
        module = timm.create_model(name, num_classes=0)
    return module.eval()


def describe(target: str) -> EncoderSpec:
    """The spec of `timm:target`, from timm's own configuration and an unallocated model."""
    with torch.device("meta"):
        module = build(target)
    config = _config(target)
    return facts(module, config, name=f"timm:{target}")


def facts(module: nn.Module, config: dict[str, Any], *, name: str) -> EncoderSpec:
    """The spec of a timm model with the given pretrained configuration."""
    net: Any = module
    size = int(_input_size(module, config))
    patch = _patch(net)
    blocks = getattr(net, "blocks", None) if _is_plain(net) else None
    interpolation = config.get("interpolation", "bicubic")
    if interpolation not in _INTERPOLATIONS:
        raise RiceError(f"{name} is resampled with {interpolation!r}, expected one of {', '.join(_INTERPOLATIONS)}")
    return EncoderSpec(
        name=name,
        source=name,
        licence=config.get("license") or None,
        paper=config.get("paper_ids") or config.get("paper_name") or None,
        patch=patch,
        size_multiple=patch if _takes_any_size(net) else size,
        width=int(net.num_features),
        depth=None if blocks is None else len(blocks),
        mlp_width=None if blocks is None else _mlp_width(blocks[0]),
        prefix_tokens=int(getattr(net, "num_prefix_tokens", 0) or 0),
        gated_mlp=blocks is not None and _is_gated(blocks[0]),
        native_size=size,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        norm="none" if isinstance(getattr(net, "norm", nn.Identity()), nn.Identity) else "post",
        preprocessing=Preprocessing(
            resize="squash" if config.get("crop_mode") == "squash" else "shortest",
            interpolation=interpolation,
            crop_fraction=float(config.get("crop_pct") or 0.875),
            backend="pil",
        ),
    )


def extract(module: nn.Module, pixels_B3HW: Tensor, layer: int) -> Features:
    """Features of `forward_features` (-1), or of block `layer` counted as hidden states are: k is after block k."""
    net: Any = module
    patch = _patch(net)
    grid = (pixels_B3HW.shape[-2] // patch, pixels_B3HW.shape[-1] // patch)
    pixels_B3HW = pixels_B3HW[..., : grid[0] * patch, : grid[1] * patch]  # timm asserts where a convolution would drop
    if layer != -1:
        return _block(net, pixels_B3HW, layer)
    output: Tensor = net.forward_features(pixels_B3HW)
    if output.ndim == 4:
        channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        return Features(output.permute(0, 3, 1, 2) if channels_last else output, None)
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    patches = as_map(output[:, prefix:], grid)
    return Features(patches, output[:, 0] if _has_cls(net) else None)


def _block(net: Any, pixels_B3HW: Tensor, layer: int) -> Features:
    if not _is_plain(net):
        raise RiceError(f"{type(net).__name__} of timm gives its last map only: leave out ,layer=")
    depth = len(net.blocks)
    index = layer if layer >= 0 else depth + 1 + layer
    if not 1 <= index <= depth:
        raise RiceError(f"expected a layer between 1 and {depth}, or {-depth} and -1, got {layer}")
    with_prefix = {"return_prefix_tokens": True} if getattr(net, "num_prefix_tokens", 0) else {}
    picked = net.forward_intermediates(pixels_B3HW, indices=[index - 1], intermediates_only=True, **with_prefix)[0]
    patches, prefix = picked if with_prefix else (picked, None)
    return Features(patches, prefix[:, 0] if prefix is not None and _has_cls(net) else None)


def _converted(module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's own conversion where the model has one: older names, resampled patches and positions."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    converted: dict[str, Tensor] = tensors if convert is None else convert(tensors, module)
    return converted


def fill(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load tensors; heads may be left over, but nothing may be missing. Errors: RiceError."""
    try:
        missing = module.load_state_dict(tensors, strict=False).missing_keys
    except RuntimeError as error:
        raise RiceError(f"{where} does not fit this architecture: {str(error).splitlines()[-1].strip()}") from error
    if missing:
        raise RiceError(f"{where} does not fit this architecture: it has no {', '.join(missing[:3])}")


def _config(name: str) -> dict[str, Any]:
    config = timm.get_pretrained_cfg(name)
    return {} if config is None else dict(config.to_dict())


def _input_size(module: nn.Module, config: dict[str, Any]) -> int:
    embed = getattr(module, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    return int(size[0] if size else config["input_size"][-1])


def _patch(net: Any) -> int:
    if _is_plain(net):
        return int(net.patch_embed.patch_size[0])
    return int(net.feature_info[-1]["reduction"])


def _is_plain(net: Any) -> bool:
    """A transformer of one scale."""
    return hasattr(net, "blocks") and hasattr(net, "num_prefix_tokens") and hasattr(net, "patch_embed")


def _takes_any_size(net: Any) -> bool:
    return bool(getattr(net, "dynamic_img_size", False)) or not hasattr(net, "patch_embed")


def _has_cls(net: Any) -> bool:
    return getattr(net, "cls_token", None) is not None


def _mlp_width(block: Any) -> int | None:
    layer = getattr(block.mlp, "fc2", None)
    return None if layer is None else int(layer.in_features)


def _is_gated(block: Any) -> bool:
    mlp = block.mlp
    first = getattr(mlp, "fc1", None)
    packed = first is not None and getattr(mlp, "fc2", None) is not None and first.out_features != mlp.fc2.in_features
    return hasattr(mlp, "fc1_g") or packed
