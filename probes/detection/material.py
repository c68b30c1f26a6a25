"""Training and test pictures as frozen tokens, and what is to be found in them.

Shapes: G truth instances, S edge of the encoder's square, h w its grid, D its width, B pictures.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.cache import FeatureSource, FrozenFeatures, Item, encoder_key, open_features
from probes.coco import by_hash
from probes.detection.config import DetectionConfig
from probes.detection.data import Sample, TrainingSet, samples, training_set
from probes.detection.model import Target
from probes.detection.pyramid import normalise_tokens
from probes.detection.views import View, to_square
from probes.fit import autocast
from probes.images import load_ahead
from rice.data.coco import CocoSplit
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.files import format_bytes, sha256_json
from rice.progress import Progress

_FORM = "detection tokens"


class Canvas(NamedTuple):
    """The encoder's square: its edge in pixels, the part of it that tokens cover, and its grid (h, w).

    SigLIP's 384 pixels at patch 14 have 27 x 27 tokens on 378 of them: pictures lie within those.
    """

    edge: int
    covered: int
    grid: tuple[int, int]

    @classmethod
    def of(cls, encoder: Encoder, size: int) -> "Canvas":
        """For square input of `size` pixels. Errors: RiceError where the encoder cannot take it."""
        grid = encoder.spec.check_size(size, size)
        return cls(size, grid[0] * encoder.spec.patch, grid)


Placed = tuple[int, View]
"""The position of a training picture, and how it is shown."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The pictures that are judged: `images` are indices into the split. Item k of `features`, and `draw(k)` before
    the encoder, (3, S, S), is image `images[k]`."""

    encoder: Encoder
    canvas: Canvas
    split: CocoSplit
    images: tuple[int, ...]
    draw: Callable[[int], Tensor]
    features: FrozenFeatures

    def view(self, index: int) -> View:
        """How image `index` of the split is shown: whole."""
        return _whole(self.split, index, self.canvas)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What one cell's seeds share. `cached`: features of all views of the training pictures, None where they are
    computed as they are needed."""

    encoder: Encoder
    canvas: Canvas
    train: TrainingSet
    test: HeldOut
    config: DetectionConfig
    cached: FrozenFeatures | None

    def view(self, sample: Sample, seed: int) -> View:
        """How a training sample is shown: a function of the seed and the sample alone."""
        record = self.train.split.images[self.train.images[sample.position]]
        dice = np.random.default_rng((seed, sample.number, 1))
        config, edge = self.config, self.canvas.covered
        return View.random(record.width, record.height, edge, jitter=config.jitter, flip=config.flip, dice=dice)

    def target(self, position: int, view: View) -> Target:
        """Boxes and masks of a training picture as it is shown. Instances that are not visible are left out."""
        split = self.train.split
        instances = self.train.instances[position]
        boxes_G4 = view.boxes(np.array([a.box for a in instances], np.float64).reshape(-1, 4))
        width, height = view.shown
        masks = None
        if self.train.masks:
            masks = np.zeros((len(instances), self.canvas.edge, self.canvas.edge), np.bool_)
            for row, annotation in enumerate(instances):
                masks[row, :height, :width] = view.mask(split.mask(annotation))
            if view.crops:  # what a cut leaves of an object can be smaller than what it leaves of its box
                boxes_G4 = np.array([_bounds(mask) for mask in masks], np.float64).reshape(-1, 4)
        boxes_G4 = boxes_G4.astype(np.float32)  # a side may vanish in single precision
        kept = (boxes_G4[:, 2] > boxes_G4[:, 0]) & (boxes_G4[:, 3] > boxes_G4[:, 1])
        if masks is not None:
            kept &= masks.any(axis=(1, 2))
        labels = np.array([a.category for a in instances], np.int64)
        return Target(
            torch.from_numpy(boxes_G4[kept]),
            torch.from_numpy(labels[kept]),
            None if masks is None else torch.from_numpy(masks[kept]),
            (height, width),
        )

    def batches(self, seed: int, start: int, rank: int, ranks: int) -> Iterator[tuple[Tensor, list[Target]]]:
        """Normalised tokens (B, D, h, w) and targets of this rank's share of step `start` and all that follow."""
        steps = (step[rank::ranks] for step in samples(self.train.repeats, self.config.batch, seed, start))
        shown = ([(s.position, self.view(s, seed)) for s in step] for step in steps)
        first, second = tee(shown)
        targets = load_ahead(lambda placed: self.target(*placed), second)
        yield from zip(self._features(first), targets, strict=False)

    def _features(self, shown: Iterator[list[Placed]]) -> Iterator[Tensor]:
        if self.cached is not None:
            twice = 2 if self.config.flip else 1
            stream = self.cached.stream([twice * position + view.flip for position, view in step] for step in shown)
        else:
            source: FeatureSource[Placed] = token_source(
                self.encoder, self.canvas, lambda placed: self._draw(*placed), amp=self.config.amp
            )
            stream = source.stream(shown)
        return (as_tokens(features) for features in stream)

    def _draw(self, position: int, view: View) -> Tensor:
        return _draw(self.train.split, self.train.images[position], view, self.encoder, self.canvas)


def _bounds(mask_SS: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask_SS.any(1)), np.flatnonzero(mask_SS.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def token_source(
    encoder: Encoder, canvas: Canvas, load: Callable[[Item], Tensor], *, amp: bool, count: int = 1, key: str = ""
) -> FeatureSource[Item]:
    """Pictures (3, S, S) as normalised tokens (h, w, D), fp16: so cached or not, the heads see the same numbers."""

    def extract(images_B3SS: Tensor) -> Tensor:
        with autocast(encoder.device, amp):
            patches_BDhw = encoder(images_B3SS).patches
        return normalise_tokens(patches_BDhw).permute(0, 2, 3, 1)

    return FeatureSource(
        load=load, extract=extract, count=count, shape=(*canvas.grid, encoder.spec.width), key=key, dtype=torch.float16
    )


def as_tokens(features_BhwD: Tensor) -> Tensor:
    """What the cache or the source gives as the detector takes it: (B, D, h, w), fp32."""
    return features_BhwD.permute(0, 3, 1, 2).float()


def held_out(encoder: Encoder, split: CocoSplit, size: int, limit: int | None = None, *, amp: bool = True) -> HeldOut:
    """A split to be judged, its features computed as they are needed."""
    canvas, images = Canvas.of(encoder, size), tuple(sorted(by_hash(split, limit)))

    def load(item: int) -> Tensor:
        return _draw(split, images[item], _whole(split, images[item], canvas), encoder, canvas)

    features = token_source(encoder, canvas, load, amp=amp, count=len(images))
    return HeldOut(encoder=encoder, canvas=canvas, split=split, images=images, draw=load, features=features)


def prepare(
    encoder: Encoder,
    train: CocoSplit,
    test: CocoSplit,
    size: int,
    config: DetectionConfig,
    folder: Path,
    progress: Progress,
) -> Material:
    """Training and test material; with `cache_gb`, frozen features under `folder`, from there where they are already.

    Errors: RiceError for data that cannot train, or features larger than the budget.
    """
    material = Material(
        encoder=encoder,
        canvas=Canvas.of(encoder, size),
        train=training_set(train, config),
        test=held_out(encoder, test, size, config.test_images, amp=config.amp),
        config=config,
        cached=None,
    )
    return _with_cache(material, folder, progress) if config.cache_gb else material


def cache_bytes(config: DetectionConfig, width: int, grid: tuple[int, int], train: int, test: int) -> int:
    """What a cache takes: fp16 tokens of every training picture, twice where it may be mirrored, and of the test."""
    views = train * (2 if config.flip else 1) + test
    return views * math.prod(grid) * width * 2


def _with_cache(material: Material, folder: Path, progress: Progress) -> Material:
    """Item 2 i + f of the training features is picture i, mirrored where f is 1; i alone where none are mirrored."""
    train, test, config, canvas = material.train, material.test, material.config, material.canvas
    sides, images = 2 if config.flip else 1, len(train.images)
    needed = cache_bytes(config, material.encoder.spec.width, canvas.grid, images, len(test.images))
    budget = config.cache_gb * 1e9
    if needed > budget:
        raise RiceError(
            f"the features need {format_bytes(needed)} on disk, cache-gb allows {format_bytes(budget)}; raise it, or "
            "set it to 0 to compute them anew in every epoch"
        )

    def load(item: int) -> Tensor:
        index = train.images[item // sides]
        view = _whole(train.split, index, canvas, flip=bool(item % sides))
        return _draw(train.split, index, view, material.encoder, canvas)

    weights = encoder_key(material.encoder, canvas.edge, _FORM)

    def opened(name: str, load: Callable[[int], Tensor], split: CocoSplit, images: Sequence[int]) -> FrozenFeatures:
        count = len(images) * (sides if split is train.split else 1)
        key = sha256_json([weights, split.fingerprint(), list(images), sides, config.amp])
        source = token_source(material.encoder, canvas, load, amp=config.amp, count=count, key=key)
        label = f"{split.name}: {count} views"
        return open_features(source, folder / name, budget_bytes=budget, progress=progress, label=label)

    cached = opened("features-train", load, train.split, train.images)
    tested = opened("features-test", test.draw, test.split, test.images)
    return replace(material, cached=cached, test=replace(test, features=tested))


def _whole(split: CocoSplit, index: int, canvas: Canvas, *, flip: bool = False) -> View:
    record = split.images[index]
    return View.whole(record.width, record.height, canvas.covered, flip=flip)


def _draw(split: CocoSplit, index: int, view: View, encoder: Encoder, canvas: Canvas) -> Tensor:
    """A picture as it is shown, (3, S, S)."""
    return to_square(view.picture(split.load_image(index)), canvas.edge, encoder.spec.mean)
