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
from rice.data.coco import CocoAnnotation, CocoSplit
from rice.errors import RiceError

Indices = NDArray[np.int64]


class Sample(NamedTuple):
    """One picture of one step: `position` among the training pictures, `number` counts all samples of the training."""

    position: int
    number: int


@dataclass(frozen=True)
class TrainingSet:
    """The pictures of a split that have something to learn from, and what is learnt.

    `images`: indices into the split; `masks`: whether every instance has one; `repeats`: how often a picture is shown
    in an epoch, on average.
    """

    split: CocoSplit
    images: tuple[int, ...]
    masks: bool
    repeats: NDArray[np.float64]

    def instances(self, position: int) -> list[CocoAnnotation]:
        """What is to be found in a picture: no crowds, and only boxes with an area inside the picture."""
        return usable(self.split, self.images[position])

    def updates(self, config: DetectionConfig) -> int:
        """Steps of the whole training."""
        return max(1, math.ceil(config.epochs * float(self.repeats.sum()) / config.batch))


def usable(split: CocoSplit, image: int) -> list[CocoAnnotation]:
    """The annotations of a picture that train: no crowds, and only boxes with an area inside the picture."""
    record = split.images[image]
    return [a for a in record.annotations if not a.iscrowd and _inside(a.box, record.width, record.height)]


def _inside(box: tuple[float, float, float, float], width: int, height: int) -> bool:
    left, top, right, bottom = box
    return min(right, width) > max(left, 0) and min(bottom, height) > max(top, 0)


def training_set(split: CocoSplit, config: DetectionConfig) -> TrainingSet:
    """Errors: RiceError where there is nothing to learn, or masks are asked for and an instance has none."""
    images = tuple(i for i in sorted(by_hash(split, config.train_images)) if usable(split, i))
    if not images:
        raise RiceError(
            f"{split.files.annotations}: expected annotations to learn from (not crowd, with an area inside their "
            f"image), found none in {len(split.images)} images"
        )
    bare = [a for i in images for a in usable(split, i) if a.segmentation is None]
    if config.heads.masks == "always" and bare:
        raise RiceError(
            f"{split.files.annotations}: annotation {bare[0].id} has no segmentation ({len(bare)} have none); "
            "train boxes only with --heads.masks never"
        )
    masks = config.heads.masks == "always" or (config.heads.masks == "auto" and not bare)
    return TrainingSet(split, images, masks, repeat_factors(split, images, config.repeat_threshold))


def repeat_factors(split: CocoSplit, images: Sequence[int], threshold: float) -> NDArray[np.float64]:
    """LVIS' repeat-factor sampling: max over a picture's categories c of max(1, sqrt(threshold / f_c)), with f_c the
    share of pictures that have c (LVIS paper, appendix B)."""
    present = [{a.category for a in usable(split, i)} for i in images]
    share = image_counts(split, images) / len(images)
    factor = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
    return np.array([max((factor[c] for c in found), default=1.0) for found in present])


def image_counts(split: CocoSplit, images: Sequence[int]) -> NDArray[np.int64]:
    """On how many of these images each category occurs."""
    counts = np.zeros(len(split.categories), np.int64)
    for image in images:
        counts[sorted({a.category for a in usable(split, image)})] += 1
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
