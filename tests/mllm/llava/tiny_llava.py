"""Random Llavas of a few thousand parameters and examples for them, alike every time."""

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2Config,
    SiglipVisionConfig,
)

VOCABULARY, IMAGE = 64, 63
EDGE, PATCH = 8, 4
FEATURES = {"llava": 4, "llava_next": 4 + 16 + 4, "llava_onevision": 4 + 16 + 4}
"""Tokens of a square image: a tile of 2 x 2, then 4 x 4 and a newline for each line."""


def language(kind: str, tied: bool = False) -> Qwen2Config | LlamaConfig:
    """Qwen2 with two query heads for each key head, or Llama with as many."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    if kind == "qwen2":
        return Qwen2Config(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied, **sizes)
    return LlamaConfig(num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=tied, **sizes)


def llava(kind: str = "llava_next", text: str = "qwen2", *, tied: bool = False, seed: int = 0) -> PreTrainedModel:
    """Whose tower is CLIP, SigLIP for OneVision; all on the CPU in fp32."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower = SiglipVisionConfig if kind == "llava_onevision" else CLIPVisionConfig
    shared = {
        "vision_config": tower(image_size=EDGE, patch_size=PATCH, **sizes),
        "text_config": language(text, tied),
        "image_token_index" if kind != "llava_onevision" else "image_token_id": IMAGE,
        "tie_word_embeddings": tied,
    }
    if kind == "llava":
        return LlavaForConditionalGeneration(LlavaConfig(**shared))
    shared["image_grid_pinpoints"] = [[2 * EDGE, 2 * EDGE]]
    if kind == "llava_next":
        return LlavaNextForConditionalGeneration(LlavaNextConfig(**shared))
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(vision_feature_layer=-1, vision_feature_select_strategy="full", **shared)
    )


def example(
    number: int, kind: str = "llava_next", images: int = 1, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """From 6 to 20 tokens of text, whose second half is the answer, around `images` square images."""
    generator = torch.Generator().manual_seed(number)
    length = int(torch.randint(6, 21, (1,), generator=generator))
    text = torch.randint(0, IMAGE, (length,), generator=generator)
    features = FEATURES[kind] if kind != "llava_onevision" or images == 1 else 4 + 1  # several images: a tile each
    ids = torch.cat([text[:2], torch.full((images * features,), IMAGE), text[2:]])
    labels = ids.clone()
    labels[: len(ids) - length // 2] = -100
    found = {"input_ids": ids, "labels": labels}
    if images:
        tiles = images if kind == "llava" or (kind == "llava_onevision" and images > 1) else 5 * images
        found["pixel_values"] = torch.randn(tiles, 3, EDGE, EDGE, generator=generator).to(dtype)
        found["image_sizes"] = torch.tensor([[EDGE, EDGE]] * images)
    return found


def lengths_of(examples: list[dict[str, Tensor]]) -> list[int]:
    """Their tokens."""
    return [len(one["input_ids"]) for one in examples]


def pad(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The usual collation: padded to the longest, with an attention mask."""
    longest = max(lengths_of(examples))

    def filled(name: str, value: int) -> Tensor:
        rows = [torch.nn.functional.pad(one[name], (0, longest - len(one[name])), value=value) for one in examples]
        return torch.stack(rows)

    batch = {"input_ids": filled("input_ids", 0), "labels": filled("labels", -100)}
    batch["attention_mask"] = torch.stack([torch.arange(longest) < length for length in lengths_of(examples)]).long()
    for name in ("pixel_values", "image_sizes"):
        parts = [one[name] for one in examples if name in one]
        if parts:
            batch[name] = torch.cat(parts)
    return batch
