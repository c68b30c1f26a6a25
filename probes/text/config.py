"""What the text probe computes. Imports no torch."""

from dataclasses import dataclass

from probes.protocol import run_only
from probes.training_config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class TextConfig(TrainingConfig):
    """What the text probe computes: a small recogniser with CTC, trained on words, the last step judged.

    Args:
        epochs: passes over the training words.
        batch: words per step.
        guided: share of the training during which letters evenly spread over the steps guide it, ever less; without
            them CTC answers with blanks for long before it spells.
        steps: places from left to right at which a letter or none is read; a word needs one for each of its letters,
            and one more between two equal ones.
        rows: the token grid is resampled to rows x steps.
        channels: what is kept of a token.
        hidden: width of the convolutions along the word.
        cache_gb: disk for frozen features, in GB; what does not fit is recomputed in every epoch.
    """

    VERB = "rice sweep"

    epochs: int = 16
    batch: int = 32
    learning_rate: float = 1e-2
    weight_decay: float = 0.05
    warmup: int = 50
    clip: float | None = 1.0
    guided: float = 0.6
    steps: int = 32
    rows: int = 8
    channels: int = 48
    hidden: int = 96
    cache_gb: float = run_only(40.0)

    def ranges(self) -> dict[str, bool]:
        """See `TrainingConfig`."""
        positive = {name: getattr(self, name) >= 1 for name in ("steps", "rows", "channels", "hidden")}
        return super().ranges() | positive | {"guided": 0 <= self.guided <= 1, "cache_gb": self.cache_gb >= 0}
