"""Which pictures train, validate and test, and what each token of a training picture should predict.

Shapes: N pictures, T tokens of a picture, C classes (0 = background), H W pixels of a picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.cache import FrozenFeatures, open_features
from probes.coco import by_hash
from probes.dense.model import TokenGrid, token_source
from probes.images import load_each
from rice.data.coco import IGNORE, CocoSplit
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.files import atomic_write
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.dense.probe import DenseConfig

_MIN_IMAGES = 2


@dataclass(frozen=True)
class Parts:
    """Indices into the training split's images: `pool` holds both parts, which are positions in it."""

    pool: tuple[int, ...]
    validation: NDArray[np.int64]
    fit: NDArray[np.int64]


def divide(split: CocoSplit, *, limit: int | None, validation_fraction: float) -> Parts:
    """The first `limit` images in the order of a hash of their ids; the first share of these validates, for every seed.

    So a smaller limit is a subset of a larger one, and neither depends on the order of the file.
    """
    pool = tuple(by_hash(split, limit))
    if len(pool) < _MIN_IMAGES:
        raise RiceError(f"{split.files.annotations}: expected at least {_MIN_IMAGES} images, got {len(pool)}")
    cut = min(max(1, math.ceil(validation_fraction * len(pool))), len(pool) - 1)
    return Parts(pool, np.arange(cut), np.arange(cut, len(pool)))


def subsample(fit: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """The part of `fit` that one seed trains on, in ascending order; never empty."""
    count = max(1, round(fraction * len(fit)))
    chosen: NDArray[np.int64] = np.sort(np.random.default_rng(seed).choice(fit, count, replace=False))
    return chosen


@dataclass(frozen=True)
class CellTargets:
    """Pixels of each class inside each token's cell, for a list of pictures: the target of the linear head.

    With nearest upsampling every pixel of a cell has the cell's logits z, so the per-pixel cross entropy is
        sum_p -log softmax(z)[y_p] = -sum_c n_c log softmax(z)[c],
    n_c the cell's pixels of class c: its value and its gradient n softmax(z) - n_c are those of a cross entropy with
    the histogram as soft target and n = sum_c n_c, the valid pixels, as weight. Nothing is approximated, and no
    upsampled logits are ever made. Ignored pixels are in no histogram.

    Held sparse (a cell seldom has more than two classes): picture i has entries `offsets[i]:offsets[i + 1]` of `index`
    (cell * C + class) and `pixels`. `areas` are the pictures' H W.
    """

    cells: int
    classes: int
    offsets: NDArray[np.int64]
    index: NDArray[np.int64]
    pixels: NDArray[np.int64]
    areas: NDArray[np.int64]

    def counts(self, items: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Pixels (B, T, C) float32 of these pictures."""
        dense = np.zeros((len(items), self.cells * self.classes), np.float32)
        for row, item in enumerate(items):
            entries = slice(self.offsets[item], self.offsets[item + 1])
            dense[row, self.index[entries]] = self.pixels[entries]
        return torch.from_numpy(dense).view(len(items), self.cells, self.classes)

    def weights(self, items: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """`counts` as shares of the picture: pictures weigh the same, whatever their resolution."""
        areas = torch.from_numpy(self.areas[np.asarray(items)]).float()
        return self.counts(items) / areas[:, None, None]

    def shares(self, items: NDArray[np.int64]) -> Tensor:
        """Share of each class in the valid pixels of these pictures, each weighing the same, (C,) float64."""
        total_C = np.zeros(self.classes)
        for item in items:
            entries = slice(self.offsets[item], self.offsets[item + 1])
            np.add.at(total_C, self.index[entries] % self.classes, self.pixels[entries] / self.areas[item])
        return torch.from_numpy(total_C / max(total_C.sum(), np.finfo(float).tiny))

    def save(self, path: Path) -> None:
        """Write atomically."""
        with atomic_write(path, "wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "CellTargets":
        """Read what `save` wrote."""
        with np.load(path) as stored:
            values = {name: stored[name] for name in stored.files}
        return cls(**values | {"cells": int(values["cells"]), "classes": int(values["classes"])})


def cell_histogram(classes_HW: NDArray[np.uint16], grid: TokenGrid, classes: int) -> NDArray[np.int64]:
    """Pixels of each class in each cell of the grid, (T * C,), without the ignored ones."""
    height, width = classes_HW.shape
    cell_HW = grid.cells(height)[:, None] * grid.tokens + grid.cells(width)[None, :]
    valid_HW = classes_HW != IGNORE
    flat = cell_HW[valid_HW] * classes + classes_HW[valid_HW]
    return np.bincount(flat, minlength=grid.tokens**2 * classes)


def cell_targets(
    split: CocoSplit, images: Sequence[int], grid: TokenGrid, path: Path, progress: Progress
) -> CellTargets:
    """The targets of these images, from `path` where an earlier seed left them there."""
    if not path.exists():
        _count(split, images, grid, progress).save(path)
    return CellTargets.load(path)


def _count(split: CocoSplit, images: Sequence[int], grid: TokenGrid, progress: Progress) -> CellTargets:
    classes = len(split.categories) + 1

    def load(index: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        classes_HW = split.semantic_map(index)
        histogram = cell_histogram(classes_HW, grid, classes)
        (entries,) = np.nonzero(histogram)
        return entries, histogram[entries], classes_HW.size

    parts = list(progress.track(load_each(load, images), f"{split.name}: masks to token targets", len(images)))
    offsets = np.cumsum([0, *(len(entries) for entries, _, _ in parts)])
    return CellTargets(
        grid.tokens**2,
        classes,
        offsets.astype(np.int64),
        np.concatenate([entries for entries, _, _ in parts]),
        np.concatenate([pixels for _, pixels, _ in parts]),
        np.array([area for _, _, area in parts], np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class Material:
    """What all seeds of one encoder, dataset and config share. `folder` holds it, and nothing else's."""

    parts: Parts
    grid: TokenGrid
    train: FrozenFeatures
    test: FrozenFeatures
    targets: CellTargets
    device: torch.device
    folder: Path


def prepare(
    encoder: Encoder,
    train: CocoSplit,
    test: CocoSplit,
    size: int,
    config: "DenseConfig",
    key: str,
    folder: Path,
    progress: Progress,
) -> Material:
    """Features and targets, from `folder` where an earlier seed or an interrupted run left them.

    The train features, read in every epoch, come first where the disk budget does not hold both. `key` identifies
    encoder, data and configuration.
    """
    grid = TokenGrid.of(encoder.spec, size)
    parts = divide(train, limit=config.train_images, validation_fraction=config.validation_fraction)
    budget = config.cache_gb * 1e9
    features = []
    for name, split, images in (("train", train, parts.pool), ("test", test, range(len(test.images)))):
        source = token_source(encoder, key, split, images, grid)
        label = f"{split.name}: {len(images)} images"
        features.append(open_features(source, folder / name, budget_bytes=budget, progress=progress, label=label))
        budget -= source.nbytes if source.nbytes <= budget else 0
    targets = cell_targets(train, parts.pool, grid, folder / "targets.npz", progress)
    return Material(
        parts=parts,
        grid=grid,
        train=features[0],
        test=features[1],
        targets=targets,
        device=encoder.device,
        folder=folder,
    )
