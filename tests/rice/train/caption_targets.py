"""What the ranks of test_captions.py do: the runs of loop_targets.py, on its pictures with captions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import loop_targets
import numpy as np
from loop_targets import CLASSES, SAMPLES, TOKENS, sample

from rice.data.shards import DatasetInfo, write_dataset, write_shard
from rice.train.config import OptimiserConfig, TextConfig, TrainConfig

train, curve, lines = loop_targets.train, loop_targets.curve, loop_targets.lines

TEXT = TextConfig(width=16, layers=2, heads=2, context=8)


def write_shards(folder: Path, uncaptioned: int = 3) -> Path:
    """SAMPLES pictures in two shards, with one or two captions each; one picture in `uncaptioned` has none."""
    folder.mkdir()
    shards = []
    for number, half in enumerate(np.array_split(np.arange(SAMPLES), 2)):
        samples = [
            replace(
                sample(i), captions=[] if i % uncaptioned == 1 else [f"photo {i}", f"{i} is its number"][: 1 + i % 2]
            )
            for i in half.tolist()
        ]
        shards.append(write_shard(folder, f"test-{number:06d}", samples))
    write_dataset(folder, DatasetInfo(object_classes=CLASSES, ocr_classes=TOKENS, shards=tuple(shards)))
    return folder


def config(**changes: Any) -> TrainConfig:
    """The rate is small: the scale of 14 at which CLIP begins makes much of another order of summation."""
    rate = OptimiserConfig(learning_rate=1e-4, clip=0.5)
    return loop_targets.config(**{"target": "captions", "text": TEXT, "optimiser": rate} | changes)
