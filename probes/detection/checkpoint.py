"""A trained detector in one file (`probes.heads`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.detection.config import HeadsConfig
from probes.detection.model import Detector, build_detector
from probes.heads import Facts, config_from, load_heads
from rice.encoders.base import Encoder


@dataclass(frozen=True, kw_only=True)
class DetectorFacts(Facts):
    """`size`: input edge in pixels; `categories`: (id, name) in the order of the labels; `image_counts`: of the
    federated loss, None for softmax; `scores` in fractions."""

    KEY, WHAT, VERB = "rice.detection", "detector", "rice detect train"

    size: int
    categories: tuple[tuple[int, str], ...]
    image_counts: tuple[int, ...] | None
    masks: bool
    heads: dict[str, Any]

    def __post_init__(self) -> None:
        """Errors: ValueError."""
        if not self.categories:
            raise ValueError("no categories")


def load_detector(path: Path, encoder: Encoder) -> Detector:
    """The detector on the encoder's device, in evaluation mode. Errors: RiceError; see `Facts.read`, `load_heads`."""
    facts = DetectorFacts.read(path)
    detector = build_detector(
        config_from(HeadsConfig, facts.heads),
        patch=facts.patch,
        width=facts.width,
        classes=len(facts.categories),
        image_counts=facts.image_counts,
        masks=facts.masks,
    )
    load_heads(path, detector, facts, encoder)
    return detector
