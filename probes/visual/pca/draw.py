"""The video and the strip of a finished PCA.

Shapes: T tokens of a frame, h w patch grid, 3 RGB.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.visual.pca.layout import Pixels, Row, VideoLayout, strip, strip_row
from probes.visual.pca.palette import Palette
from probes.visual.pca.records import ArrayRecords
from probes.visual.pca.source import Source
from probes.visual.pca.workplace import STRIP, VIDEO
from rice.data.video import Frame, write_video
from rice.files import atomic_write
from rice.progress import Progress

STRIP_ROWS = 6


@dataclass(frozen=True)
class Captions:
    """What is written beside the pictures."""

    source: str
    encoder: str
    pixels: str
    tokens: str


@dataclass(frozen=True)
class Colours:
    """The components as pictures: `projected` (T, 3) and, with a foreground, `first` (T, 1) of each selected frame."""

    palette: Palette
    grid: tuple[int, int]
    projected: ArrayRecords
    first: ArrayRecords | None

    def of(self, index: int) -> Pixels:
        """(h, w, 3): selected frame `index`."""
        first_T1 = None if self.first is None else self.first.read(index)
        return self.palette.colours(self.projected.read(index), first_T1).reshape(*self.grid, 3)


def draw(source: Source, out: Path, colours: Colours, captions: Captions, progress: Progress) -> None:
    """Write the video of all selected frames and the strip of `STRIP_ROWS` of them, evenly spaced, first and last."""
    rows: list[Row] = []
    right = f"{captions.encoder}   {captions.pixels}   {captions.tokens}"
    layout = VideoLayout.of(source.footage.height, source.footage.width)
    chosen = set(np.linspace(0, source.count - 1, min(STRIP_ROWS, source.count)).round().astype(int).tolist())

    def pages() -> Iterator[Pixels]:
        frames = progress.track(source.frames(), f"{source.name}: draw", total=source.count)
        for index, frame in enumerate(frames):
            picture = colours.of(index)
            if index in chosen:
                rows.append(strip_row(frame.image, picture, _moment(frame)))
            time = "" if frame.seconds is None else f"   {_moment(frame)}"
            yield layout.compose(frame.image, picture, f"{captions.source}   frame {frame.index}{time}", right)

    write_video(out / VIDEO, pages(), source.fps)
    with atomic_write(out / STRIP, "wb") as file:
        strip(rows, captions.source, f"{captions.encoder}   {captions.pixels}").save(file, "PNG", optimize=True)


def _moment(frame: Frame) -> str:
    return f"frame {frame.index}" if frame.seconds is None else f"{frame.seconds:.2f} s"
