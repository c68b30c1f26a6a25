"""A tiny training of LISA, its model and its examples, and the losses of a row."""

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor

from mllm.lisa.config import LisaConfig, SegmentConfig
from mllm.lisa.data import SegmentExamples, pack_segments
from mllm.lisa.material import LisaMaterial
from mllm.lisa.model import Lisa
from mllm.lisa.train import LisaTraining
from mllm.llava.attention import packed_attention
from mllm.llava.loss import answer_loss
from rice.progress import SilentProgress

QUIET = SilentProgress()
STAGE = SegmentConfig(steps=2, batch=6, learning_rate=5e-3, tower_rate=1e-3, prompt_rate=1e-2, decoder_rate=1e-2)


def training(root: Path, out: Path, **changes: Any) -> LisaTraining:
    """On the root's Llava and segmenter. changes: of the stage's fields or of the whole configuration's."""
    stage = dataclasses.replace(STAGE, **{k: v for k, v in changes.items() if hasattr(STAGE, k)})
    rest = {k: v for k, v in changes.items() if not hasattr(STAGE, k)}
    config = LisaConfig(segmenter=str(root / "sam"), segment=stage, max_length=2000, micro_batches=1)
    return LisaTraining(
        tower=None,
        start=root / "llava",
        material=LisaMaterial(root / "data"),
        config=dataclasses.replace(config, **rest),
        seed=0,
        folder=out,
        workers=0,
        device="cpu",
    )


def built(root: Path, out: Path, **changes: Any) -> tuple[Lisa, SegmentExamples]:
    """A model and its examples, as a training has them."""
    run = training(root, out, **changes)
    run._sets = run._read_sets(QUIET)
    lisa, llava, _ = run._build(root / "llava")
    return lisa, run._examples(lisa, llava, QUIET)


def losses(lisa: Lisa, examples: list[Any], *, tokens: int, masks: int) -> dict[str, Tensor]:
    """Of one packed row; `loss` keeps its graph."""
    row = pack_segments(examples)
    row["labels"] = row["labels"][:, row["logits_to_keep"] + 1]
    row.pop("images_per_sample", None)
    with packed_attention(lisa), answer_loss(lisa):
        found = lisa(**row, num_items_in_batch=tokens, num_masks=masks, use_cache=False)
    return {**found, **lisa.parts}
