"""Records of equal size in an append-only file: what a killed run finds again, frame by frame.

Shapes: T tokens of one frame, D width, K components. Files are read and written, not mapped, so that the process's
memory stays flat in the number of frames.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rice.errors import RiceError, os_errors_as

Float32 = NDArray[np.float32]
_HALF_RANGE = 2.0**15


class ArrayRecords:
    """Float32 arrays of one shape, numbered from 0. A half-written last record (a killed writer's) is dropped."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        """Open `path`, or create it empty."""
        self.shape = shape
        self.record_bytes = self._record_bytes()
        self._file = path.open("a+b")
        self.count = os.fstat(self._file.fileno()).st_size // self.record_bytes
        self._file.truncate(self.count * self.record_bytes)

    def append(self, array: Float32) -> None:
        """Write the next record; it is there, whole, when this returns."""
        with os_errors_as(f"cannot write {self._file.name}"):
            self._file.write(self._encode(array))
            self._file.flush()
        self.count += 1

    def read(self, index: int) -> Float32:
        """Record `index`, below `count`."""
        return self._decode(os.pread(self._file.fileno(), self.record_bytes, index * self.record_bytes))

    def _record_bytes(self) -> int:
        return 4 * int(np.prod(self.shape))

    def _encode(self, array: Float32) -> bytes:
        return np.ascontiguousarray(array, dtype=np.float32).tobytes()

    def _decode(self, record: bytes) -> Float32:
        return np.frombuffer(record, np.float32).reshape(self.shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with os_errors_as(f"cannot write {self._file.name}"):
            self._file.close()


class TokenRecords(ArrayRecords):
    """Tokens (T, D) in half the space: a scale, the frame's mean token in fp32, and what is left in fp16.

    Without the mean, dimensions whose offset exceeds their spread (every ViT has some) would lose most of fp16's 11
    bits to it; the scale, a power of two, keeps outliers beyond fp16's range.
    """

    @staticmethod
    def size(shape: tuple[int, int]) -> int:
        """Bytes of one record."""
        tokens, width = shape
        return 4 + 4 * width + 2 * tokens * width

    def _record_bytes(self) -> int:
        tokens, width = self.shape
        return self.size((tokens, width))

    def _encode(self, array: Float32) -> bytes:
        mean = array.mean(axis=0, dtype=np.float32)
        rest = array - mean
        largest = float(np.abs(rest).max())
        if not np.isfinite(largest):
            raise RiceError("the encoder gave tokens with NaN or infinity; try another dtype or weights")
        scale = np.float32(2.0 ** max(np.ceil(np.log2(largest / _HALF_RANGE)), 0) if largest else 1.0)
        parts: tuple[bytes, ...] = scale.tobytes(), mean.tobytes(), (rest / scale).astype(np.float16).tobytes()
        return b"".join(parts)

    def _decode(self, record: bytes) -> Float32:
        tokens, width = self.shape
        scale, mean = np.frombuffer(record, np.float32, 1), np.frombuffer(record, np.float32, width, offset=4)
        rest = np.frombuffer(record, np.float16, offset=4 + 4 * width).reshape(tokens, width)
        decoded = rest.astype(np.float32)
        decoded *= scale
        decoded += mean
        return decoded
