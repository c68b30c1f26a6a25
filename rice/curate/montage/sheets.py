"""Thumbnails of regions, and sheets of them.

A sheet has `COLUMNS` thumbnails a row: rows of the nearest, a gap, rows of what was drawn. A thumbnail keeps its
region's shape, in the middle of its square; the rest of the sheet is transparent.

Shapes: N regions, E the edge of a thumbnail, w, h its own width and height.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rice.curate.montage.choose import Chosen
from rice.curate.montage.regions import Collection
from rice.data.decode import DamagedPictureError, Pixels, decode_crop, decode_picture
from rice.data.regions import Crop
from rice.files import reserve
from rice.progress import Progress

COLUMNS = 8
SPACE, GAP = 4, 12
"""Pixels between thumbnails, and between the two kinds of rows."""
TEXT_HEIGHT, TEXT_WIDTH = 48, 480
"""Crops of text fill this."""
_QUALITY = 82
_SMOOTH = Image.Resampling.BILINEAR
_AT_ONCE = 64
"""Pictures whose bytes are held."""


class Source(NamedTuple):
    """A picture that some chosen regions lie in. which: their places among the chosen. text: of each."""

    key: str
    image: bytes
    frame: tuple[int, int]
    which: list[int]
    texts: list[str]


class TextCrop(NamedTuple):
    """A region of text. number: among those chosen. file: empty where the picture is damaged."""

    number: int
    file: str
    size: tuple[int, int]
    text: str
    score: float
    key: str


def sources(collection: Collection, chosen: Chosen, progress: Progress, description: str) -> Iterator[Source]:
    """Every picture that `chosen` lies in, once; only the shards that hold them are opened."""
    for number in progress.track(np.unique(chosen["shard"]).tolist(), description):
        shard, found = collection.shards[number], collection.regions(number)
        own = np.flatnonzero(chosen["shard"] == number)
        pictures = np.unique(chosen["picture"][own]).tolist()
        for begin in range(0, len(pictures), _AT_ONCE):
            rows = pictures[begin : begin + _AT_ONCE]
            for row, image in zip(rows, shard.images(rows), strict=True):
                which = own[chosen["picture"][own] == row].tolist()
                width, height = found.sidecar.sizes[row].tolist()
                texts = [found.text(int(chosen["region"][n])) for n in which]
                yield Source(str(found.sidecar.keys[row]), image, (width, height), which, texts)
        shard.close()


def fitted(box: Sequence[int], edge: int) -> tuple[int, int]:
    """Width and height of a box's thumbnail: its shape, the longer edge `edge`."""
    width, height = box[2] - box[0], box[3] - box[1]
    longer = max(width, height)
    return max(1, round(width * edge / longer)), max(1, round(height * edge / longer))


def thumbnail(image: bytes, frame: tuple[int, int], box: Sequence[int], edge: int) -> Pixels:
    """(h, w, 3), as `fitted`. Errors: DamagedPictureError."""
    crop = Crop(box[0], box[1], box[2] - box[0], box[3] - box[1])
    square = decode_crop(image, frame, crop, edge).permute(1, 2, 0).numpy()
    size = fitted(box, edge)
    return np.asarray(
        square if size == (edge, edge) else Image.fromarray(square).resize(size, Image.Resampling.BILINEAR)
    )


def text_crop(image: bytes, frame: tuple[int, int], box: Sequence[int]) -> Image.Image:
    """A region of text, at most as large as it is. Errors: DamagedPictureError."""
    left, top, right, bottom = box
    crop = Image.fromarray(decode_picture(image, frame)[top:bottom, left:right])
    scale = min(TEXT_HEIGHT / crop.height, TEXT_WIDTH / crop.width, 1)
    return crop.resize(
        (max(1, round(crop.width * scale)), max(1, round(crop.height * scale))), Image.Resampling.BILINEAR
    )


def save_texts(source: Source, chosen: Chosen, folder: Path) -> Iterator[TextCrop]:
    """Writes the crops of a picture's regions of text into the folder; damaged pictures have none."""
    for number, text in zip(source.which, source.texts, strict=True):
        file, size = f"text-{number:04d}.webp", (0, 0)
        try:
            crop = text_crop(source.image, source.frame, chosen["box"][number].tolist())
        except DamagedPictureError:
            file = ""
        else:
            crop.save(folder / file, quality=_QUALITY)
            size = crop.size
        yield TextCrop(number, file, size, text, float(chosen["score"][number]), source.key)


class Thumbnails:
    """N thumbnails on disk while they are gathered: a million clusters' pages come from shards in shards' order."""

    def __init__(self, path: Path, chosen: Chosen, edge: int) -> None:
        self.chosen, self.edge = chosen, edge
        self.damaged = np.zeros(len(chosen), np.bool_)
        self.keys = [""] * len(chosen)
        self._path = path
        shape = (max(len(chosen), 1), edge, edge, 3)
        reserve(path, math.prod(shape))
        self._tiles: NDArray[np.uint8] = np.memmap(path, np.uint8, "r+", shape=shape)

    def take(self, source: Source) -> None:
        """Decode a picture's regions."""
        for number in source.which:
            self.keys[number] = source.key
            try:
                pixels = thumbnail(source.image, source.frame, self.chosen["box"][number].tolist(), self.edge)
            except DamagedPictureError:
                self.damaged[number] = True
                continue
            self._tiles[number, : pixels.shape[0], : pixels.shape[1]] = pixels

    def sheet(self, which: slice) -> Image.Image:
        """RGBA, of one cluster's: its nearest come first."""
        rows, edge = self.chosen[which], self.edge
        near, count = int(rows["near"].sum()), len(rows)
        canvas = Image.new("RGBA", sheet_size(near, count - near, edge))
        for number, (x, y) in enumerate(places(near, count - near, edge), start=which.start):
            if not self.damaged[number]:
                width, height = fitted(self.chosen["box"][number].tolist(), edge)
                tile = Image.fromarray(self._tiles[number, :height, :width])
                canvas.paste(tile, (x + (edge - width) // 2, y + (edge - height) // 2))
        return canvas

    def close(self) -> None:
        """Remove them from disk."""
        del self._tiles
        self._path.unlink()


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """As WebP."""
    sheet.save(path, quality=_QUALITY, method=2)


def sheet_name(cluster: int) -> str:
    """Its file."""
    return f"{cluster:07d}.webp"


def places(near: int, drawn: int, edge: int) -> Iterator[tuple[int, int]]:
    """Left and top of every thumbnail's square."""
    below = _height(near, edge) + (GAP if near else 0)
    for count, top in ((near, 0), (drawn, below)):
        yield from ((n % COLUMNS * (edge + SPACE), top + n // COLUMNS * (edge + SPACE)) for n in range(count))


def sheet_size(near: int, drawn: int, edge: int) -> tuple[int, int]:
    """Width and height."""
    width = min(COLUMNS, max(near, drawn, 1)) * (edge + SPACE) - SPACE
    return width, _height(near, edge) + _height(drawn, edge) + (GAP if near and drawn else 0)


def _height(count: int, edge: int) -> int:
    rows = -(-count // COLUMNS)
    return rows * (edge + SPACE) - SPACE if rows else 0
