"""A trained tracker in one file (`probes.heads`)."""

from dataclasses import dataclass
from pathlib import Path

from probes.heads import Facts, config_from, load_heads
from rice.encoders.base import Encoder
from tracking.config import TrackingConfig
from tracking.tracker import Tracker, build_tracker


@dataclass(frozen=True, kw_only=True)
class TrackerFacts(Facts):
    """`sizes`: of template and search in pixels; `config`: whole; `scores` in percent."""

    KEY, WHAT, VERB = "rice.tracking", "tracker", "rice track train"

    sizes: tuple[int, int]

    def __post_init__(self) -> None:
        """Errors: TypeError, ValueError."""
        _template, _search = map(int, self.sizes)


def load_tracker(path: Path, encoder: Encoder) -> Tracker:
    """On the encoder's device, in evaluation mode. Errors: RiceError; see `Facts.read`, `load_heads`."""
    facts = TrackerFacts.read(path)
    tracker = build_tracker(encoder, config_from(TrackingConfig, facts.config), facts.sizes)
    load_heads(path, tracker.head, facts, encoder)
    return tracker
