"""A trained recogniser in one file (`probes.heads`)."""

from dataclasses import dataclass
from pathlib import Path

from probes.heads import Facts, config_from, load_heads
from probes.text.config import TextConfig
from probes.text.model import Recogniser
from rice.encoders.base import Encoder


@dataclass(frozen=True, kw_only=True)
class RecogniserFacts(Facts):
    """`grid`: tokens, (h, w); `scores` in fractions."""

    KEY, WHAT, VERB = "rice.text", "recogniser", "rice sweep"

    grid: tuple[int, int]
    alphabet: str


def load_recogniser(path: Path, encoder: Encoder) -> Recogniser:
    """The recogniser on the encoder's device, in evaluation mode. Errors: RiceError; see `Facts.read`, `load_heads`."""
    facts = RecogniserFacts.read(path)
    head = Recogniser(config_from(TextConfig, facts.config), width=facts.width, grid=facts.grid)
    load_heads(path, head, facts, encoder)
    return head
