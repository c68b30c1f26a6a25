"""Generated scenes and a detector so small that a training takes a second or two."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.detection.config import DetectionConfig, HeadsConfig
from rice.data.world import WorldConfig, materialise

ENCODER = "mini-s8-128@64"

HEADS = HeadsConfig(
    channels=8,
    hidden=16,
    rpn_convs=1,
    box_convs=1,
    mask_convs=1,
    rpn_samples=32,
    rpn_top=(60, 40),
    proposals=20,
    roi_samples=16,
)
CONFIG = DetectionConfig(epochs=2, batch=4, learning_rate=1e-3, warmup=2, milestones=(), heads=HEADS)

FLAGS = ["--batch=4", "--epochs=2", "--warmup=2", "--milestones", "--learning-rate=0.001"]
FLAGS += [f"--heads.{name.replace('_', '-')}={getattr(HEADS, name)}" for name in ("channels", "hidden", "proposals")]
FLAGS += [f"--heads.{n}=1" for n in ("rpn-convs", "box-convs", "mask-convs")]
FLAGS += ["--heads.rpn-samples=32", "--heads.roi-samples=16", "--heads.rpn-top", "60", "40"]


def world(folder: Path, **settings: Any) -> Path:
    """A few scenes of 64 pixels under `folder`."""
    return materialise(WorldConfig(**{"size": 64, "train": 12, "test": 6} | settings), folder)


def edited(root: Path, split: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the annotations of one split."""
    path = root / "annotations" / f"instances_{split}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return root


def config(**changes: Any) -> DetectionConfig:
    """CONFIG with other fields."""
    return dataclasses.replace(CONFIG, **changes)
