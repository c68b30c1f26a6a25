"""Pairs of template and search to learn from, as OSTrack samples, cuts and varies them.

Every pair is a function of the seed and its number alone, so that threads, ranks and restarts change nothing.

Shapes: Z, X edges of template and search in pixels. Boxes are x, y, width, height; in frames in pixels, in pairs in
shares of the search window.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.protocol import NotThisLayoutError
from rice.data.coco import CocoSplit
from rice.data.video import Image_HW3
from rice.errors import RiceError
from tracking.config import TrackingConfig
from tracking.sequence import PictureFiles
from tracking.sequence import Sequence as Clip
from tracking.windows import Crop_SS3, Window

Random = np.random.Generator
Box_4 = NDArray[np.float64]

_MOST_DRAWS = 1000
_GAP_STEP = 5
_LEAST_VISIBLE = 5  # OSTrack: more than twice template and search
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Shown(NamedTuple):
    """A frame and the target's box in it."""

    frame: Image_HW3
    box: Box_4


class Source(Protocol):
    """A training set: clips, or still pictures."""

    @property
    def name(self) -> str:
        """Of the benchmark."""
        ...

    def __len__(self) -> int: ...

    def draw(self, dice: Random) -> tuple[Shown, Shown]:
        """Template and search. Errors: RiceError naming a picture that cannot be read."""
        ...


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips that have enough frames in which the target is to be seen."""

    name: str
    clips: Sequence[tuple[Clip, PictureFiles]]
    """With their frames, which can be read in any order: videos cannot."""
    max_gap: int

    @classmethod
    def of(cls, name: str, clips: Sequence[Clip], config: TrackingConfig) -> "Clips":
        """Leaves out what is short, or hardly ever shows its target. Errors: NotThisLayoutError for nothing left."""
        long = [c for c in clips if len(c) >= config.least_frames and not c.withheld and _enough(c)]
        kept = [(clip, clip.frames) for clip in long if isinstance(clip.frames, PictureFiles)]
        if not kept:
            raise NotThisLayoutError(
                f"{name}: expected clips of at least {config.least_frames} frames that show their target in "
                f"{_LEAST_VISIBLE}, found none in {len(clips)}; see --least-frames"
            )
        return cls(name, kept, config.max_gap)

    def __len__(self) -> int:
        return len(self.clips)

    def draw(self, dice: Random) -> tuple[Shown, Shown]:
        """A frame that shows the target, and a later one within the gap, which grows where there is none."""
        clip, frames = self.clips[int(dice.integers(len(self.clips)))]
        first, second = draw_frames(clip.visible, self.max_gap, dice)
        boxes = clip.boxes
        return Shown(frames.read(first), boxes[first]), Shown(frames.read(second), boxes[second])


@dataclass(frozen=True, eq=False)
class Stills:
    """Objects of a COCO split: template and search come from one picture."""

    name: str
    split: CocoSplit
    objects: Sequence[tuple[int, int]]
    """(image, annotation) by their places in the split."""

    @classmethod
    def of(cls, name: str, split: CocoSplit, config: TrackingConfig, images: Sequence[int]) -> "Stills":
        """Single objects with both sides longer than `least_still` in `images`. Errors: NotThisLayoutError for none."""
        objects = [
            (i, k)
            for i in images
            for k, a in enumerate(split.images[i].annotations)
            if not a.iscrowd and min(a.box[2] - a.box[0], a.box[3] - a.box[1]) > config.least_still
        ]
        if not objects:
            raise NotThisLayoutError(
                f"{name}: expected objects of more than {config.least_still:g} pixels on both sides, found none in "
                f"{split.files.annotations}; see --least-still"
            )
        return cls(name, split, objects)

    def __len__(self) -> int:
        return len(self.objects)

    def draw(self, dice: Random) -> tuple[Shown, Shown]:
        """The same picture twice."""
        image, annotation = self.objects[int(dice.integers(len(self.objects)))]
        left, top, right, bottom = self.split.images[image].annotations[annotation].box
        box = np.array([left, top, right - left, bottom - top], np.float64)
        shown = Shown(np.asarray(self.split.load_image(image)), box)
        return shown, shown


class Pair(NamedTuple):
    """One thing to learn: pictures (3, Z, Z) and (3, X, X), RGB in [0, 1], and the target (4,) in the search."""

    template: Tensor
    search: Tensor
    box: Tensor


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Pairs by number. `sizes`: of template and search in pixels."""

    sources: Sequence[Source]
    sizes: tuple[int, int]
    config: TrackingConfig
    seed: int

    def pair(self, number: int) -> Pair:
        """Pair `number`: a source by equal chances, a clip of it, two frames, their windows, and how they vary.

        Errors: RiceError naming a picture that cannot be read, or where a thousand draws show no target.
        """
        dice = np.random.default_rng((self.seed, number))
        config = self.config
        for _ in range(_MOST_DRAWS):
            source = self.sources[int(dice.integers(len(self.sources)))]
            template, search = source.draw(dice)
            around = Window.around(template.box, config.template_factor)
            window = Window.around(jittered(search.box, config, dice), config.search_factor)
            if window.meets(*search.frame.shape[:2]) and around.meets(*template.frame.shape[:2]):
                break
        else:
            raise RiceError(f"{source.name}: {_MOST_DRAWS} draws gave no window that shows its target's frame")
        gray = dice.random() < config.gray
        first, _ = self._vary(around.cut(template.frame, self.sizes[0]), gray, dice)
        second, mirrored = self._vary(window.cut(search.frame, self.sizes[1]), gray, dice)
        x, y, width, height = window.inside(search.box)
        box = torch.tensor([1 - x - width if mirrored else x, y, width, height], dtype=torch.float32)
        return Pair(first, second, box)

    def _vary(self, crop: Crop_SS3, gray: bool, dice: Random) -> tuple[Tensor, bool]:
        """Brightness and mirroring of each picture by itself. OSTrack mirrors a pair and then each picture again,
        which comes to the same."""
        pixels = crop.astype(np.float32)
        if gray:
            pixels = np.repeat((pixels @ _LUMA)[..., None], 3, axis=2)
        brightness = dice.uniform(1 - self.config.brightness, 1 + self.config.brightness)
        mirrored = bool(dice.random() < self.config.flip)
        if mirrored:
            pixels = pixels[:, ::-1]
        picture = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return picture.mul_(brightness / 255).clamp_(0, 1), mirrored


def numbers(batch: int, start: int, rank: int, ranks: int) -> Iterator[range]:
    """Of the pairs of this rank's share of step `start` and all that follow: step k has k B to k B + B - 1."""
    for step in itertools.count(start):
        yield range(step * batch + rank, (step + 1) * batch, ranks)


def draw_frames(visible_N: NDArray[np.bool_], max_gap: int, dice: Random) -> tuple[int, int]:
    """A frame that shows the target, but not the last of all, and one within `max_gap` after it that does.

    Where there is none, another start and a gap that is 5 longer, as OSTrack does. Errors: RiceError for a clip that
    shows its target in fewer than two frames.
    """
    shown = np.flatnonzero(visible_N)
    starts = shown[shown < len(visible_N) - 1]
    if len(shown) < 2 or not len(starts):
        raise RiceError(f"expected a clip that shows its target twice, got {len(shown)} of {len(visible_N)} frames")
    gap = max_gap
    while True:
        first = int(dice.choice(starts))
        later = shown[(shown > first) & (shown < max(first + gap, first + 2))]
        if len(later):
            return first, int(dice.choice(later))
        gap += _GAP_STEP


def jittered(box: Box_4, config: TrackingConfig, dice: Random) -> Box_4:
    """The search window's box: width and height scaled by a log-normal each, the centre moved by up to half of
    `centre_jitter` times the square root of the scaled area (OSTrack)."""
    size_2 = box[2:] * np.exp(dice.standard_normal(2) * config.scale_jitter)
    reach = math.sqrt(size_2[0] * size_2[1]) * config.centre_jitter
    centre_2 = box[:2] + box[2:] / 2 + reach * (dice.random(2) - 0.5)
    return np.concatenate([centre_2 - size_2 / 2, size_2])


def _enough(clip: Clip) -> bool:
    return int(clip.visible.sum()) >= _LEAST_VISIBLE
