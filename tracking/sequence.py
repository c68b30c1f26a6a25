"""One target in one clip, whatever benchmark it comes from.

Shapes: N frames, H W pixels. Boxes are x, y, width, height in pixels of the frame, whose top left corner is (0, 0).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rice.data.video import Footage, Image_HW3, read_frame

Boxes_N4 = NDArray[np.float64]
Flags_N = NDArray[np.bool_]
Levels_N = NDArray[np.int64]


class Frames(Protocol):
    """The pictures of a clip, in order."""

    def __len__(self) -> int: ...

    def stream(self) -> Iterator[Image_HW3]:
        """Every frame, once, from the first. Errors: RiceError naming the frame that cannot be read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFiles:
    """Frames in files of one folder: `pattern % (first + i)`, or `names` where they follow no rule.

    Training sets have millions of frames, so no list of them is kept. Frames may differ in size.
    """

    folder: Path
    count: int
    pattern: str = "%08d.jpg"
    first: int = 1
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def path(self, index: int) -> Path:
        """The file of frame `index`, from 0."""
        return self.folder / (self.names[index] if self.names else self.pattern % (self.first + index))

    def read(self, index: int) -> Image_HW3:
        """Frame `index` as RGB. Errors: RiceError naming a file that is missing or damaged."""
        return read_frame(self.path(index))

    def stream(self) -> Iterator[Image_HW3]:
        """See `Frames`."""
        return (self.read(index) for index in range(self.count))


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFile:
    """Frames of a video file, which are only read in order. `count`: as `Footage.check` found it."""

    footage: Footage
    count: int

    def __len__(self) -> int:
        return self.count

    def stream(self) -> Iterator[Image_HW3]:
        """See `Frames`."""
        return (frame.image for frame in self.footage.frames())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequence:
    """A clip with the boxes of its target.

    boxes: (N, 4) float64 from the top left corner (0, 0), whatever the benchmark counts from; (1, 4) where the truth of
        the others is withheld (GOT-10k's test, TrackingNet's TEST). Boxes without an area, or not finite, say nothing.
    origin: what the benchmark's own files add to x and y: 1 in LaSOT, else 0.
    absent: the target is not to be seen, by the benchmark's own flags; None where it has none.
    cover: GOT-10k's visible share in eighths, 0 to 8; None elsewhere.
    size: width, height of the frames as the benchmark's files state it, else None.
    """

    benchmark: str
    name: str
    frames: PictureFiles | VideoFile
    boxes: Boxes_N4
    origin: int = 0
    absent: Flags_N | None = None
    cover: Levels_N | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def withheld(self) -> bool:
        """Whether only the first frame's box is known."""
        return len(self.boxes) < len(self.frames)

    @property
    def visible(self) -> Flags_N:
        """(N,) frames with a box that can be learnt from: finite, with an area, and a target that is to be seen."""
        visible: Flags_N = has_area(self.boxes)
        if self.absent is not None:
            visible &= ~self.absent[: len(visible)]
        if self.cover is not None:
            visible &= self.cover[: len(visible)] > 0
        return visible


def has_area(boxes_N4: NDArray[Any]) -> Flags_N:
    """(N,): finite, and wider and higher than nothing."""
    flags: Flags_N = np.isfinite(boxes_N4).all(axis=1) & (boxes_N4[:, 2:] > 0).all(axis=1)
    return flags


def upright(rows_NC: NDArray[np.float64]) -> Boxes_N4:
    """Boxes (N, 4) as they are; four corners x, y, (N, 8), as the smallest upright boxes around them, as VOT's readers
    do."""
    if rows_NC.shape[1] == 4:
        return rows_NC
    corners_N42 = rows_NC.reshape(-1, 4, 2)
    low_N2, high_N2 = corners_N42.min(axis=1), corners_N42.max(axis=1)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return np.concatenate([low_N2, high_N2 - low_N2], axis=1)
