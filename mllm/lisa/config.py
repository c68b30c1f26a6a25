"""What the referring segmentation probe trains: a LLaVA, then its segmenter's prompts. Imports no torch."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import rice.encoders
from mllm.llava.config import LlavaConfig
from probes.protocol import run_only
from rice.errors import RiceError, check_ranges

VERB = "rice lisa train"
MINI = "mini"
"""As a segmenter: a tiny one that comes with the package."""

SHIPPED = Path(rice.encoders.__file__).parent / "shipped" / "mini-sam"
"""See the README beside it."""

PROJECTOR, PROMPT, DECODER = "projector", "prompt", "mask_decoder"
"""Parts whose learning rate may be the language model's."""

LAYERS: dict[str, tuple[str, ...]] = {"qv": ("q_proj", "v_proj"), "all": ()}
"""Choice -> names of the linear layers that get adapters; none: all of them."""


def segmenter_place(name: str) -> str:
    """Folder or repository of a segmenter as it was asked for."""
    return str(SHIPPED) if name == MINI else name


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How language model and mask decoder learn to segment.

    Args:
        steps: updates; the mixture has no end.
        batch: samples per step, over all ranks; a sample is a picture with up to `expressions` questions.
        learning_rate: peak of AdamW, of the language model or its adapters.
        tower_rate: peak for the vision tower; 0: it stays as it is.
        projector_rate: peak for projector and newline token; none: as learning_rate; 0: they stay.
        prompt_rate: peak for the layers that make prompts of hidden states; none: as learning_rate.
        decoder_rate: peak for the mask decoder; none: as learning_rate; 0: it stays as it is.
        weight_decay: decoupled, of matrices.
        beta2: of AdamW.
        decay: how the learning rates fall to zero, by a cosine or linearly.
        warmup: share of the steps with linear warm-up.
        clip: largest gradient norm; none: no clipping.
        mixture: shares of semantic classes, referring expressions, visual questions and reasoning; a share whose data
            is not there falls to the others.
        exclude_judged: leave out of the sets to segment the photographs of all splits that are there to be judged on;
            captions and visual questions keep theirs. LISA leaves none out: refCOCOg, COCO-Stuff and PACO train on
            photographs that refCOCO is judged on.
        expressions: most questions of a picture in one sample.
        unseen: share of the pictures to segment that the language model does not see, only the segmenter: one that
            begins at random learns to read the words from them, which hundreds of picture tokens would drown.
        varied: questions and answers in LISA's phrases; --no-varied: always as an evaluation asks, answered by [SEG]
            alone, which a model that begins at random learns sooner.
        ce: weight of the text's loss.
        bce: weight of the masks' binary cross entropy.
        dice: weight of the masks' dice loss.
        lora: rank of low-rank adapters in the language model, whose token tables learn with them; 0: all of it learns.
        lora_alpha: their scale is this over the rank.
        lora_layers: which linear layers get them: qv (queries and values) or all.
    """

    steps: int = 5000
    batch: int = 128
    learning_rate: float = 2e-5
    tower_rate: float = 2e-6
    projector_rate: float | None = None
    prompt_rate: float | None = 3e-4
    decoder_rate: float | None = None
    weight_decay: float = 0.0
    beta2: float = 0.999
    decay: Literal["cosine", "linear"] = "cosine"
    warmup: float = 0.03
    clip: float | None = 1.0
    mixture: tuple[int, int, int, int] = (9, 3, 3, 1)
    exclude_judged: bool = False
    expressions: int = 3
    unseen: float = 0.0
    varied: bool = True
    ce: float = 1.0
    bce: float = 2.0
    dice: float = 0.5
    lora: int = 0
    lora_alpha: int = 16
    lora_layers: Literal["qv", "all"] = "qv"

    def rate(self, part: str) -> float:
        """Peak learning rate of projector, prompt or mask_decoder; 0: it stays as it is."""
        own = {PROJECTOR: self.projector_rate, PROMPT: self.prompt_rate, DECODER: self.decoder_rate}[part]
        return self.learning_rate if own is None else own

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        rates = (self.projector_rate, self.decoder_rate)
        holds = {
            "steps": self.steps >= 1,
            "batch": self.batch >= 1,
            "learning_rate": self.learning_rate > 0,
            "tower_rate": self.tower_rate >= 0,
            "projector_rate": rates[0] is None or rates[0] >= 0,
            "prompt_rate": self.prompt_rate is None or self.prompt_rate > 0,
            "decoder_rate": rates[1] is None or rates[1] >= 0,
            "weight_decay": self.weight_decay >= 0,
            "beta2": 0 < self.beta2 < 1,
            "warmup": 0 <= self.warmup < 1,
            "clip": self.clip is None or self.clip > 0,
            "mixture": min(self.mixture) >= 0 and sum(self.mixture[:2]) + self.mixture[3] > 0,
            "expressions": self.expressions >= 1,
            "unseen": 0 <= self.unseen <= 1,
            "ce": self.ce >= 0,
            "bce": self.bce >= 0,
            "dice": self.dice >= 0,
            "lora": self.lora >= 0,
            "lora_alpha": self.lora_alpha >= 1,
        }
        check_ranges(self, holds, VERB)


@dataclass(frozen=True, kw_only=True)
class LisaConfig(LlavaConfig):
    """What the referring segmentation probe trains; the defaults are the paper's Table 2 (LLaVA-NeXT, Qwen2.5-7B).

    Args:
        segmenter: SAM or SAM 2: a folder or a repository of the hub that transformers loads; "mini": a tiny one that
            comes with the package, for generated scenes.
        segment: how language model and mask decoder learn to segment, after `stage1` and `stage2`.
        shuffled: every expression is replaced by another picture's, in training only: what can be learnt without
            reading it.
    """

    segmenter: str = "facebook/sam-vit-huge"
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    shuffled: bool = False

    verb: ClassVar[str] = VERB

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        if self.lora:
            raise RiceError(
                f"expected lora=0, got {self.lora}: adapters of stage 2 would be in the way of those that learn to "
                "segment; give --segment.lora"
            )
        if self.blind:
            raise RiceError("expected a model that sees, got blind: it would have no picture to point at; leave it out")
        check_ranges(self, self.ranges(), self.verb)

    def llava(self) -> LlavaConfig:
        """What is trained first."""
        return LlavaConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(LlavaConfig)})


@dataclass(frozen=True, kw_only=True)
class LisaProbeConfig(LisaConfig):
    """What a sweep trains and asks.

    Args:
        splits: what to be judged on: names of sets and splits with commas between, e.g. refcoco_val; all: every split
            that is there but those to train on.
        limit: most pictures of a split; none: all.
        eval_batch: expressions of a picture that are answered together.
    """

    splits: str = "all"
    limit: int | None = None
    eval_batch: int = run_only(8)

    def ranges(self) -> dict[str, bool]:
        """See `LlavaConfig`."""
        return super().ranges() | {"limit": self.limit is None or self.limit >= 1, "eval_batch": self.eval_batch >= 1}

    def training(self) -> LisaConfig:
        """What is trained."""
        return LisaConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(LisaConfig)})
