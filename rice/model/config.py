"""The shape of a RICE / MLCD vision transformer, and its published configurations. Imports no torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rice.errors import RiceError

MOST_PARAMETERS = 20_000_000_000
"""Of a tower; the largest published ones have 18 billion. A file of few bytes can ask for any number."""
_LARGEST = 2**20
_MOST = {"depth": 1000, "theta": 1e12}
"""Beyond any tower: a file that asks for more would fill the memory."""


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """One vision transformer (the paper's section 3.1, as `transformers.MLCDVisionConfig` words it).

    `image_size` is the edge in pixels that the tower was last trained at; with rotary positions it binds nothing.
    `mlp_width`: 0 stands for the usual four times the width.
    """

    width: int
    depth: int
    heads: int
    patch: int
    image_size: int
    mlp_width: int = 0
    eps: float = 1e-5
    theta: float = 1e4

    def __post_init__(self) -> None:
        """Errors: RiceError when heads do not divide the width, or an axis cannot have its share of the angles."""
        if self.mlp_width == 0:
            object.__setattr__(self, "mlp_width", 4 * self.width)
        for field in dataclasses.fields(self):
            value, most = getattr(self, field.name), _MOST.get(field.name, _LARGEST)
            if not 0 < value <= most:
                raise RiceError(f"a ViT needs {field.name} > 0 and at most {most}, got {value}")
        if self.parameters > MOST_PARAMETERS:
            raise RiceError(
                f"a ViT has at most {MOST_PARAMETERS:,} parameters, this one would have {self.parameters:,}"
            )
        if self.width % self.heads or self.head_dim % 4:
            raise RiceError(
                f"2D RoPE needs a head width that is a multiple of 4, got width {self.width} over {self.heads} heads"
            )

    @property
    def parameters(self) -> int:
        """Of the matrices, which is all but a thousandth."""
        return self.depth * self.width * (4 * self.width + 2 * self.mlp_width) + 3 * self.patch**2 * self.width

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.width // self.heads

    @property
    def tokens(self) -> int:
        """Tokens at `image_size`, the class token included."""
        return (self.image_size // self.patch) ** 2 + 1


L14 = ViTConfig(width=1024, depth=24, heads=16, patch=14, image_size=560)
"""rice-vit-large-patch14-560, and the paper's L/14 rows."""
B16 = ViTConfig(width=768, depth=12, heads=12, patch=16, image_size=512)
"""The paper's B/16 rows (Tables 3 and 4)."""
BIGG14 = ViTConfig(width=1664, depth=48, heads=16, patch=14, image_size=336, mlp_width=8192)
"""mlcd-vit-bigG-patch14-336."""
TINY16 = ViTConfig(width=192, depth=4, heads=3, patch=16, image_size=224)
"""Trains on a laptop; not of the paper."""
MINI8 = ViTConfig(width=128, depth=4, heads=4, patch=8, image_size=128)
"""Of the encoder that comes with the package, mini-s8-128."""

MICRO8 = ViTConfig(width=64, depth=4, heads=4, patch=8, image_size=64)
"""Of the paper in miniature: trains in minutes."""

SIZE_IN_PATCHES = 16
"""Edge of the image, in patches, that is assumed where a checkpoint states none: 224 pixels for L/14."""
_MLCD_FIELDS = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "patch": "patch_size",
    "image_size": "image_size",
    "eps": "layer_norm_eps",
}
_LLAVA_FIELDS = _MLCD_FIELDS | {"depth": "depth", "heads": "num_heads"}
_FIELDS_OF_TYPE = {"mlcd_vision_model": _MLCD_FIELDS, "mlcd": _MLCD_FIELDS, "rice_vit": _LLAVA_FIELDS}


def from_json(config: Mapping[str, Any], *, origin: str) -> ViTConfig:
    """Read a `config.json`: MLCDVisionModel's, or one that holds a tower as its `vision_config` (LLaVA-OneVision-1.5).

    The latter states no `image_size`: it becomes sixteen patches. `origin` names the file in errors.
    Errors: RiceError for another architecture, a missing field, or one that this network does not have.
    """
    tower = config.get("vision_config", config)
    model_type = tower.get("model_type") if isinstance(tower, Mapping) else None
    if not isinstance(tower, Mapping) or not isinstance(model_type, str) or model_type not in _FIELDS_OF_TYPE:
        raise RiceError(
            f"{origin}: expected model_type {' or '.join(_FIELDS_OF_TYPE)}, got {model_type!r}; "
            "a tower of another architecture is loaded with hf:PATH"
        )
    _refuse_variants(tower, origin)
    fields = _FIELDS_OF_TYPE[model_type]
    defaults = {"eps": 1e-5, "image_size": SIZE_IN_PATCHES * _number(tower, "patch_size", None, origin)}
    values = {ours: _number(tower, theirs, defaults.get(ours), origin) for ours, theirs in fields.items()}
    rope = tower.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise RiceError(f"{origin}: expected rope_parameters to be an object, got {rope!r}")
    eps, theta = float(values.pop("eps")), float(_number(rope, "rope_theta", 1e4, origin))
    try:
        return ViTConfig(**{ours: int(value) for ours, value in values.items()}, eps=eps, theta=theta)
    except RiceError as error:
        raise RiceError(f"{origin}: {error}") from error


def to_json(config: ViTConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` with which `transformers.AutoModel` builds an MLCDVisionModel."""
    return {
        "architectures": ["MLCDVisionModel"],
        "model_type": "mlcd_vision_model",
        "dtype": dtype,
        **{theirs: getattr(config, ours) for ours, theirs in _MLCD_FIELDS.items()},
        "num_channels": 3,
        "num_key_value_groups": 1,
        "hidden_act": "gelu",
        "rope_parameters": {"rope_type": "axial", "rope_theta": config.theta},
    }


def _refuse_variants(tower: Mapping[str, Any], origin: str) -> None:
    """This network has three input channels, exact GELU and a key per query head."""
    expected = {"num_channels": 3, "in_channels": 3, "hidden_act": "gelu", "num_key_value_groups": 1}
    for name, value in expected.items():
        if tower.get(name, value) != value:
            raise RiceError(f"{origin}: expected {name} = {value!r}, got {tower[name]!r}")


def _number(fields: Mapping[str, Any], name: str, default: float | None, origin: str) -> float:
    value = fields.get(name)
    value = default if value is None else value
    if isinstance(value, (list, tuple)) and value and all(one == value[0] for one in value):
        value = value[0]  # some files write sizes as [14, 14]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e15:
        raise RiceError(f"{origin}: expected a positive number as {name}, got {value!r}")
    if default is None and value != int(value):
        raise RiceError(f"{origin}: expected a whole number as {name}, got {value!r}")
    return value
