"""The processor of a Llava model: transformers' own, set up from the tower's facts so that pixels are normalised once.

Imports transformers when called.
"""

from typing import Any

from mllm.llava.config import Arch
from mllm.llava.prompts import STOPS, TEMPLATES, Prompt
from mllm.llava.rows import MARK
from mllm.llava.tiling import Tiles
from mllm.llava.tower import VisionTower
from rice.encoders.hf_config import RESAMPLE
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError

_INTERPOLATIONS = {"lanczos": "bicubic"}
"""torchvision does not resample tensors with Lanczos' filter, which transformers' Llava processors ask it to do."""


def tiles_of(tower: VisionTower, tiling: Any) -> Tiles:
    """How the tower's pictures become tokens."""
    return Tiles(tiling=tiling, edge=tower.edge, side=tower.side)


def build_processor(arch: Arch, tower: VisionTower, tiles: Tiles, tokenizer: Any, prompt: Prompt) -> Any:
    """LlavaProcessor, LlavaNextProcessor or LlavaOnevisionProcessor, whose whole picture is squashed to one tile."""
    import transformers

    options = {"tokenizer": tokenizer, "chat_template": TEMPLATES[prompt], "image_token": MARK}
    facts = {"patch_size": tower.spec.patch, "vision_feature_select_strategy": tower.strategy}
    if arch == "llava":
        images = transformers.SiglipImageProcessor(**_pixels(tower.spec), size=_square(tiles.edge))
        # Its crop size is what the processor counts tokens by.
        images.crop_size = _square(tiles.edge)
        return transformers.LlavaProcessor(images, **options, **facts, num_additional_image_tokens=tower.class_tokens)
    if arch == "llava_next":
        images = transformers.LlavaNextImageProcessor(
            **_pixels(tower.spec),
            size=_square(tiles.edge),
            crop_size=_square(tiles.edge),
            do_center_crop=False,
            image_grid_pinpoints=tiles.pinpoints,
        )
        return transformers.LlavaNextProcessor(
            images, **options, **facts, num_additional_image_tokens=tower.class_tokens
        )
    images = transformers.LlavaOnevisionImageProcessor(
        **_pixels(tower.spec), size=_square(tiles.edge), image_grid_pinpoints=tiles.pinpoints
    )
    return transformers.LlavaOnevisionProcessor(
        images,
        **options,
        video_processor=transformers.LlavaOnevisionVideoProcessor(**_pixels(tower.spec), size=_square(tiles.edge)),
        num_image_tokens=tiles.side**2,
        vision_feature_select_strategy="full",  # the class token is not among those counted
    )


def _pixels(spec: EncoderSpec) -> dict[str, Any]:
    interpolation = spec.preprocessing.interpolation
    return {
        "resample": RESAMPLE[_INTERPOLATIONS.get(interpolation, interpolation)],  # type: ignore[index]
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
    }


def _square(edge: int) -> dict[str, int]:
    return {"height": edge, "width": edge}


def prepare_tokenizer(tokenizer: Any, prompt: Prompt) -> Any:
    """With the tokens that the prompt needs, each a single one, and one to pad with.

    Errors: RiceError for a tokenizer without an end token.
    """
    if tokenizer.eos_token is None:
        raise RiceError("expected a tokenizer with an end token (eos_token), this one has none")
    wanted = [MARK, *(("<|im_start|>", "<|im_end|>") if prompt == "qwen_1_5" else ())]
    missing = [token for token in wanted if not _is_one(tokenizer, token)]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"  # of answers in batches; training does not pad
    return tokenizer


def _is_one(tokenizer: Any, token: str) -> bool:
    """A token of its own; not the one for whatever is unknown."""
    ids = tokenizer.encode(token, add_special_tokens=False)
    return bool(tokenizer.convert_ids_to_tokens(ids) == [token])


def stop_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Tokens that end an answer."""
    ends = [tokenizer.eos_token_id]
    stop = STOPS[prompt]
    if stop is not None:
        ids = tokenizer.encode(stop, add_special_tokens=False)
        ends += ids if len(ids) == 1 else []
    return sorted(set(ends))
