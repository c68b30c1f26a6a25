"""A tiny language model with a small tokenizer of its own, for the recipe `llava-mini`: no download, minutes to train.

The model is Qwen2 at random; the tokenizer is byte-level, in the classes and with the chat template of Qwen2. Whoever
loads the folder cannot tell it from a real one but by what it knows.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.llava.rows import MARK
from rice.errors import RiceError, require
from rice.files import atomic_folder

END_TOKEN = "<|im_end|>"
_PAD_TOKEN = "<|endoftext|>"
_SPECIAL_TOKENS = ("<|im_start|>", MARK)
_ROLES = ("system", "user", "assistant")
_BYTES = 256

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2's, without its default system prompt."""


@dataclass(frozen=True, kw_only=True)
class MiniConfig:
    """Size of the language model.

    Attributes:
        vocabulary: Tokens beside the special ones: the 256 bytes, and the most frequent merges.
        width: Of the residual stream.
        layers: Number of blocks.
        heads: Of attention; as many for keys as for queries.
        hidden: Width within the feed-forward part.
        positions: Longest sequence, in tokens.
        spread: Standard deviation of the random values: so small a model learns faster with more than Qwen2's 0.02.
    """

    vocabulary: int = 400
    width: int = 128
    layers: int = 2
    heads: int = 4
    hidden: int = 512
    positions: int = 4096
    spread: float = 0.08

    def __post_init__(self) -> None:
        """Errors: RiceError."""
        if self.vocabulary < _BYTES:
            raise RiceError(f"expected a vocabulary of at least the {_BYTES} bytes, got {self.vocabulary}")
        if self.heads < 1 or self.width % (2 * self.heads):
            raise RiceError(f"expected a width that {self.heads} heads share in even parts, got {self.width}")


def write_mini_lm(folder: Path, texts: Iterable[str], *, seed: int, config: MiniConfig | None = None) -> Path:
    """Write a language model at random, and a tokenizer trained on `texts`, to `folder`, and return it.

    The same texts and seed: the same tokens and weights. AutoModelForCausalLM and AutoTokenizer load the folder.
    Errors: RiceError where the folder is there already.
    """
    if folder.exists():
        raise RiceError(f"{folder} exists; name another folder or delete it")
    config = config or MiniConfig()
    tokenizer = train_tokenizer(texts, config.vocabulary)
    model = _random_model(tokenizer, config, seed)
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(temporary)
        model.save_pretrained(temporary)
    return folder


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A Qwen2Tokenizer: `vocabulary` byte pairs (Sennrich et al., 2016, over bytes) and the special tokens.

    Merges never cross what Qwen2 splits a text into first; each digit stands alone. Marks of an image in `texts` are
    left out; the names of the roles count as often as there are texts.
    """
    tokenizers, transformers = require("tokenizers", "mllm"), require("transformers", "mllm")
    own = transformers.Qwen2Tokenizer().backend_tokenizer
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.normalizer, learner.pre_tokenizer = own.normalizer, own.pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(_with_roles(texts), trainer)
    learnt = json.loads(learner.to_str())["model"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        eos_token=END_TOKEN,
        pad_token=_PAD_TOKEN,
        additional_special_tokens=list(_SPECIAL_TOKENS),
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _with_roles(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield text.replace(MARK, "")
        yield from _ROLES


def _random_model(tokenizer: Any, config: MiniConfig, seed: int) -> Any:
    """Qwen2 with tied embeddings; the generator's state outside is left as it was."""
    import torch

    transformers = require("transformers", "mllm")
    settings = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        intermediate_size=config.hidden,
        max_position_embeddings=config.positions,
        initializer_range=config.spread,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.Qwen2ForCausalLM(settings)
