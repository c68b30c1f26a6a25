"""The target of a clip, for tracking: which object is followed, and where it is seen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

from rice.data.world.actors import CATEGORIES
from rice.data.world.clip import Clip, ClipConfig, draw_clip
from rice.data.world.draws import Part
from rice.data.world.scene import Box

CLEAR = 0.6
"""Share of a target that is seen in the first frame, at least, wherever the clip has such an object."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one frame shows of the target.

    box: tight around its visible pixels, as GOT-10k annotates: xyxy, whole pixels, right and bottom excluded.
    visibility: their share of all its pixels, hidden ones and those outside the image included; above 0.
    """

    box: Box
    visibility: float


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """A clip and its target. sights: one for each frame, None where the target is absent; never in the first."""

    clip: Clip
    identity: int
    sights: tuple[Sight | None, ...]

    @property
    def category(self) -> str:
        """The target's name in CATEGORIES."""
        index = self.clip.cast[self.identity][0].category
        if index is None:
            raise ValueError("clutter is no target")
        return CATEGORIES[index]

    @property
    def shape(self) -> str:
        """The last word of its category."""
        return self.category.split()[-1]

    def boxes(self) -> list[Box]:
        """For each frame: where the target is, or, where it is absent, where it was last seen."""
        boxes: list[Box] = []
        for sight in self.sights:
            boxes.append(boxes[-1] if sight is None else sight.box)
        return boxes

    def out_of_view(self) -> list[bool]:
        """For each frame: absent with all its pixels outside the image. Otherwise an absent target is occluded."""
        return [
            sight is None and not self.clip.in_view(index, self.identity) for index, sight in enumerate(self.sights)
        ]


def follow(clip: Clip) -> Track | None:
    """The clip with its target; None where the first frame shows no object.

    The target is, of the objects of which CLEAR or more is seen in the first frame, the one with the largest sum of
    visibility over all frames; where there is none, the one that is seen best in the first frame. Ties: the nearest.
    """
    frames = [
        {thing.identity: Sight(thing.box, thing.visibility) for thing in clip.objects(index)}
        for index in range(len(clip))
    ]
    first = frames[0]
    if not first:
        return None
    clear = sorted(identity for identity, sight in first.items() if sight.visibility >= CLEAR)

    def seen(identity: int) -> float:  # fsum: plain sums differ between Python 3.11 and 3.12
        return math.fsum(frame[identity].visibility for frame in frames if identity in frame)

    target = max(clear, key=seen) if clear else max(sorted(first), key=lambda identity: first[identity].visibility)
    return Track(clip, target, tuple(frame.get(target) for frame in frames))


def draw_tracks(config: ClipConfig, part: Part, seed: int, places: range) -> Iterator[Track]:
    """The clips of a part that have a target, by their places among these.

    A clip whose first frame shows no object has none: the next one takes its place, so that counts are kept.
    """
    drawn = (draw_clip(config, part, seed, index) for index in count())
    usable = (clip for clip in drawn if clip.objects(0))
    for clip in islice(usable, places.start, places.stop):
        track = follow(clip)
        if track is not None:
            yield track
