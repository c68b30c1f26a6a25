"""Regions without weights: a picture is cut into segments, and those that are most alike are merged, step by step.

Segments are those of Felzenszwalb and Huttenlocher (2004); merging is the hierarchical grouping of selective search
(Uijlings et al., 2013) by colour and size. Its texture and fill, and a second hierarchy by other measures, find no more
of COCO's objects in the first 32 boxes than this one.

Shapes: h, w the reduced picture, N its segments, K = 2N - 1 with those that are merged (the last is the picture),
C bins of a colour histogram.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rice.curate.proposals.proposer import Proposals
from rice.errors import require

Pixels = NDArray[np.uint8]
Labels = NDArray[np.intp]
Float = NDArray[np.float64]

_LONG_EDGE = 256
_SCALE, _SIGMA, _LEAST_PIXELS = 50, 0.8, 30
_BINS = 16
_LAB_LOW, _LAB_SPAN = (0.0, -80.0, -80.0), (100.0, 160.0, 160.0)
"""The colours of photos; the few beyond go into the outermost bins."""


@dataclass(frozen=True)
class Segments:
    """Regions of one picture and what they are compared by.

    boxes: (N, 4) xyxy, pixels of the reduced picture. sizes: (N,), share of its pixels. colours: (N, C), sums to 1.
    neighbours: pairs (E, 2) of segments that touch, each once.
    """

    boxes: Float
    sizes: Float
    colours: Float
    neighbours: Labels


@dataclass(frozen=True)
class Hierarchy:
    """Segments and all that they are merged to, in order; the last one is the picture.

    boxes: (K, 4) as in Segments. alike: (K,), 0 to 1, what each is to the one that it is merged with; 0 of the last.
    """

    boxes: Float
    alike: Float


class SegmentProposer:
    """Every segment and every merge but the last one, which is the picture.

    Its score is how unlike it is to what it is merged with, times the share of its box that no segment which crosses
    the box's edge takes up (the straddling of Alexe et al., 2012: the smaller part of each, inside or outside, counts).
    """

    def __init__(self) -> None:
        """Errors: MissingExtraError without scikit-image."""
        self._segmentation = require("skimage.segmentation", "curate")
        self._color = require("skimage.color", "curate")

    def __call__(self, pictures: Sequence[Pixels]) -> list[Proposals]:
        """See Proposer. The same picture always gives the same regions."""
        return [self._propose(picture) for picture in pictures]

    def _propose(self, picture_HW3: Pixels) -> Proposals:
        height, width = picture_HW3.shape[:2]
        reduced_hw3 = _reduced(picture_HW3)
        labels_hw = self._segmentation.felzenszwalb(reduced_hw3, _SCALE, _SIGMA, _LEAST_PIXELS)
        segments = describe(labels_hw, self._color.rgb2lab(reduced_hw3))
        tree = merged(segments)
        boxes_R4 = tree.boxes[:-1]
        scores_R = (1 - tree.alike[:-1]) * (1 - straddling(labels_hw, boxes_R4))
        scale = np.array([width / labels_hw.shape[1], height / labels_hw.shape[0]] * 2)
        return Proposals(boxes_R4 * scale, scores_R.astype(np.float32))


def _reduced(picture_HW3: Pixels) -> Pixels:
    height, width = picture_HW3.shape[:2]
    scale = _LONG_EDGE / max(height, width)
    if scale >= 1:
        return picture_HW3
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture_HW3).resize(size, Image.Resampling.BOX))


def describe(labels_hw: Labels, lab_hw3: Float) -> Segments:
    """labels: 0 to N - 1, each used. lab: the pixels' colours in CIELAB."""
    count = int(labels_hw.max()) + 1
    sizes_N = np.bincount(labels_hw.ravel(), minlength=count)
    bins_hw3 = ((lab_hw3 - _LAB_LOW) / _LAB_SPAN * _BINS).astype(np.intp).clip(0, _BINS - 1)
    channels = [
        np.bincount((labels_hw * _BINS + bins_hw3[..., channel]).ravel(), minlength=count * _BINS)
        for channel in range(3)
    ]
    colours_NC = np.concatenate([channel.reshape(count, _BINS) for channel in channels], axis=1)
    return Segments(
        boxes=_boxes(labels_hw, count),
        sizes=sizes_N / labels_hw.size,
        colours=colours_NC / (3 * sizes_N[:, None]),
        neighbours=_touching(labels_hw, count),
    )


def _boxes(labels_hw: Labels, count: int) -> Float:
    rows_hw, columns_hw = np.indices(labels_hw.shape)
    lowest, highest = np.full((2, count), max(labels_hw.shape)), np.zeros((2, count), dtype=np.intp)
    for axis, places_hw in enumerate((columns_hw, rows_hw)):
        np.minimum.at(lowest[axis], labels_hw.ravel(), places_hw.ravel())
        np.maximum.at(highest[axis], labels_hw.ravel(), places_hw.ravel() + 1)
    return np.concatenate([lowest, highest]).T.astype(np.float64)


def _touching(labels_hw: Labels, count: int) -> Labels:
    """Pairs of labels with pixels side by side, the lower one first, in order."""
    across = np.stack([labels_hw[:, :-1].ravel(), labels_hw[:, 1:].ravel()])
    down = np.stack([labels_hw[:-1].ravel(), labels_hw[1:].ravel()])
    pairs_2E = np.sort(np.concatenate([across, down], axis=1), axis=0)
    low, high = pairs_2E[:, pairs_2E[0] != pairs_2E[1]]
    return np.stack(np.divmod(np.unique(low * count + high), count), axis=1)


def merged(segments: Segments) -> Hierarchy:
    """Merge the two neighbours that are most alike, until one is left; of equals, those that came first."""
    merging = _Merging(segments)
    for new in range(len(segments.sizes), merging.total):
        merging.join(*merging.most_alike(), new)
    return Hierarchy(merging.boxes_K4, merging.alike_K)


class _Merging:
    """Segments on their way to one. What was merged stays in the arrays; `_around` of it is None."""

    def __init__(self, segments: Segments) -> None:
        count = len(segments.sizes)
        self.total = 2 * count - 1
        self.boxes_K4, self._sizes_K, self._colours_KC = (
            np.concatenate([values, np.zeros((count - 1, *values.shape[1:]))])
            for values in (segments.boxes, segments.sizes, segments.colours)
        )
        self.alike_K = np.zeros(self.total)
        self._around: list[set[int] | None] = [set() for _ in range(count)]
        first_E, second_E = segments.neighbours.T
        self._queue = _entries(self._alike(first_E, second_E), first_E, second_E)
        for _, one, other in self._queue:
            self._neighbours(one).add(other)
            self._neighbours(other).add(one)
        heapq.heapify(self._queue)

    def most_alike(self) -> tuple[int, int]:
        """The next pair; both learn how much alike they are."""
        negative, one, other = heapq.heappop(self._queue)
        while self._around[one] is None or self._around[other] is None:
            negative, one, other = heapq.heappop(self._queue)
        self.alike_K[[one, other]] = -negative
        return one, other

    def join(self, one: int, other: int, new: int) -> None:
        pair = [one, other]
        weights_2 = self._sizes_K[pair]
        self._sizes_K[new] = weights_2.sum()
        self._colours_KC[new] = weights_2 @ self._colours_KC[pair] / weights_2.sum()
        self.boxes_K4[new, :2] = self.boxes_K4[pair, :2].min(axis=0)
        self.boxes_K4[new, 2:] = self.boxes_K4[pair, 2:].max(axis=0)
        around = (self._neighbours(one) | self._neighbours(other)) - {one, other}
        self._around[one] = self._around[other] = None
        self._around.append(around)
        for neighbour in around:
            self._neighbours(neighbour).difference_update(pair)
            self._neighbours(neighbour).add(new)
        others = np.array(sorted(around), dtype=np.intp)
        for entry in _entries(self._alike(others, new), others, np.full_like(others, new)):
            heapq.heappush(self._queue, entry)

    def _neighbours(self, segment: int) -> set[int]:
        around = self._around[segment]
        assert around is not None
        return around

    def _alike(self, ones: Labels, others: Labels | int) -> Float:
        """Half for the colours in common, half for a small sum of sizes: large ones are merged late."""
        common = np.minimum(self._colours_KC[ones], self._colours_KC[others]).sum(axis=-1)
        half: Float = (common + 1 - self._sizes_K[ones] - self._sizes_K[others]) / 2
        return half


def _entries(alike: Float, ones: Labels, others: Labels) -> list[tuple[float, int, int]]:
    """For a queue whose least comes first."""
    return list(zip((-alike).tolist(), ones.tolist(), others.tolist(), strict=True))


def straddling(labels_hw: Labels, boxes_K4: Float) -> Float:
    """(K,) 0 to 1: of each box, pixels of segments that cross its edge, the smaller part of each, over its area."""
    sizes_N = np.bincount(labels_hw.ravel())
    shares_K = np.zeros(len(boxes_K4))
    for box, (left, top, right, bottom) in enumerate(boxes_K4.astype(int).tolist()):
        inside_N = np.bincount(labels_hw[top:bottom, left:right].ravel(), minlength=len(sizes_N))
        shares_K[box] = np.minimum(inside_N, sizes_N - inside_N).sum() / ((right - left) * (bottom - top))
    return shares_K
