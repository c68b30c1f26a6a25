"""A tiny language model with a tokenizer of bytes, and Llavas around any encoder, alike every time."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from mllm.llava.config import ARCH_OF, LlavaConfig
from mllm.llava.model import LanguageModel, Llava, build
from mllm.llava.processor import prepare_tokenizer
from mllm.llava.prompts import Prompt
from mllm.llava.tiling import Tiling
from rice.encoders.base import Encoder
from rice.encoders.hf import quiet


def byte_tokenizer() -> Any:
    """A token for each byte."""
    alphabet = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    whole = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<|endoftext|>", pad_token="<|pad|>")


def tiny_qwen(*, tied: bool = False) -> Any:
    """Width 32, two blocks."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 270}
    config = Qwen2Config(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied, **sizes)
    return Qwen2ForCausalLM(config)


def language_model(prompt: Prompt = "qwen_1_5", *, tied: bool = False) -> LanguageModel:
    """Fresh."""
    tokenizer = prepare_tokenizer(byte_tokenizer(), prompt)
    return LanguageModel(model=tiny_qwen(tied=tied), tokenizer=tokenizer, name="tiny")


def llava_around(encoder: Encoder, tiling: Tiling, *, layer: int = -2, tied: bool = False) -> Llava:
    """A Llava around a copy of the encoder."""
    config = LlavaConfig(tiling=tiling, layer=layer)
    language = language_model(tied=tied)
    return build(copy.deepcopy(encoder), language, config, tiling=tiling, arch=ARCH_OF[tiling], seed=0)


def write_lm(folder: Path) -> Path:
    """As a folder of transformers."""
    with quiet():
        tiny_qwen().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture of that size."""
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_root(folder: Path, count: int = 12) -> Path:
    """A data root of `count` rows in LLaVA's form; every fourth conversation is of text only."""
    (folder / "images").mkdir(parents=True)
    pretrain, instruct = [], []
    for number in range(count):
        noise(40 + number, 90, number).save(folder / "images" / f"{number}.png")
        asked = {"from": "human", "value": "<image>\nWhat is it?"}
        row = {"id": str(number), "image": f"{number}.png", "conversations": [asked]}
        pretrain.append({**row, "conversations": [asked, {"from": "gpt", "value": f"noise {number}"}]})
        if number % 4 == 3:
            row = {"id": str(number), "conversations": [{"from": "human", "value": "Two and two?"}]}
        instruct.append(
            {**row, "conversations": [*row["conversations"], {"from": "gpt", "value": "four" * (number % 3 + 1)}]}
        )
    (folder / "pretrain.json").write_text(json.dumps(pretrain))
    (folder / "instruct.json").write_text(json.dumps(instruct))
    return folder
