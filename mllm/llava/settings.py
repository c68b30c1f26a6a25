"""How a multimodal model is trained. Imports nothing heavy: `--help` reads it."""

from dataclasses import dataclass
from typing import Literal

from rice.errors import check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """AdamW, linear warm-up, decay to zero: the recipe's numbers. Learning rates belong to parameter groups.

    Args:
        batch: samples of a step, over all ranks.
        micro_batches: rows that a step's samples are packed into, counted over all ranks: each has its share of them,
            one after the other. More of them need less memory; the samples of a step are the same.
        epochs: passes over the rows.
        warmup: share of the steps in which the learning rates rise.
        weight_decay: decoupled, of matrices alone.
        clip: largest gradient norm; 0: no clipping.
        beta2: of AdamW.
        decay: how the learning rates fall to zero: by a cosine or linearly.
        seed: of the order of the samples.
        amp: bf16 autocast.
        checkpointing: recompute activations in the backward pass, for less memory.
        save_every: steps between checkpoints; 0: none, and no resuming.
        workers: processes that read pictures, per rank.
        device: auto (a GPU where there is one) or cpu.
    """

    batch: int = 128
    micro_batches: int = 128
    epochs: int = 1
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 1.0
    beta2: float = 0.999
    decay: Literal["cosine", "linear"] = "cosine"
    seed: int = 0
    amp: bool = True
    checkpointing: bool = False
    save_every: int = 500
    workers: int = 4
    device: str = "auto"

    def __post_init__(self) -> None:
        holds = {
            "batch": self.batch >= 1,
            "micro_batches": self.micro_batches >= 1,
            "epochs": self.epochs >= 1,
            "warmup": 0 <= self.warmup < 1,
            "weight_decay": self.weight_decay >= 0,
            "clip": self.clip >= 0,
            "beta2": 0 < self.beta2 < 1,
            "save_every": self.save_every >= 0,
            "workers": self.workers >= 0,
            "device": self.device in ("auto", "cpu"),
        }
        check_ranges(self, holds, "rice llava train")
