"""An encoder as the vision tower of transformers' Llava models, with the facts that those need to be right.

Where transformers has the tower's class and reads the asked hidden state as `rice.load_encoder` does, the tower is that
class, so that what is saved loads without this package: CLIP (and open_clip's plain ViTs), SigLIP, DINOv2, and MLCD for
MLCD's and RICE's. Everything else is wrapped (`rice.encoders.transformers_model`).

Shapes: B images, T patch tokens, D width, S input edge.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import MLCDVisionConfig, MLCDVisionModel

from rice.encoders.base import Encoder
from rice.encoders.export import transformers_tower
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.model.checkpoint import to_published
from rice.model.config import to_json
from rice.model.vit import ViT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_POSITIONS = {
    "clip_vision_model": ("embeddings", "position_embedding", 1),
    "siglip_vision_model": ("embeddings", "position_embedding", 0),
}
"""Learned positions that Llava models do not resample: (module, table, class tokens in front)."""
_PLAIN = (*_POSITIONS, "mlcd_vision_model", "dinov2")
"""What transformers' Llava models read right: at most one token before the patches."""


@dataclass(frozen=True, kw_only=True)
class VisionTower:
    """`module`: of transformers; its config states `image_size`, `patch_size` and `hidden_size`. `layer`: the index
    into its hidden states, `asked` the encoder's own. `strategy`: "default" drops one class token, "full" none."""

    module: "PreTrainedModel"
    spec: EncoderSpec
    layer: int
    asked: int
    strategy: Literal["default", "full"]

    @property
    def edge(self) -> int:
        """Of a tile in pixels."""
        return self.spec.native_size

    @property
    def side(self) -> int:
        """Patch tokens along an edge of a tile."""
        return self.spec.native_size // self.spec.patch

    @property
    def class_tokens(self) -> int:
        """Tokens before the patches that the model drops."""
        return 1 if self.strategy == "default" else 0


def vision_tower(encoder: Encoder, layer: int | None = None) -> VisionTower:
    """The tower of an encoder; `layer`: a hidden state as the encoder counts, its spec's where None.

    The tower shares its values with the encoder where it can (not where positions are resampled to the spec's size, nor
    with our own ViT). Errors: RiceError for a layer that the tower does not have.
    """
    spec = encoder.spec
    asked = spec.layer if layer is None else layer
    if spec.depth is not None and not -spec.depth - 1 <= asked <= spec.depth:
        raise RiceError(f"{spec.name} has hidden states {-spec.depth - 1} to {spec.depth}, got layer={asked}")
    module = _own_class(encoder) if asked != -1 or spec.norm == "none" else None
    if module is None:
        return VisionTower(module=_wrapped(encoder, asked), spec=spec, layer=-1, asked=asked, strategy="full")
    kind = module.config.model_type
    strategy: Literal["default", "full"] = "full" if kind == "siglip_vision_model" else "default"
    return VisionTower(module=module, spec=spec, layer=asked, asked=asked, strategy=strategy)


def _own_class(encoder: Encoder) -> "PreTrainedModel | None":
    """transformers' own model of the tower at the spec's size; None where it has none that Llava models read right."""
    if isinstance(encoder.module, ViT):
        return _mlcd(encoder.module, encoder.spec.native_size)
    try:
        module: Any = transformers_tower(encoder)
    except RiceError:
        return None
    kind = module.config.model_type
    return None if kind not in _PLAIN else _resized(module, encoder.spec)


def _mlcd(vit: ViT, size: int) -> Any:
    """Our ViT as transformers' MLCD: 2D RoPE, which takes any size."""
    facts = to_json(replace(vit.config, image_size=size), "float32")
    config = MLCDVisionConfig(**{k: v for k, v in facts.items() if k not in ("model_type", "architectures")})
    model = MLCDVisionModel(config)
    model.load_state_dict({name: value.detach() for name, value in to_published(vit).items()})
    return model.to(next(vit.parameters()).device).eval()


def _resized(module: Any, spec: EncoderSpec) -> Any:
    """At the spec's size; learned positions are resampled as the class itself does when it is asked to."""
    config = module.config
    kind, size = config.model_type, spec.native_size
    if config.image_size == size:
        return module
    fresh = type(module)(_copied(config, size))
    tensors = dict(module.state_dict())
    if kind == "dinov2":
        name = "embeddings.position_embeddings"
        tensors[name] = _resampled(tensors[name][0], 1, size // spec.patch)[None]
    elif kind in _POSITIONS:
        part, table, prefix = _POSITIONS[kind]
        name = f"{part}.{table}.weight"
        tensors[name] = _resampled(tensors[name], prefix, size // spec.patch)
    fresh.load_state_dict(tensors)
    return fresh.to(dtype=module.dtype, device=module.device).eval()


def _copied(config: Any, size: int) -> Any:
    fields = config.to_dict() | {"image_size": size}
    return type(config)(**{k: v for k, v in fields.items() if k != "model_type"})


def _resampled(positions_TD: Tensor, prefix: int, side: int) -> Tensor:
    """Bicubic, the class token's position kept, as `interpolate_pos_encoding` of transformers' towers."""
    kept, grid_TD = positions_TD[:prefix], positions_TD[prefix:]
    old = round(len(grid_TD) ** 0.5)
    map_1Dhw = grid_TD.T.reshape(1, -1, old, old).float()
    new = interpolate(map_1Dhw, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([kept, new.flatten(2)[0].T.to(positions_TD.dtype)])


def _wrapped(encoder: Encoder, layer: int) -> Any:
    from rice.encoders.transformers_model import RiceEncoderConfig, RiceEncoderModel

    return RiceEncoderModel(RiceEncoderConfig.of(encoder, layer), encoder)
