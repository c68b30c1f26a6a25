"""A Llava model of transformers around any encoder and any causal language model.

The classes are transformers' own and unmodified, so that a saved folder loads without this package (a wrapped tower:
after `import rice`). Shapes: D width of the tower, C of the language model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllm.llava.config import Arch, LlavaConfig
from mllm.llava.processor import build_processor, prepare_tokenizer, stop_ids, tiles_of
from mllm.llava.prompts import Prompt
from mllm.llava.rows import MARK
from mllm.llava.tiling import Tiles, Tiling
from mllm.llava.tower import VisionTower, vision_tower
from rice.encoders.base import Encoder
from rice.encoders.hf import quiet
from rice.encoders.hub import pinned
from rice.errors import RiceError

TOWER, PROJECTOR, LANGUAGE = "vision_tower", "projector", "language_model"
"""Parts of a model, of which each has its own learning rate."""

PARTS: Mapping[str, tuple[str, ...]] = {
    TOWER: ("model.vision_tower.",),
    PROJECTOR: ("model.multi_modal_projector.", "model.image_newline"),
    LANGUAGE: ("model.language_model.", "lm_head."),
}
"""Part -> what its parameters' names begin with."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """`model`: of transformers' AutoModelForCausalLM; `name`: as it was asked for."""

    model: Any
    tokenizer: Any
    name: str

    @classmethod
    def load(cls, name: str, prompt: Prompt, *, dtype: torch.dtype = torch.float32) -> "LanguageModel":
        """A folder or a repository of the hub. Errors: RiceError where transformers cannot read it."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            with quiet(), pinned(name) as options:
                model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=False, **options)
                tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise RiceError(
                f"expected a causal language model of transformers, a folder or repository, got {name!r}: {reason}"
            ) from error
        return cls(model=model, tokenizer=prepare_tokenizer(tokenizer, prompt), name=name)


@dataclass(frozen=True, kw_only=True)
class Llava:
    """A model of transformers and its processor."""

    model: Any
    processor: Any
    tiles: Tiles
    arch: Arch

    @property
    def tokenizer(self) -> Any:
        """Of the language model, with the image token."""
        return self.processor.tokenizer

    @property
    def image_id(self) -> int:
        """The image token."""
        return int(self.model.config.image_token_id)

    def save(self, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """What `AutoModelForImageTextToText` and `AutoProcessor` load. Not atomic by itself. `state`: the values, where
        the model does not hold them."""
        with quiet():
            self.model.save_pretrained(folder, state_dict=state)
        self.processor.save_pretrained(folder)


@dataclass(frozen=True, kw_only=True)
class BuiltLlava(Llava):
    """With the tower that it was built around."""

    tower: VisionTower


def build(
    encoder: Encoder, language: LanguageModel, config: LlavaConfig, *, tiling: Tiling, arch: Arch, seed: int
) -> BuiltLlava:
    """Tower and language model with their own values, projector and newline with random ones (a function of `seed`).

    The language model's values are taken over, not copied: it must not be used any more.
    """
    tower = vision_tower(encoder, layer_of(encoder, config))
    tiles = tiles_of(tower, tiling)
    _check_plain(language)
    _grow(language)
    model = _assemble(tower, language, tiles, arch, seed)
    _check_same(model, language)
    processor = build_processor(arch, tower, tiles, language.tokenizer, config.prompt)
    _set_generation(model, language, config.prompt)
    return BuiltLlava(model=model, processor=processor, tower=tower, tiles=tiles, arch=arch)


def layer_of(encoder: Encoder, config: LlavaConfig) -> int:
    """The hidden state to read: what the encoder's name asks for (`NAME,layer=-3`), else the configuration's; of own
    encoders and networks without blocks the last map, which is all that they have."""
    spec = encoder.spec
    if spec.layer != -1 or spec.source == "own" or spec.depth is None:
        return spec.layer
    return config.layer


def _check_plain(language: LanguageModel) -> None:
    """Errors: RiceError for a network that transformers' Llava models cannot hold."""
    head = language.model.get_output_embeddings()
    if getattr(head, "bias", None) is not None or not hasattr(language.model.base_model, "embed_tokens"):
        raise RiceError(
            f"{language.name} ({language.model.config.model_type}) has other embeddings or another head than Llava "
            "models can hold; Qwen, Llama and Mistral work"
        )


def _check_same(model: Any, language: LanguageModel) -> None:
    """Errors: RiceError for a language model that does more than its blocks and its head, as Gemma and Cohere do."""
    ids = torch.arange(1, 17)[None]
    with torch.no_grad():
        expected, found = language.model(ids).logits.float(), model(input_ids=ids).logits.float()
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise RiceError(
            f"inside a Llava model {language.name} ({language.model.config.model_type}) gives other logits than by "
            "itself: it scales or caps them; Qwen, Llama and Mistral work"
        )


def _grow(language: LanguageModel) -> None:
    """Rows for new tokens. Qwen's tables have some to spare, and stay as they are."""
    rows = language.model.get_input_embeddings().weight.shape[0]
    if len(language.tokenizer) > rows:
        with quiet():
            language.model.resize_token_embeddings(len(language.tokenizer))


def _assemble(tower: VisionTower, language: LanguageModel, tiles: Tiles, arch: Arch, seed: int) -> Any:
    config = _configuration(tower, language, tiles, arch)
    cls = model_class(arch)
    dtype = next(language.model.parameters()).dtype
    with torch.device("meta"):
        model = cls(config)
    model.model.vision_tower = tower.module.to(dtype)
    model.model.language_model = language.model.base_model
    model.lm_head = language.model.get_output_embeddings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _init_projector(model, dtype)
    model.config.tie_word_embeddings = language.model.config.tie_word_embeddings
    present = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = set(model._no_split_modules or ()) & present  # FSDP looks for every one of them
    return model.eval()


def model_class(arch: Arch) -> Any:
    """transformers' class."""
    import transformers

    names = {
        "llava": "LlavaForConditionalGeneration",
        "llava_next": "LlavaNextForConditionalGeneration",
        "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    }
    return getattr(transformers, names[arch])


def _configuration(tower: VisionTower, language: LanguageModel, tiles: Tiles, arch: Arch) -> Any:
    cls = model_class(arch).config_class
    options: dict[str, Any] = {} if arch == "llava" else {"image_grid_pinpoints": tiles.pinpoints}
    options["image_token_index"] = language.tokenizer.convert_tokens_to_ids(MARK)
    if arch != "llava_onevision":
        options["image_seq_length"] = tiles.side**2
    else:  # a video token is asked for; no text has it
        options["video_token_index"] = len(language.tokenizer) + 1
    return cls(
        vision_config=tower.module.config,
        text_config=language.model.config,
        vision_feature_layer=tower.layer,
        vision_feature_select_strategy=tower.strategy,
        tie_word_embeddings=bool(language.model.config.tie_word_embeddings),
        **options,
    )


def _init_projector(model: Any, dtype: torch.dtype) -> None:
    """As torch.nn.Linear's own, which LLaVA's are; the newline as LLaVA-NeXT's."""
    for layer in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
        layer.to_empty(device="cpu")
        layer.to(dtype)
        layer.reset_parameters()
    if hasattr(model.model, "image_newline"):
        width = model.config.text_config.hidden_size
        model.model.image_newline = nn.Parameter((torch.randn(width) / math.sqrt(width)).to(dtype))


def _set_generation(model: Any, language: LanguageModel, prompt: Prompt) -> None:
    """Answers end at the prompt's end, by greedy choice unless something else is asked for."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        eos_token_id=stop_ids(language.tokenizer, prompt), pad_token_id=language.tokenizer.pad_token_id, do_sample=False
    )


def part_of(name: str) -> str:
    """The part of a parameter by its name. Errors: RiceError for one of no part."""
    for part, prefixes in PARTS.items():
        if name.startswith(prefixes):
            return part
    raise RiceError(f"expected a parameter of {', '.join(PARTS)}, got {name!r}")


def set_learning(model: nn.Module, rates: Mapping[str, float]) -> None:
    """Only the parts that have a rate above zero learn."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(rates.get(part_of(name), 0.0) > 0)


def projector_state(model: nn.Module, state: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Values of projector and newline, by name; out of `state` where it is given."""
    values = dict(model.named_parameters()) if state is None else state
    return {name: value.detach() for name, value in values.items() if name.startswith(PARTS[PROJECTOR])}
