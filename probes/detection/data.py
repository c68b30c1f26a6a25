"""Which pictures train, how often and in what order, and what of them is learnt. Imports no torch.

Shapes: N training pictures, C categories.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.coco import by_hash
from probes.detection.config import DetectionConfig
from rice.data.coco import CocoAnnotation, CocoImage, CocoSplit
from rice.errors import RiceError

Indices = NDArray[np.int64]
Instances = Sequence[tuple[CocoAnnotation, ...]]
"""Of each picture, at least one."""


class Sample(NamedTuple):
    """One picture of one step: `position` among the training pictures, `number` counts all samples of the training."""

    position: int
    number: int


@dataclass(frozen=True)
class TrainingSet:
    """The pictures of a split that have something to learn from, and what is learnt.

    `images`: indices into the split; `instances`: what is to be found in each, see `usable`; `masks`: whether every
    instance has one; `repeats`: how often a picture is shown in an epoch, on average.
    """

    split: CocoSplit
    images: tuple[int, ...]
    instances: tuple[tuple[CocoAnnotation, ...], ...]
    masks: bool
    repeats: NDArray[np.float64]

    def updates(self, config: DetectionConfig) -> int:
        """Steps of the whole training."""
        return max(1, math.ceil(config.epochs * float(self.repeats.sum()) / config.batch))

    def image_counts(self) -> NDArray[np.int64]:
        """On how many of the pictures each category occurs."""
        return _image_counts(self.instances, len(self.split.categories))


def usable(record: CocoImage) -> tuple[CocoAnnotation, ...]:
    """The annotations of a picture that train: no crowds, and only boxes with an area inside the picture."""
    return tuple(a for a in record.annotations if not a.iscrowd and _inside(a.box, record.width, record.height))


def _inside(box: tuple[float, float, float, float], width: int, height: int) -> bool:
    left, top, right, bottom = box
    return min(right, width) > max(left, 0) and min(bottom, height) > max(top, 0)


def training_set(split: CocoSplit, config: DetectionConfig) -> TrainingSet:
    """Errors: RiceError where there is nothing to learn, or masks are asked for and an instance has none."""
    found = {i: usable(split.images[i]) for i in sorted(by_hash(split, config.train_images))}
    found = {i: instances for i, instances in found.items() if instances}
    if not found:
        raise RiceError(
            f"{split.files.annotations}: expected annotations to learn from (not crowd, with an area inside their "
            f"image), found none in {len(split.images)} images"
        )
    bare = [a for instances in found.values() for a in instances if a.segmentation is None]
    if config.heads.masks == "always" and bare:
        raise RiceError(
            f"{split.files.annotations}: annotation {bare[0].id} has no segmentation ({len(bare)} have none); "
            "train boxes only with --heads.masks never"
        )
    masks = config.heads.masks == "always" or (config.heads.masks == "auto" and not bare)
    instances = tuple(found.values())
    repeats = repeat_factors(instances, len(split.categories), config.repeat_threshold)
    return TrainingSet(split, tuple(found), instances, masks, repeats)


def repeat_factors(instances: Instances, categories: int, threshold: float) -> NDArray[np.float64]:
    """LVIS' repeat-factor sampling: max over a picture's categories c of max(1, sqrt(threshold / f_c)), with f_c the
    share of pictures that have c (LVIS paper, appendix B)."""
    share = _image_counts(instances, categories) / len(instances)
    factor = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
    return np.array([max(factor[a.category] for a in found) for found in instances])


def _image_counts(instances: Instances, categories: int) -> NDArray[np.int64]:
    counts = np.zeros(categories, np.int64)
    for found in instances:
        counts[sorted({a.category for a in found})] += 1
    return counts


def samples(repeats: NDArray[np.float64], batch: int, seed: int, start: int = 0) -> Iterator[list[Sample]]:
    """Endless batches from step `start` on: epochs run into each other, and step k is a function of (seed, k) alone.

    In an epoch a picture comes floor(r) times, and once more with the chance of what is left of r.
    """
    epoch, first = 0, 0
    order = _epoch(repeats, seed, 0)
    for number in range(start * batch, 2**62, batch):
        chosen = []
        for n in range(number, number + batch):
            while n >= first + len(order):
                first, epoch = first + len(order), epoch + 1
                order = _epoch(repeats, seed, epoch)
            chosen.append(Sample(int(order[n - first]), n))
        yield chosen


def _epoch(repeats: NDArray[np.float64], seed: int, epoch: int) -> Indices:
    dice = np.random.default_rng((seed, epoch))
    whole = np.floor(repeats)
    times = (whole + (dice.random(len(repeats)) < repeats - whole)).astype(np.int64)
    order: Indices = dice.permutation(np.repeat(np.arange(len(repeats)), times))
    return order
