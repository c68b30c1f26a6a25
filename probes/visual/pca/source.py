"""What a PCA is made of: the selected frames of one source, and how it is made. Imports no torch."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rice.data.video import Footage, Frame, open_footage
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.files import sha256_file

DEFAULT_SIZE = 512
SCRATCH_GIB = 16.0
_PICTURES_FPS = Fraction(24)


@dataclass(frozen=True, kw_only=True)
class PcaConfig:
    """What is computed (`batch` and `scratch_gib` change only how).

    `size`: shorter edge of the input in pixels. Every `stride`-th frame, at most `frames` of them. `scratch_gib`: disk
    that the tokens may take (half of their size in fp32); where they need more, they are computed once per pass.
    """

    size: int = DEFAULT_SIZE
    square: bool = False
    stride: int = 1
    frames: int | None = None
    foreground: bool = False
    batch: int | None = None
    scratch_gib: float = SCRATCH_GIB

    def __post_init__(self) -> None:
        """Errors: RiceError for a count below 1."""
        for name in ("size", "stride", "frames", "batch"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise RiceError(f"expected --{name} of at least 1, got {count}")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Frames 0, stride, 2 * stride, ... of a source: `count` of them. `sha256`: of all its files."""

    footage: Footage
    stride: int
    count: int
    sha256: str

    @property
    def name(self) -> str:
        """What captions call it."""
        return self.footage.path.resolve().name

    @property
    def fps(self) -> Fraction:
        """Of the selected frames, so that a video made of them keeps its speed."""
        return (self.footage.fps or _PICTURES_FPS) / self.stride

    def frames(self) -> Iterator[Frame]:
        """The selected frames, decoded anew."""
        return self.footage.frames(stride=self.stride, stop=(self.count - 1) * self.stride + 1)


def look(path: Path, config: PcaConfig) -> Source:
    """Open a source and decode all that will be used of it, so that damage is found before anything is computed.

    Errors: RiceError for a source that is missing, empty or damaged.
    """
    footage = open_footage(path)
    decoded = footage.check(stop=None if config.frames is None else (config.frames - 1) * config.stride + 1)
    digest = hashlib.sha256()
    for file in footage.files():
        digest.update(bytes.fromhex(sha256_file(file)))
    count = (decoded - 1) // config.stride + 1
    return Source(footage=footage, stride=config.stride, count=count, sha256=digest.hexdigest())


def input_size(footage: Footage, config: PcaConfig, spec: EncoderSpec) -> tuple[int, int]:
    """(H, W) in pixels of the encoder's input.

    The shorter edge is `size`, the longer one keeps the frame's shape, both rounded to multiples of the encoder's
    `size_multiple`, one at least. `square`: both edges are `size`, and the frame is squashed.
    """
    if config.square and config.size == spec.native_size:
        return config.size, config.size
    multiple = spec.size_multiple
    shorter = max(round(config.size / multiple), 1)
    edges = footage.height, footage.width
    aspect = 1.0 if config.square else max(edges) / min(edges)
    longer = max(round(shorter * aspect), 1)
    return (shorter * multiple, longer * multiple) if edges[0] <= edges[1] else (longer * multiple, shorter * multiple)
