"""Recipes of the referring segmentation probe: the two blocks of the paper's Table 2, and what a laptop can train.

A recipe is a function whose docstring names the row, the command, and the score that the paper reports.
"""

from mllm.lisa.config import LisaConfig, SegmentConfig
from mllm.llava.config import StageConfig
from rice.recipes import described


def next() -> LisaConfig:  # noqa: A001 # the recipe's name on the command line
    """Table 2, LLaVA-NeXT with Qwen2.5-7B: aligned on captions, then everything learns, MLCD's authors' rates.

    rice lisa train next --encoder rice-l14-336 --weights PATH --data ROOT --out OUT
    The paper's RICE: refCOCO val, testA, testB 83.5, 85.3, 81.7. Prompts 3e-4, mask decoder 8e-4, tower 2e-6, all else
    2e-5; ten grids of tiles; 1.8 million samples, as their script's name says, in steps of 128. The paper names no
    resolution. Their script begins with an instructed model and has rows of its own (seg.json); this has LISA's
    mixture after the alignment. They average the text's loss within micro-batches of four samples; here every token of
    a step counts alike, so that long visual answers weigh more.
    """
    stage = SegmentConfig(steps=14_000, decoder_rate=8e-4)
    return LisaConfig(tiling="anyres10", max_length=6000, stage2=StageConfig(epochs=0), segment=stage)


def llava15() -> LisaConfig:
    """Table 2, LLaVA 1.5 with Vicuna-7B: instructed first, then LISA's low-rank adapters on queries and values.

    rice lisa train llava15 --encoder clip-l14-336 --data ROOT --out OUT
    The paper's CLIP and RICE: refCOCO val 74.9 and 76.3. LISA's numbers: r 8, alpha 16, rate 3e-4 for adapters, token
    tables, prompts and mask decoder; 5,000 steps of 160, linear decay after 100; tower and projector stay. LISA drops
    out 5 % of what its adapters see; this does not. LISA averages the text's loss within micro-batches of two samples;
    here every token of a step counts alike.
    """
    return LisaConfig(
        lm="lmsys/vicuna-7b-v1.5",
        tiling="one",
        prompt="vicuna_v1",
        max_length=2048,
        stage2=StageConfig(learning_rate=2e-5, tower_rate=0.0),
        segment=SegmentConfig(
            steps=5000,
            batch=160,
            learning_rate=3e-4,
            tower_rate=0.0,
            projector_rate=0.0,
            beta2=0.95,
            decay="linear",
            warmup=0.02,
            lora=8,
        ),
    )


def mini() -> LisaConfig:
    """A laptop, six minutes: a tiny language model from scratch and a tiny segmenter on generated scenes.

    rice world scenes --layout refer --size 96 --train 3000 --test 200 --out WORLD
    rice lisa train mini --encoder mini-s8-128@48 --data WORLD --out OUT
    rice lisa eval OUT/model --data WORLD --out OUT
    So that the language model learns to read within minutes: one phrase instead of LISA's twenty, most pictures kept
    from it (the segmenter sees them all), no visual questions, and a text's loss of a hundredth of LISA's
    weight: of 0.1 it makes all states that predict [SEG] alike before masks can tell them apart.
    """
    return LisaConfig(
        lm="mini",
        segmenter="mini",
        tiling="one",
        max_length=2048,
        stage1=StageConfig(learning_rate=1e-3, tower_rate=0.0, batch=16, warmup=0.05, rows=1000),
        stage2=StageConfig(epochs=0),
        segment=SegmentConfig(
            steps=700,
            batch=8,
            learning_rate=1e-3,
            tower_rate=0.0,
            prompt_rate=2e-3,
            decoder_rate=5e-4,
            warmup=0.05,
            mixture=(9, 9, 0, 1),
            unseen=0.85,
            expressions=6,
            varied=False,
            ce=0.01,
            bce=1.0,
            dice=1.0,
        ),
        micro_batches=1,
    )


RECIPES = described((next, llava15, mini))
