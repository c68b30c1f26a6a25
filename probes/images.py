"""Pictures for frozen encoders: square resize, and loading ahead in threads.

Shapes: B images, S input edge in pixels.

Threads, not worker processes: PIL decodes and resizes without holding the interpreter lock, and a cell of a few hundred
pictures would pay more for starting processes than for its work.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rice.data.picture import open_picture

T = TypeVar("T")
Item = TypeVar("Item")

_TILE = 384

AHEAD = 2
"""Batches that are loaded while one is in use."""


def read_picture(path: Path) -> Image.Image:
    """The picture as RGB. Errors: RiceError naming a file that is missing, damaged or no picture."""
    return open_picture(path).convert("RGB")


def squash(image: Image.Image, size: int) -> Tensor:
    """The whole picture as a square, (3, S, S) float RGB in [0, 1]: bilinear, antialiased, aspect ratio not kept.

    What a pixel of the picture becomes is then the same for every encoder: x' = x S / W, y' = y S / H.
    """
    square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float().div_(255)


def sheet(pictures: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Pictures in rows, each fitted into a tile of 384 pixels."""
    whole = Image.new("RGB", (min(columns, len(pictures)) * _TILE, -(-len(pictures) // columns) * _TILE), (24, 24, 24))
    for index, picture in enumerate(pictures):
        ratio = _TILE / max(picture.size)
        tile = picture.resize((max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))))
        whole.paste(tile, (index % columns * _TILE, index // columns * _TILE))
    return whole


def load_ahead(
    load: Callable[[Item], T], batches: Iterable[Iterable[Item]], *, workers: int | None = None
) -> Iterator[list[T]]:
    """Yield `[load(item) for item in batch]` for each batch, in order; the next `AHEAD` batches load in threads
    meanwhile.

    `batches` may be endless. An error of `load` is raised where its batch is due. `workers`: default one per core.
    """
    pool = ThreadPoolExecutor(workers or os.cpu_count(), thread_name_prefix="load")
    pending: deque[list[Future[T]]] = deque()
    try:
        for batch in batches:
            pending.append([pool.submit(load, item) for item in batch])
            if len(pending) > AHEAD:
                yield [future.result() for future in pending.popleft()]
        while pending:
            yield [future.result() for future in pending.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def load_each(load: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
    """`load(item)` of each item, in order; as `load_ahead` of batches of one."""
    for (result,) in load_ahead(load, ([item] for item in items)):
        yield result
