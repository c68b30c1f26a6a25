"""What every probe that trains heads by epochs lets its user choose. Imports no torch."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probes.protocol import run_only
from rice.errors import check_ranges

if TYPE_CHECKING:
    from probes.fit import FitConfig


WAIT_PASSIVELY = {"OMP_WAIT_POLICY": "passive"}
"""OpenMP's threads sleep while they wait. Those that spin take the cores from every other process, and from the threads
that load pictures: beside other work the training of heads was 5 to 20 times slower, while sleeping costs a training
that is alone about 13 %."""


def wait_passively() -> None:
    """For this process; to be called before torch is imported. What the user set stays."""
    for name, value in WAIT_PASSIVELY.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How heads are trained; a probe's configuration derives from it and extends `ranges`. VERB: for messages.

    Args:
        epochs: passes over the training data.
        batch: items per step, over all ranks.
        learning_rate: peak of AdamW.
        weight_decay: decoupled.
        warmup: steps of linear warm-up.
        clip: largest gradient norm; none: no clipping.
        evaluate_every: epochs between evaluations on the test split, besides the last; 0: only the last. What is
            reported is always the last epoch: choosing the best one would look at the test.
        amp: compute in bf16 on GPUs; --no-amp: in fp32.
    """

    VERB: ClassVar[str]

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    warmup: int = 0
    clip: float | None = None
    evaluate_every: int = run_only(0)
    amp: bool = True

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        check_ranges(self, self.ranges(), self.VERB)

    def ranges(self) -> dict[str, bool]:
        """Field -> whether its value is one that it may have."""
        return {
            "epochs": self.epochs >= 1,
            "batch": self.batch >= 1,
            "learning_rate": self.learning_rate > 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": self.warmup >= 0,
            "clip": self.clip is None or self.clip > 0,
            "evaluate_every": self.evaluate_every >= 0,
        }

    def evaluation_steps(self, updates: int) -> int:
        """Steps between evaluations of a training of `updates` steps; 0: none before the last."""
        return max(1, round(updates * self.evaluate_every / self.epochs)) if self.evaluate_every else 0

    def schedule(self, updates: int, *, warmup: int, milestones: tuple[float, ...]) -> "FitConfig":
        """In steps, for `probes.fit`."""
        from probes.fit import FitConfig

        return FitConfig(
            updates=updates,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup=warmup,
            milestones=milestones,
            clip=self.clip,
            amp=self.amp,
        )
