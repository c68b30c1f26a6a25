"""Recipes of the multimodal probe: rows of the paper's Table 1, and what is trained on a laptop.

A recipe is a function whose docstring names the row, the command, the score that the paper reports, and the cost. Hours
are one H200's by arithmetic (docs/probes/llava.md: 40 % of its peak), not measured.
"""

from dataclasses import replace

from mllm.llava.config import LlavaConfig, StageConfig
from rice.recipes import described


def next() -> LlavaConfig:  # noqa: A001 # the recipe's name on the command line
    """Table 1, LLaVA-NeXT with Qwen2.5-7B: 558K captions for the projector, then 740K conversations for all.

    rice llava train next --encoder rice-l14-560 --data ROOT --out OUT
    The paper's RICE at 336, 378 and 560 pixels: DocVQA 79.2, 82.6, 87.4. Stage 2 takes 60, 75 and 160 hours, stage 1
    7, 8 and 18.
    """
    return LlavaConfig()


def anyres() -> LlavaConfig:
    """LLaVA-NeXT as its authors tile: three to five tiles by the picture's shape, all else as `next`.

    rice llava train anyres --encoder rice-l14-560 --data ROOT --out OUT
    """
    return replace(next(), tiling="anyres5")


def onevision() -> LlavaConfig:
    """Table 1's second part, LLaVA-OneVision's layout: up to 36 tiles, at most nine tiles' tokens besides the whole.

    rice llava train onevision --encoder siglip-so400m-14-384 --data ROOT --out OUT
    Its schedule has more stages; this is its layout with the two stages of `next`.
    """
    return replace(next(), tiling="anyres9")


def llava15() -> LlavaConfig:
    """LLaVA 1.5: the whole picture only, Vicuna's prompt, the tower frozen.

    rice llava train llava15 --encoder clip-l14-336 --lm lmsys/vicuna-7b-v1.5 --data ROOT --out OUT
    """
    return replace(
        next(),
        lm="lmsys/vicuna-7b-v1.5",
        tiling="one",
        prompt="vicuna_v1",
        max_length=2048,
        stage2=StageConfig(learning_rate=2e-5, tower_rate=0.0),
    )


def lora() -> LlavaConfig:
    """`next` with low-rank adapters (r 128, alpha 256) in the language model, the tower frozen: a fifth of the memory.

    rice llava train lora --encoder rice-l14-560 --data ROOT --out OUT; then rice llava merge
    """
    return replace(
        next(),
        lora=128,
        lora_alpha=256,
        stage2=StageConfig(learning_rate=2e-4, projector_rate=2e-5, tower_rate=0.0),
    )


def mini() -> LlavaConfig:
    """A laptop, five minutes: a tiny language model on 6,000 generated scenes, asked about held-out ones.

    rice world scenes --layout llava --size 96 --train 6000 --test 800 --out WORLD
    rice llava train mini --encoder mini-s8-128@48 --data WORLD --out OUT
    rice llava eval OUT/model --tasks world_vqa,world_count,world_ocr --include WORLD/tasks --out OUT
    """
    return replace(
        next(),
        lm="mini",
        max_length=2048,
        stage1=StageConfig(learning_rate=1e-3, tower_rate=0.0, batch=16, warmup=0.05, rows=1000),
        stage2=StageConfig(learning_rate=1e-3, tower_rate=2e-4, batch=8, warmup=0.05),
        micro_batches=1,
    )


RECIPES = described((next, anyres, onevision, llava15, lora, mini))
