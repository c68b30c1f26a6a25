"""A trained detector in one file: its heads, and what is needed to use them. The encoder's weights are not in it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from probes.detection.config import HeadsConfig
from probes.detection.model import Detector, build_detector
from probes.heads import check_tower, load_heads, read_header, save_heads
from rice.encoders.base import Encoder
from rice.errors import RiceError

_KEY = "rice.detection"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a detector was trained with. `encoder`: as written, e.g. `rice-b16-512@256`; `fingerprint`: of its weights;
    `size`: input edge in pixels; `categories`: (id, name) in the order of the labels; `image_counts`: of the federated
    loss, None for softmax; `config`: of the training; `done`, `updates`: steps; `scores`: of the test split, in
    fractions, where it was judged."""

    encoder: str
    weights: str | None
    fingerprint: str
    size: int
    patch: int
    width: int
    categories: tuple[tuple[int, str], ...]
    image_counts: tuple[int, ...] | None
    masks: bool
    heads: dict[str, Any]
    config: dict[str, Any]
    seed: int
    done: int
    updates: int
    scores: dict[str, float]
    versions: dict[str, str | None]


def save_detector(path: Path, detector: Detector, facts: Facts) -> None:
    """Write atomically."""
    save_heads(path, detector, _KEY, dataclasses.asdict(facts))


def read_facts(path: Path) -> Facts:
    """What stands in a detector's file. Errors: RiceError for a file that is missing, damaged or no detector."""
    try:
        stored = read_header(path, _KEY)
        stored["categories"] = tuple(map(tuple, stored["categories"]))
        stored["image_counts"] = None if stored["image_counts"] is None else tuple(stored["image_counts"])
        return Facts(**stored)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RiceError(
            f"expected a detector at {path} (best.safetensors or last.safetensors of rice detect train): {error}"
        ) from error


def load_detector(path: Path, encoder: Encoder) -> Detector:
    """The detector on the encoder's device, in evaluation mode. Errors: RiceError, as `read_facts`; another encoder."""
    facts = read_facts(path)
    check_tower(path, encoder, patch=facts.patch, width=facts.width)
    detector = build_detector(
        heads_of(facts),
        patch=facts.patch,
        width=facts.width,
        classes=len(facts.categories),
        image_counts=facts.image_counts,
        masks=facts.masks,
    )
    load_heads(path, detector, "heads")
    return detector.to(encoder.device).eval()


def heads_of(facts: Facts) -> HeadsConfig:
    """The detector's configuration. Errors: RiceError where another version wrote other fields."""
    try:
        return HeadsConfig(**{name: _tuples(value) for name, value in facts.heads.items()})
    except TypeError as error:
        raise RiceError(f"the detector was written by another version of rice-suite: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
