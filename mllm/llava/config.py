"""What the multimodal probe trains: the language model, how pictures are cut, two stages. Imports no torch."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from mllm.llava.prompts import Chat
from mllm.llava.tiling import Tiling
from probes.protocol import run_only
from rice.errors import check_ranges

VERB = "rice llava train"
MINI = "mini"
"""As a language model: a tiny one that is made on the spot."""

Arch = Literal["llava_next", "llava", "llava_onevision"]
"""Which of transformers' models: LLaVA-NeXT (tiles), LLaVA 1.5 (the whole picture only), LLaVA-OneVision."""

ARCH_OF: dict[Tiling, Arch] = {
    "one": "llava",
    "2x2+1": "llava_next",
    "anyres5": "llava_next",
    "anyres10": "llava_next",
    "anyres9": "llava_onevision",
}


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """How one stage is trained; the learning rate falls by a cosine to zero.

    Args:
        epochs: passes over the stage's rows; 0: the stage is left out.
        batch: conversations per step, over all ranks.
        learning_rate: peak of AdamW, of the language model (stage 1: of the projector, which alone learns).
        weight_decay: decoupled, of matrices.
        warmup: share of the steps with linear warm-up.
        clip: largest gradient norm; none: no clipping.
        tower_rate: peak for the vision tower; 0: the tower stays as it is.
        projector_rate: peak for projector and newline token; none: as learning_rate.
        rows: most rows, the first by a hash of their ids; none: all.
    """

    epochs: int = 1
    batch: int = 128
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    warmup: float = 0.03
    clip: float | None = 1.0
    tower_rate: float = 2e-6
    projector_rate: float | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        holds = {
            "epochs": self.epochs >= 0,
            "batch": self.batch >= 1,
            "learning_rate": self.learning_rate > 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "clip": self.clip is None or self.clip > 0,
            "tower_rate": self.tower_rate >= 0,
            "projector_rate": self.projector_rate is None or self.projector_rate > 0,
            "rows": self.rows is None or self.rows >= 1,
        }
        check_ranges(self, holds, VERB)


@dataclass(frozen=True, kw_only=True)
class LlavaConfig:
    """What the multimodal probe trains; the defaults are the paper's Table 1 (LLaVA-NeXT, Qwen2.5-7B).

    Args:
        lm: language model: a folder or a repository of the hub that transformers' AutoModelForCausalLM loads; "mini": a
            tiny one, made and trained here on the rows' own texts.
        tiling: of stage 2 and of all answers: 2x2+1 (always 5 tiles), anyres5 (3 to 5, LLaVA-NeXT's own), anyres9
            (LLaVA-OneVision), anyres10 (2 to 7, for referring segmentation), one (LLaVA 1.5: the whole picture only).
        prompt: how conversations are written: qwen_1_5 (ChatML) or vicuna_v1.
        layer: hidden state of the tower that is read, where the encoder's name says none (LLaVA: -2); of own encoders
            and networks without blocks it is always the last map.
        max_length: tokens; longer conversations are cut at their end, and left out where no answer would be left.
        lora: rank of low-rank adapters in the language model; 0: all of it learns.
        lora_alpha: their scale is this over the rank.
        blind: the pictures are left out of rows and questions: what the text alone gives away.
        stage1: of the projector alone, on captions.
        stage2: of everything, on conversations; 0 epochs: the model has an aligned projector and no more.
        lm_epochs: of the language model alone on the texts, before stage 1 (only "mini" needs it).
        lm_rate: its learning rate.
        dtype: of the values while they are trained on a GPU: fp32 (with autocast to bf16), or, for trials, bf16
            throughout, whose rounding swallows small learning rates.
        checkpointing: recompute activations in the backward pass: less memory, a third more time.
        micro_batches: parts, in sequence, that a rank's share of a step is computed in; none: one part for every 4
            conversations. The numbers are the same to rounding.
        save_every: steps between checkpoints to resume from.
    """

    lm: str = "Qwen/Qwen2.5-7B-Instruct"
    tiling: Tiling = "2x2+1"
    prompt: Chat = "qwen_1_5"
    layer: int = -2
    max_length: int = 32_768
    lora: int = 0
    lora_alpha: int = 16
    blind: bool = False
    stage1: StageConfig = field(default_factory=lambda: StageConfig(learning_rate=1e-3, tower_rate=0.0))
    stage2: StageConfig = field(default_factory=StageConfig)
    lm_epochs: int = 0
    lm_rate: float = 1e-3
    dtype: Literal["fp32", "bf16"] = "fp32"
    checkpointing: bool = run_only(False)
    micro_batches: int | None = run_only(None)
    save_every: int = run_only(500)

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        check_ranges(self, self.ranges(), VERB)

    def ranges(self) -> dict[str, bool]:
        """Field -> whether its value is one that it may have."""
        return {
            "max_length": self.max_length >= 64,
            "lora": self.lora >= 0 and (self.lora == 0 or self.stage2.epochs >= 1),
            "lora_alpha": self.lora_alpha >= 1,
            "lm_epochs": self.lm_epochs == 0 or (self.lm_epochs > 0 and self.lm == MINI),
            "lm_rate": self.lm_rate > 0,
            "micro_batches": self.micro_batches is None or self.micro_batches >= 1,
            "save_every": self.save_every >= 1,
        }

    @property
    def arch(self) -> Arch:
        """The model that the tiling needs."""
        return ARCH_OF[self.tiling]


@dataclass(frozen=True, kw_only=True)
class LlavaProbeConfig(LlavaConfig):
    """What a sweep trains and asks.

    Args:
        tasks: what to be judged on: table1, table5d, or names of lmms-eval's tasks with commas between.
        limit: most questions of a task; none: all.
        eval_batch: questions that are answered together.
    """

    tasks: str = "table1"
    limit: int | None = None
    eval_batch: int = run_only(8)

    def ranges(self) -> dict[str, bool]:
        """See `LlavaConfig`."""
        asked = {"limit": self.limit is None or self.limit >= 1, "eval_batch": self.eval_batch >= 1}
        return super().ranges() | asked

    def training(self) -> LlavaConfig:
        """What is trained."""
        return LlavaConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(LlavaConfig)})
