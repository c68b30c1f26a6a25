"""What may be set of a clustering. Imports no torch, for the command line."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from rice.device import AUTO
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


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where stages run.

    Args:
        engine: local: on this machine. ray: on a Ray cluster (rice-suite[ray]) whose machines all see OUT.
        workers: At a time; each has one core, or one GPU. 0: all there are.
        device: auto, cpu or cuda.
    """

    engine: Literal["local", "ray"] = "local"
    workers: int = 0
    device: str = AUTO

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        check_ranges(self, {"workers": self.workers >= 0, "engine": self.engine in ("local", "ray")}, "rice curate")


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Which pictures are taken.

    Args:
        min_edge: Pixels that both edges of a picture must have (the paper: 336).
        most_pixels: Pictures with more are left out undecoded: they may be decompression bombs.
    """

    min_edge: int = 336
    most_pixels: int = 178_956_970

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {"min_edge": self.min_edge >= 1, "most_pixels": 1 <= self.most_pixels <= 178_956_970}
        check_ranges(self, holds, "rice curate")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What the clusters are of.

    Args:
        encoder: Any of `rice encoders`, or rice:DIR, hf:..., open_clip:..., timm:...; the paper takes CLIP's. NAME@SIZE
            picks the size of its input. mini-s8-128 comes with the package.
        weights: default: the published ones; none: random ones; or a path.
        pool: crops: every region is seen by itself, as a square. roi_align: the whole picture is seen once, and a
            region is the mean of its patches. layers: the same by RICE's trained region layers (rice:DIR).
        batch: Crops that are embedded at once.
        dtype: That crops are embedded in. bfloat16 is many times as fast on a GPU, and slow on most CPUs.
    """

    encoder: str = "clip-l14-336"
    weights: str = "default"
    pool: Literal["crops", "roi_align", "layers"] = "crops"
    batch: int = 32
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        holds = {
            "batch": self.batch >= 1,
            "pool": self.pool in ("crops", "roi_align", "layers"),
            "dtype": self.dtype == "float32" or (self.dtype == "bfloat16" and self.pool == "crops"),
        }
        check_ranges(self, holds, "rice curate embed")
