"""A trained tracker in one file: its head, and what is needed to use it. The encoder's weights are not in it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from probes.heads import check_tower, load_heads, read_header, save_heads
from rice.encoders.base import Encoder
from rice.errors import RiceError
from tracking.config import HeadsConfig, TrackingConfig
from tracking.model import build_head, grids
from tracking.tracker import Tracker

_KEY = "rice.tracking"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a tracker was trained with. `encoder`: as written; `fingerprint`: of its weights; `sizes`: of template and
    search in pixels; `config`: of the training, whole; `done`, `updates`: steps; `scores`: of the test sets, in
    percent, where they were judged."""

    encoder: str
    weights: str | None
    fingerprint: str
    patch: int
    width: int
    sizes: tuple[int, int]
    config: dict[str, Any]
    seed: int
    done: int
    updates: int
    scores: dict[str, float]
    versions: dict[str, str | None]


def save_tracker(path: Path, tracker: Tracker, facts: Facts) -> None:
    """Write atomically."""
    save_heads(path, tracker.head, _KEY, dataclasses.asdict(facts))


def read_facts(path: Path) -> Facts:
    """What stands in a tracker's file. Errors: RiceError for a file that is missing, damaged or no tracker."""
    try:
        stored = read_header(path, _KEY)
        template, search = map(int, stored["sizes"])
        return Facts(**{**stored, "sizes": (template, search)})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RiceError(
            f"expected a tracker at {path} (best.safetensors or last.safetensors of rice track train): {error}"
        ) from error


def load_tracker(path: Path, encoder: Encoder) -> Tracker:
    """On the encoder's device, in evaluation mode. Errors: RiceError, as `read_facts`; another encoder."""
    facts = read_facts(path)
    check_tower(path, encoder, patch=facts.patch, width=facts.width)
    config = config_of(facts)
    template, search = grids(facts.sizes, facts.patch)
    head = build_head(config.heads, width=facts.width, template=template, search=search)
    load_heads(path, head, "head")
    return Tracker(encoder, head.to(encoder.device).eval(), facts.sizes, config)


def config_of(facts: Facts) -> TrackingConfig:
    """The training's configuration. Errors: RiceError where another version wrote other fields."""
    try:
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in facts.config.items()}
        return TrackingConfig(**(fields | {"heads": HeadsConfig(**facts.config["heads"])}))
    except (TypeError, KeyError) as error:
        raise RiceError(f"the tracker was written by another version of rice-suite: {error}") from error
