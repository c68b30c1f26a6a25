"""Our answers to all expressions of a picture, behind one prefix, over transformers' `generate`. Exits 1 where a goal
fails.

    python benchmarks/lisa.py [--rounds 3] [--parts next llava15] [--device cuda] [--json FILE]

"ours" is `mllm.lisa.answer`. "alone" is one `generate` for each expression, as LISA's `evaluate` is called; "together"
is one for all expressions of a picture, which is repeated for each, as LISA validates. It is checked that all give the
same answers, and the same hidden states before them. The segmenter, whose features all three compute once a picture, is
left out.

The limit, by tokens: with P tokens up to the picture's last one, q of a question, a of an answer and N expressions the
others take N (P + q + a), ours P + N (q + a). For refCOCO (N = 7: 7.2 in val, 7.5 in testA, 6.8 in testB), q = 24 and
a = 8 that is 6.6 with P = 2,928 (next: 2x2+1 tiles of 336 pixels, the paper's Table 1) and 5.3 with P = 576 (llava15).
For refCOCOg (N = 3.8) it is 3.7 and 3.3. The picture's tower is paid N times by the others, once by ours; attention to
a long prefix is paid by every token, and steps of one token by all of ours at once: the ratio may lie on either side.

The models are as in benchmarks/llava.py a sixteenth of Qwen2.5-7B in width, four layers; as many image tokens as there.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2Config,
)

from benchmarks.timing import alternate, begin, finish, ratios, shown, spread
from mllm.lisa.answer import Answerer, Asking
from mllm.llava.tiling import Tiles

SHARE, AGREE = 0.7, 1e-3
"""The goal, of the limit over "alone"; the largest difference of states, of their largest value."""
IMAGE, PAD, SEG = 1, 0, 2
EDGE, SIDE = 336, 24
SIZE = (448, 448)

Part = Literal["next", "llava15"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        expressions: Of a picture.
        pictures: In a round.
        answer: Tokens of an answer.
        rounds: Alternating rounds; the median of their ratios counts.
        device: cpu or cuda.
        parts: Which models.
        json: Write the figures here, too.
    """

    expressions: int = 7
    pictures: int = 1
    answer: int = 8
    rounds: int = 3
    device: str = "cpu"
    parts: tuple[Part, ...] = ("next", "llava15")
    json: Path | None = None


def main(config: Config) -> int:
    """Run everything; 0 where every goal is met."""
    report = begin(config, config.device)
    for part in config.parts:
        found = report[part] = compare(part, config)
        print(f"  {part:<8} {found['said']}")
    return finish(report, config.json, holds=all(report[part]["meets"] for part in config.parts))


def build(part: Part, device: str) -> nn.Module:
    """Random, alike every time."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 1344, "hidden_size": 224, "intermediate_size": 1184, "num_hidden_layers": 4}
    text = Qwen2Config(**sizes, num_attention_heads=7, num_key_value_heads=1)
    tower = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=EDGE,
        patch_size=EDGE // SIDE,
    )
    shared = {"vision_config": tower, "text_config": text, "image_token_index": IMAGE}
    if part == "llava15":
        model: nn.Module = LlavaForConditionalGeneration(LlavaConfig(**shared))
    else:
        grids = [[2 * EDGE, 2 * EDGE]]
        model = LlavaNextForConditionalGeneration(LlavaNextConfig(image_grid_pinpoints=grids, **shared))
    return model.to(device).eval()


def questions(part: Part, number: int, count: int) -> tuple[Asking, dict[str, Tensor]]:
    """A picture and what is asked about it: 20 to 28 tokens each, as refCOCO's expressions in LISA's question."""
    generator = torch.Generator().manual_seed(number)
    tiles = Tiles(tiling="one" if part == "llava15" else "2x2+1", edge=EDGE, side=SIDE)
    lengths = torch.randint(20, 29, (count,), generator=generator).tolist()
    texts = [torch.randint(3, 1000, (length,), generator=generator).tolist() for length in (14, *lengths)]
    asking = Asking(prefix=[*texts[0], *[IMAGE] * tiles.tokens(SIZE)], questions=texts[1:], given=[SEG])
    pixels = torch.randn(1, 5, 3, EDGE, EDGE, generator=generator)
    if part == "llava15":
        return asking, {"pixel_values": pixels[0, :1]}
    return asking, {"pixel_values": pixels, "image_sizes": torch.tensor([SIZE])}


Answers = list[tuple[list[int], Tensor]]
"""Of every expression: the ids, and the state that predicts the first (1, C)."""


def compare(part: Part, config: Config) -> dict[str, Any]:
    """Ours over the other two."""
    model: Any = build(part, config.device)
    asked = [questions(part, number, config.expressions) for number in range(config.pictures)]
    asked = [(one, {name: value.to(config.device) for name, value in seen.items()}) for one, seen in asked]
    runs: dict[str, Callable[[], Answers]] = {
        "ours": lambda: [found for one, seen in asked for found in ours(model, one, seen, config.answer)],
        "alone": lambda: [found for one, seen in asked for found in alone(model, one, seen, config.answer)],
        "together": lambda: [found for one, seen in asked for found in together(model, one, seen, config.answer)],
    }
    answers = {name: run() for name, run in runs.items()}
    apart = max(_apart(answers[name], answers["alone"]) for name in runs)
    seconds = alternate(runs, config.rounds, config.device)
    ratio = {name: ratios(seconds, name, "ours") for name in ("alone", "together")}
    prefix, limit = len(asked[0][0].prefix), _limit(asked[0][0], config.answer)
    count = config.expressions * config.pictures
    faster = " and ".join(f"{name} {shown(values, '.2f')}" for name, values in ratio.items())
    return {
        "said": f"times as fast as {faster}; {limit:.2f} by tokens ({prefix:,} before {config.expressions} "
        f"expressions); {count / spread(seconds['ours'])['median']:.2f} expressions/s; states {apart:.1e} apart",
        "prefix": prefix,
        "limit": limit,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "expressions_per_s": {name: count / spread(values)["median"] for name, values in seconds.items()},
        "ratio": ratio,
        "states_apart": apart,
        "goal": SHARE * limit,
        "meets": ratio["alone"]["median"] >= SHARE * limit and apart < AGREE,
    }


def ours(model: Any, asking: Asking, seen: dict[str, Tensor], most: int) -> Answers:
    """Behind one prefix; the state is that of a given answer that begins with [SEG]."""
    answerer = Answerer(model, seg_id=SEG, ends=[], pad_id=PAD, most=most, together=len(asking.questions))
    return [(list(one.ids), one.given) for one in answerer.answer(asking, seen)]


def alone(model: Any, asking: Asking, seen: dict[str, Tensor], most: int) -> Answers:
    """A call for each expression."""
    return [_generate(model, asking.prefix, [asked], seen, most)[0] for asked in asking.questions]


def together(model: Any, asking: Asking, seen: dict[str, Tensor], most: int) -> Answers:
    """One call, the picture repeated."""
    count = len(asking.questions)
    repeated = {name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in seen.items()}
    return _generate(model, asking.prefix, asking.questions, repeated, most)


@torch.no_grad()
def _generate(model: Any, prefix: list[int], asked: Sequence[list[int]], seen: dict[str, Tensor], most: int) -> Answers:
    """Padded on the left."""
    longest = max(map(len, asked))
    rows = [[PAD] * (longest - len(one)) + prefix + one for one in asked]
    ids = torch.tensor(rows, device=model.device)
    mask = torch.ones_like(ids)
    for row, one in zip(mask, asked, strict=True):
        row[: longest - len(one)] = 0
    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        **seen,
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=[],
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_hidden_states=True,
    )
    first_NC = found.hidden_states[0][-1][:, -1]
    return [
        (row.tolist(), state_C[None]) for row, state_C in zip(found.sequences[:, ids.shape[1] :], first_NC, strict=True)
    ]


def _apart(one: Answers, other: Answers) -> float:
    """Largest difference of states over their largest value. Infinite where an answer is another."""
    if [ids for ids, _ in one] != [ids for ids, _ in other]:
        return float("inf")
    return max(float((a - b).abs().max() / b.abs().max()) for (_, a), (_, b) in zip(one, other, strict=True))


def _limit(asking: Asking, answer: int) -> float:
    """By tokens."""
    own = sum(len(asked) + answer for asked in asking.questions)
    prefix = len(asking.prefix)
    return (len(asking.questions) * prefix + own) / (prefix + own)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
