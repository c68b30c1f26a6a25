"""What may be set of a clustering. Imports no torch, for the command line."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from rice.errors import check_ranges

_VERB = "rice curate cluster"


@dataclass(frozen=True, kw_only=True)
class KMeansConfig:
    """How centres are found.

    Args:
        clusters: How many, K (the paper: a million).
        cells: Of the first level; 0: half the root of K, at least 1.
        level_steps: Steps on each of the two levels.
        steps: Steps among all clusters.
        overshoot: How far a step goes, over Lloyd's own; 1 to 2.
        momentum: Share of the step before that is added to each. An overshoot of 1 without momentum is Lloyd's.
    """

    clusters: Annotated[int, tyro.conf.arg(aliases=["-k"])]
    cells: int = 0
    level_steps: int = 8
    steps: int = 6
    overshoot: float = 1.9
    momentum: float = 0.4

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {
            "clusters": self.clusters >= 1,
            "cells": 0 <= self.cells <= self.clusters,
            "level_steps": self.level_steps >= 1,
            "steps": self.steps >= 0,
            "overshoot": 1 <= self.overshoot < 2,
            "momentum": 0 <= self.momentum < 1,
        }
        check_ranges(self, holds, _VERB)

    def pace(self, step: int, steps: int) -> tuple[float, float]:
        """Overshoot and momentum of step `step` of `steps`: the last one is Lloyd's."""
        return (1.0, 0.0) if step + 1 == steps else (self.overshoot, self.momentum)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What centres are learnt from.

    Args:
        sample: Rows for each cluster, drawn from all; all rows where there are fewer.
        seed: Of the drawing, and of which rows the first centres are.
        raw: Compare features as they are; else each is divided by its length.
        backend: ours, or faiss: flat k-means of faiss, 25 iterations, in one process.
    """

    sample: int = 256
    seed: int = 0
    raw: bool = False
    backend: Literal["ours", "faiss"] = "ours"

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {"sample": self.sample >= 1, "seed": self.seed >= 0, "backend": self.backend in ("ours", "faiss")}
        check_ranges(self, holds, _VERB)
