"""A trained tracker in one file: its head, and what is needed to use it. The encoder's weights are not in it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.files import atomic_write
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
    tensors = {name: value.detach().cpu().contiguous() for name, value in tracker.head.state_dict().items()}
    with atomic_write(path, "wb") as file:
        file.write(save(tensors, metadata={_KEY: json.dumps(dataclasses.asdict(facts))}))


def read_facts(path: Path) -> Facts:
    """What stands in a tracker's file. Errors: RiceError for a file that is missing, damaged or no tracker."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {})[_KEY])
        template, search = map(int, stored["sizes"])
        return Facts(**{**stored, "sizes": (template, search)})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RiceError(
            f"expected a tracker at {path} (best.safetensors or last.safetensors of rice track train): {error}"
        ) from error


def load_tracker(path: Path, encoder: Encoder) -> Tracker:
    """On the encoder's device, in evaluation mode. Errors: RiceError, as `read_facts`; another encoder."""
    facts, spec = read_facts(path), encoder.spec
    if (spec.patch, spec.width) != (facts.patch, facts.width):
        raise RiceError(
            f"{path} was trained on an encoder of patch {facts.patch} and width {facts.width}, {spec.name} has "
            f"{spec.patch} and {spec.width}"
        )
    config = config_of(facts)
    template, search = grids(facts.sizes, facts.patch)
    head = build_head(config.heads, width=facts.width, template=template, search=search)
    try:
        with safe_open(path, framework="pt") as file:
            head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise RiceError(f"{path} does not hold the head that it describes: {said}") from error
    return Tracker(encoder, head.to(encoder.device).eval(), facts.sizes, config)


def config_of(facts: Facts) -> TrackingConfig:
    """The training's configuration. Errors: RiceError where another version wrote other fields."""
    try:
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in facts.config.items()}
        return TrackingConfig(**(fields | {"heads": HeadsConfig(**facts.config["heads"])}))
    except (TypeError, KeyError) as error:
        raise RiceError(f"the tracker was written by another version of rice-suite: {error}") from error
