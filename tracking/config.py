"""What the tracking probe computes. Imports no torch."""

from dataclasses import dataclass, field

from probes.protocol import run_only
from probes.training_config import TrainingConfig
from rice.encoders.spec import EncoderSpec
from rice.errors import check_ranges


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """What learns: ViT blocks over template and search tokens (section 4.4), then OSTrack's CENTER head.

    Args:
        blocks: standard ViT blocks, as wide as the encoder.
        head_dim: channels of an attention head (fewer where the width does not divide).
        channels: width of the first convolution of each branch; it halves three times.
        positions: add fixed sine and cosine positions to the tokens of template and search; --heads.no-positions: none.
    """

    blocks: int = 2
    head_dim: int = 64
    channels: int = 256
    positions: bool = True

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        holds = {
            "blocks": self.blocks >= 1,
            "head_dim": self.head_dim >= 1,
            "channels": self.channels >= 8 and self.channels % 8 == 0,
        }
        check_ranges(self, holds, TrackingConfig.VERB)


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(TrainingConfig):
    """What the tracking probe computes; the defaults are OSTrack's, with the paper's schedule for GOT-10k.

    Args:
        epochs: passes of `epoch_pairs` pairs (the paper: 100 on GOT-10k, 300 on all four training sets).
        epoch_pairs: pairs of template and search in an epoch.
        learning_rate: of AdamW, until `drop_at`.
        warmup: steps of linear warm-up (OSTrack has none).
        drop_at: share of the training after which the rate is a tenth; none: a cosine to zero.
        template_size: edge of the template in pixels, rounded to what the encoder takes.
        search_size: edge of the search region in pixels, likewise.
        template_factor: edge of the template's window, in square roots of the target's area.
        search_factor: edge of the search window, likewise.
        centre_jitter: of the search window in training, in square roots of the target's area.
        scale_jitter: standard deviation of the logarithm of the search window's width and height.
        max_gap: the search is fewer frames than this after the template.
        least_frames: shorter training clips are left out.
        least_still: still pictures' boxes of which a side is not longer are left out, in pixels.
        gray: probability that a pair is shown without colour.
        flip: probability that a picture of a pair is mirrored, each by itself, as OSTrack does.
        brightness: largest relative change, each picture by itself.
        train: benchmarks below the data root to learn from, with equal shares; empty: the root's own.
        test: benchmarks below it to be judged on; empty: the root's own.
        train_sequences: most clips (or still pictures) of each training set, the first by a hash of their names.
        test_sequences: most clips of each test set, likewise.
        margin: pixels that a box keeps inside the frame.
        at_once: clips that are followed together. The numbers are the same to rounding.
        heads: what learns.
    """

    VERB = "rice track train"

    epochs: int = 100
    epoch_pairs: int = 60_000
    batch: int = 128
    learning_rate: float = 4e-4
    weight_decay: float = 1e-4
    drop_at: float | None = 0.8
    clip: float | None = 0.1
    template_size: int = 128
    search_size: int = 256
    template_factor: float = 2.0
    search_factor: float = 4.0
    centre_jitter: float = 3.0
    scale_jitter: float = 0.25
    max_gap: int = 200
    least_frames: int = 20
    least_still: float = 50.0
    gray: float = 0.05
    flip: float = 0.5
    brightness: float = 0.2
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    train_sequences: int | None = None
    test_sequences: int | None = None
    margin: float = 10.0
    at_once: int = run_only(16)
    heads: HeadsConfig = field(default_factory=HeadsConfig)

    def ranges(self) -> dict[str, bool]:
        """See `TrainingConfig`."""
        return super().ranges() | {
            "drop_at": self.drop_at is None or 0 < self.drop_at < 1,
            "template_size": 1 <= self.template_size <= self.search_size,
            "search_size": self.search_size <= 4096,
            "template_factor": 1 <= self.template_factor <= 16,
            "search_factor": 1 <= self.search_factor <= 16,
            "centre_jitter": 0 <= self.centre_jitter <= self.search_factor,
            "scale_jitter": 0 <= self.scale_jitter <= 1,
            "max_gap": self.max_gap >= 1,
            "least_frames": self.least_frames >= 2,
            "least_still": self.least_still >= 0,
            "gray": 0 <= self.gray <= 1,
            "flip": 0 <= self.flip <= 1,
            "brightness": 0 <= self.brightness < 1,
            "train_sequences": self.train_sequences is None or self.train_sequences >= 1,
            "test_sequences": self.test_sequences is None or self.test_sequences >= 1,
            "margin": self.margin >= 1,
            "at_once": self.at_once >= 1,
        }

    @property
    def updates(self) -> int:
        """Optimiser steps of the whole training."""
        return max(1, self.epochs * self.epoch_pairs // self.batch)

    def sizes(self, spec: EncoderSpec) -> tuple[int, int]:
        """Edges of template and search in pixels for an encoder, rounded to the nearest multiple that it takes: 126 and
        252 for patch 14."""
        return _nearest(self.template_size, spec.size_multiple), _nearest(self.search_size, spec.size_multiple)


def _nearest(size: int, multiple: int) -> int:
    return max(1, round(size / multiple)) * multiple
