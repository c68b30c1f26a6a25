"""What a miniature is made of: sizes, updates, search, probes. Imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from rice.errors import check_ranges

VERB = "rice reproduce mini"


@dataclass(frozen=True, kw_only=True)
class MiniatureConfig:
    """All that decides the numbers.

    Args:
        scenes: Pictures to pretrain on.
        size: Their edge, in pixels.
        updates: Of every arm at equal updates.
        batch: Pictures of an update.
        teacher_scenes: Pictures, of one thing each, that the teacher learns from.
        teacher_updates: Of the CLIP whose features are clustered: it is the pipeline's own, and no arm.
        regions: K of the regions' clusters.
        wholes: K of the whole pictures' clusters.
        seeds: Pretrainings of each arm that a claim names; the oracle, random weights and equal time have one.
        search: Share of the updates that a run of the search has.
        equal_time: Also train mlcd, unicom and clip for as long as rice took.
        world_seed: Of all generated data.
        worlds: Data of the probes.
        probes: As in a sweep's file.
    """

    scenes: int = 5000
    size: int = 96
    updates: int = 800
    batch: int = 64
    teacher_scenes: int = 6000
    teacher_updates: int = 1200
    regions: int = 96
    wholes: int = 96
    seeds: int = 3
    search: float = 0.25
    equal_time: bool = True
    world_seed: int = 0
    worlds: Annotated[dict[str, dict[str, Any]], tyro.conf.Suppress] = field(default_factory=lambda: dict(_WORLDS))
    probes: Annotated[tuple[dict[str, Any], ...], tyro.conf.Suppress] = field(default_factory=lambda: _PROBES)

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        counts = ("scenes", "size", "updates", "batch", "teacher_scenes", "teacher_updates", "regions", "wholes")
        holds = {name: getattr(self, name) >= 1 for name in (*counts, "seeds")} | {"search": 0 < self.search <= 1}
        check_ranges(self, holds, VERB)


_WORLDS: dict[str, dict[str, Any]] = {
    "scenes": {"kind": "scenes", "size": 96, "objects": [2, 4], "train": 600, "test": 200, "easy": True},
    "crops": {"kind": "crops", "size": 96, "train": 480, "test": 240, "easy": True},
    "words": {"kind": "scenes", "layout": "icdar", "size": 192, "objects": [2, 4], "words": [8, 12], "train": 400,
              "test": 100},
    "clips": {"kind": "clips", "layout": "lasot", "size": 128, "objects": [1, 1], "frames": 20, "train": 40,
              "test": 20},
}  # fmt: skip
"""Generated data of the probes: the parts TRAIN and TEST, of which pretraining has nothing."""

_DETECTION: dict[str, Any] = {
    "epochs": 6, "batch": 8, "learning_rate": 0.001, "warmup": 50, "milestones": [], "clip": 1.0, "heads.channels": 32,
    "heads.hidden": 64, "heads.rpn_convs": 1, "heads.box_convs": 1, "heads.mask_convs": 1, "heads.rpn_samples": 64,
    "heads.rpn_top": [128, 64], "heads.proposals": 32, "heads.roi_samples": 32,
}  # fmt: skip
_TRACKING: dict[str, Any] = {
    "epochs": 1, "epoch_pairs": 2160, "batch": 12, "learning_rate": 0.003, "warmup": 10, "drop_at": None, "clip": 1.0,
    "template_size": 40, "template_factor": 1.25, "search_size": 80, "search_factor": 2.5, "centre_jitter": 1.3,
    "least_frames": 8, "least_still": 16.0, "heads.blocks": 1, "heads.channels": 32, "heads.head_dim": 32,
}  # fmt: skip
_PROBES: tuple[dict[str, Any], ...] = (
    {"probe": "dense", "data": ["scenes"], "updates": 600},
    {"probe": "knn", "data": ["crops"], "pool": "mean"},
    {"probe": "text", "data": ["words"], "epochs": 8, "steps": 24},
    {"probe": "detection", "data": ["scenes"], **_DETECTION},
    {"probe": "tracking", "data": ["clips"], **_TRACKING},
)
"""Near those of the sweeps quickstart, text-mini, detection-mini and tracking-mini."""
