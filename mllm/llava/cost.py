"""What a training costs, by counting: products of the language model, its head and the tower. Imports no torch.

A product of a matrix with P values for T tokens is 2 P T FLOPs, its backward pass twice as many; attention between the
tokens of one conversation is 4 C T^2 a block (half of it, as later tokens are not looked at).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from mllm.llava.tiling import Tiles
from rice.encoders.cost import cost
from rice.encoders.spec import EncoderSpec

_KNOWN = {
    "Qwen/Qwen2.5-7B-Instruct": (6.525e9, 0.545e9, 28, 3584),
    "Qwen/Qwen2.5-7B": (6.525e9, 0.545e9, 28, 3584),
    "lmsys/vicuna-7b-v1.5": (6.476e9, 0.131e9, 32, 4096),
}
"""Language model -> values of its blocks, of its head; blocks; width."""

H200_FLOPS = 989e12
"""Dense bf16 products a second, by its data sheet; the same chip as an H100's."""
UTILISATION = 0.4
"""Share of it that trainings of this size reach."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """Of a language model: `body` values in its blocks' matrices, `head` in its head; `blocks`; `width` C."""

    body: float
    head: float
    blocks: int
    width: int

    @classmethod
    def of(cls, name: str) -> "Language | None":
        """By name, or from the config.json of a folder; None where neither says."""
        if name in _KNOWN:
            body, head, blocks, width = _KNOWN[name]
            return cls(body=body, head=head, blocks=blocks, width=width)
        config = Path(name) / "config.json"
        if not config.is_file():
            return None
        said = json.loads(config.read_text(encoding="utf-8"))
        try:
            width, mlp, blocks = said["hidden_size"], said["intermediate_size"], said["num_hidden_layers"]
            keys = said["num_key_value_heads"] / said["num_attention_heads"]
            body = blocks * width * (2 * width + 2 * width * keys + 3 * mlp)
            return cls(body=body, head=said["vocab_size"] * width, blocks=blocks, width=width)
        except (KeyError, TypeError):
            return None


@dataclass(frozen=True, kw_only=True)
class Price:
    """FLOPs of one conversation, forward and backward, by part; `tokens` T."""

    tokens: int
    language: float
    head: float
    tower: float | None

    @property
    def total(self) -> float:
        """FLOPs; without the tower's where they are not known."""
        return self.language + self.head + (self.tower or 0.0)

    def hours(self, conversations: int) -> float:
        """Of one H200."""
        return conversations * self.total / (H200_FLOPS * UTILISATION) / 3600


def price(
    language: Language, spec: EncoderSpec, tiles: Tiles, size: tuple[int, int], *, text: int, answers: int
) -> Price:
    """One picture of `size` (height, width) and `text` tokens, of which `answers` are learnt; all parts learn."""
    tokens = tiles.tokens(size) + text
    attention = 2 * language.width * tokens**2 * language.blocks
    gflops = cost(spec, spec.native_size).gflops
    return Price(
        tokens=tokens,
        language=3 * (2 * language.body * tokens + attention),
        head=3 * 2 * language.head * answers,
        tower=None if gflops is None else 3 * gflops * 1e9 * tiles.count(size),
    )
