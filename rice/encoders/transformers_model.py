"""Any encoder as a model of transformers, `model_type` "rice_encoder": for towers that transformers has no class for,
or one that gives other features than those asked for.

A folder saved with it loads by `AutoModel.from_pretrained` after `import rice` (and after the import of the module that
registers an own encoder, unless an entry point does). Everything that the network holds is in the weights' file, its
buffers included.
Shapes: B images, T patch tokens, D width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from rice.encoders import hf, registry
from rice.encoders.base import Encoder
from rice.encoders.hf_extract import extract
from rice.encoders.hf_families import FAMILIES
from rice.encoders.load import load_encoder
from rice.encoders.spec import EncoderSpec, Preprocessing
from rice.encoders.weights import RANDOM
from rice.errors import RiceError

MODEL_TYPE = "rice_encoder"


class RiceEncoderConfig(PreTrainedConfig):  # type: ignore[misc] # transformers has no types
    """`encoder`: the name that `rice.load_encoder` takes, without size and layer. `architecture`: the configuration of
    a tower of transformers, which then needs no name. `spec`: the encoder's facts. `layer`: the hidden state that is
    given. `hidden_size`, `patch_size`, `image_size`: width, and pixels of a patch and of the square input."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        encoder: str = "",
        architecture: Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
        layer: int = -1,
        hidden_size: int = 0,
        patch_size: int = 0,
        image_size: int = 0,
        **kwargs: Any,
    ) -> None:
        """All have defaults, as transformers makes empty configurations."""
        self.encoder = encoder
        self.architecture = None if architecture is None else dict(architecture)
        self.spec = {} if spec is None else dict(spec)
        self.layer = layer
        self.hidden_size, self.patch_size, self.image_size = hidden_size, patch_size, image_size
        super().__init__(**kwargs)

    @classmethod
    def of(cls, encoder: Encoder, layer: int) -> "RiceEncoderConfig":
        """Of an encoder, whose spec's native size is the input's."""
        spec = encoder.spec
        config: Any = getattr(encoder.module, "config", None)
        own = getattr(config, "model_type", "") in FAMILIES
        return cls(
            encoder="" if own else registry.target_of(spec.name),
            architecture=config.to_dict() if own else None,
            spec=dataclasses.asdict(spec),
            layer=layer,
            hidden_size=spec.width,
            patch_size=spec.patch,
            image_size=spec.native_size,
        )

    def encoder_spec(self) -> EncoderSpec:
        """The facts, read back from JSON."""
        facts = dict(self.spec) | {name: tuple(self.spec[name]) for name in ("mean", "std")}
        return EncoderSpec(**facts | {"preprocessing": Preprocessing(**facts["preprocessing"])})


class RiceEncoderModel(PreTrainedModel):  # type: ignore[misc]
    """`forward` gives one hidden state, of patches only, as the last and as the only one of `hidden_states`."""

    config_class = RiceEncoderConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules: tuple[str, ...] = ()

    def __init__(self, config: RiceEncoderConfig, encoder: Encoder | None = None) -> None:
        """`encoder`: one that is there already; else it is built with random values, which a checkpoint replaces."""
        super().__init__(config)
        if encoder is None:
            with torch.device("cpu"):  # transformers builds on "meta", where many networks cannot be built
                encoder = _build(config)
        self.network = encoder.module
        self._extract = encoder._extract
        for module in self.network.modules():  # transformers would leave these unset after loading
            module._non_persistent_buffers_set.clear()
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutput:
        """Normalised pixels (B, 3, H, W) to patches (B, T, D), row-major. Other arguments have no effect."""
        features = self._extract(self.network, pixel_values.to(self.dtype), self.config.layer)
        patches_BTD = features.patches.flatten(2).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=patches_BTD, hidden_states=(patches_BTD,))

    def _init_weights(self, module: torch.nn.Module) -> None:
        """The network has initialised itself."""


def _build(config: RiceEncoderConfig) -> Encoder:
    """Random values; the same network. Errors: RiceError where the name leads to nothing any more."""
    if config.architecture is not None:
        return Encoder(hf.build(config.architecture), config.encoder_spec(), extract, weights=RANDOM)
    try:
        return load_encoder(config.encoder, weights=None)
    except RiceError as error:
        raise RiceError(f"the tower {config.encoder!r}: {error} (import the module that registers it first)") from error


def register() -> None:
    """Make the type known to AutoConfig and AutoModel. A second time does nothing."""
    AutoConfig.register(MODEL_TYPE, RiceEncoderConfig, exist_ok=True)
    AutoModel.register(RiceEncoderConfig, RiceEncoderModel, exist_ok=True)


register()
