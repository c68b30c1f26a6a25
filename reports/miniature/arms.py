"""The arms: what each learns from, as commands of `rice train`. Imports nothing heavy.

All train the tower `micro8` on the same pictures, for as many updates of as many pictures, with the same crops.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reports.miniature.scores import Trained
from reports.miniature.settings import MiniatureConfig

Flags = Mapping[str, str]


@dataclass(frozen=True)
class Arm:
    """A way to learn. data: which of the miniature's data sets; flags: of rice train, beside the shared ones;
    candidates: settings that the search chooses from, as many for each arm."""

    name: str
    data: str
    flags: Flags
    candidates: tuple[Flags, ...]


PACKED, CURATED, WHOLE = "packed", "curated/shards", "whole/shards"
"""Folders of shards: annotated boxes and captions; proposed regions and text; image-level labels."""

_RATES = ("0.001", "0.002")
_LOSSES = (("64", "0.3"), ("16", "0.1"))
"""Scale and margin: the paper's, and what suits few classes and short training."""
_CLUSTERS: tuple[Flags, ...] = tuple(
    {"optimiser.learning-rate": rate, "loss.scale": scale, "loss.margin": margin}
    for rate in _RATES
    for scale, margin in _LOSSES
)
_CAPTIONS: tuple[Flags, ...] = tuple({"optimiser.learning-rate": r} for r in ("0.0005", "0.001", "0.002", "0.004"))
_IMAGE = {"target": "image"}

ARMS = (
    Arm("rice", CURATED, {}, _CLUSTERS),
    Arm("rice-noocr", CURATED, {"ocr-weight": "0"}, _CLUSTERS),
    Arm("mlcd", WHOLE, {**_IMAGE, "stream.image-positives": "8"}, _CLUSTERS),
    Arm("unicom", WHOLE, {**_IMAGE, "stream.image-positives": "1"}, _CLUSTERS),
    Arm("clip", PACKED, {"target": "captions"}, _CAPTIONS),
    Arm("oracle", PACKED, {}, _CLUSTERS),
)
TEACHER = Arm("teacher", "teacher-packed", {"target": "captions", "stream.crop-scale": "0.6 1.0"}, ())
"""The CLIP whose features are clustered."""


def command(
    arm: Arm, chosen: Flags, config: MiniatureConfig, root: Path, out: Path, *, updates: int, seed: int
) -> list[str]:
    """Arguments of `rice` that train an arm."""
    own: dict[str, str] = {
        "samples": str(updates * config.batch),
        "batch": str(config.batch),
        "seed": str(seed),
        "machine.log-every": "10",
        "machine.save-every": str(max(1, updates // 4)),
        "machine.keep": "1",
    }
    flags = {**own, **arm.flags, **chosen}
    words = [part for name, value in flags.items() for part in (f"--{name}", *value.split())]
    return ["train", "micro", "--data", str(root / arm.data), "--out", str(out), *words]


def folder(trained: Trained) -> str:
    """The run's, below OUT/runs."""
    return trained.name.replace(" ", "-")
