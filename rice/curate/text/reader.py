"""What reads text in pictures: one interface, an engine behind it (paper, section 3.1, which takes PaddleOCR)."""

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rice.curate.text.config import TextConfig


class Line(NamedTuple):
    """A line of text. quad: its corners (4, 2), x and y in pixels of the upright picture. confidence: 0 to 1."""

    quad: NDArray[np.float64]
    text: str
    confidence: float


class TextReader(Protocol):
    """Reads pictures, each by itself: what is found in one does not depend on those beside it."""

    @property
    def identity(self) -> str:
        """Engine, versions and models, for what was made with it. The same text: the same lines."""
        ...

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Line]]:
        """Lines of each picture, RGB (H, W, 3), from top to bottom; none where there is no text."""
        ...


class NoReader:
    """Reads nothing, for data whose text does not matter."""

    identity = "none"

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Line]]:
        """An empty list for each picture."""
        return [[] for _ in pictures]


def build_reader(config: TextConfig, device: str, threads: int | None = None) -> TextReader:
    """The engine that is asked for.

    device: auto (the GPU where the engine can use one), cpu, cuda or cuda:1. threads: of this process on the CPU;
    None: OMP_NUM_THREADS, or all processors, so that of several processes each is given its share.
    Errors: RiceError where the engine cannot use the device or has no models; MissingExtraError.
    """
    count = own_threads() if threads is None else threads
    if config.reader == "rapidocr":
        from rice.curate.text.rapidocr import RapidReader

        return RapidReader(config, device, count)
    if config.reader == "paddle":
        from rice.curate.text.paddle import PaddleReader

        return PaddleReader(config, device, count)
    return NoReader()


def own_threads() -> int:
    """OMP_NUM_THREADS, whose first number counts, or the number of processors."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else os.cpu_count() or 1
