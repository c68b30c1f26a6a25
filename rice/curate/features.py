"""Features as files, one row a region: `NAME.npy`, (N, D), or `NAME.parquet` with lists in a column `feature`.

Shapes: N rows of a file, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rice.curate.stage import read_manifest
from rice.data.parquet import reading_parquet
from rice.errors import RiceError, os_errors_as

Float32 = NDArray[np.float32]

COLUMN = "feature"
SUFFIXES = (".npy", ".parquet")
_AT_ONCE = 65_536


@dataclass(frozen=True)
class FeatureFile:
    """One file of features, as its header describes it."""

    path: Path
    rows: int
    width: int

    def blocks(self) -> Iterator[Float32]:
        """Its rows (n, D) in order, some ten thousand at a time. Errors: RiceError where the file is cut off."""
        read = _npy_blocks if self.path.suffix == ".npy" else _parquet_blocks
        seen = 0
        for block_ND in read(self.path):
            seen += len(block_ND)
            if block_ND.ndim != 2 or block_ND.shape[1] != self.width:
                raise RiceError(f"{self.path}: expected rows of width {self.width}, got {block_ND.shape}")
            yield block_ND
        if seen != self.rows:
            raise RiceError(f"{self.path}: expected {self.rows} rows, got {seen}; it was changed meanwhile")


@dataclass(frozen=True)
class Features:
    """The files of a folder, by name."""

    files: tuple[FeatureFile, ...]

    @property
    def rows(self) -> int:
        """Of all files."""
        return sum(file.rows for file in self.files)

    @property
    def width(self) -> int:
        """Of every row."""
        return self.files[0].width

    def fingerprint(self) -> list[list[Any]]:
        """Names, rows and bytes: what is looked at of terabytes; and the hash that `rice curate embed` left beside."""
        return [
            [file.path.name, file.rows, file.width, file.path.stat().st_size, _digest(file.path)] for file in self.files
        ]


def find_features(place: Path) -> Features:
    """A file of features, or all of a folder. Errors: RiceError where there are none, or their widths differ."""
    with os_errors_as(f"cannot read {place}"):
        paths = sorted(p for p in place.iterdir() if p.suffix in SUFFIXES) if place.is_dir() else [place]
    if not paths:
        raise RiceError(f"expected features (NAME.npy or NAME.parquet) in {place}, found none")
    stems = [path.stem for path in paths]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise RiceError(f"{place} has {twice[0]} both as .npy and as .parquet; keep one of them")
    files = tuple(_described(path) for path in paths)
    for file in files:
        if file.width != files[0].width:
            raise RiceError(
                f"expected one width, {files[0].path.name} has {files[0].width}, {file.path.name} {file.width}"
            )
    return Features(files)


def clean(block_ND: Float32, *, unit_length: bool) -> tuple[Float32, NDArray[np.bool_], NDArray[np.bool_]]:
    """The rows that can be compared, of length 1 where asked; which rows are finite, and which of these are left.

    A row of zeros has no direction: with `unit_length` it is left out, too.
    """
    finite_N = np.asarray(np.isfinite(block_ND).all(axis=1))
    if not unit_length:
        return block_ND[finite_N], finite_N, finite_N
    lengths_N = np.linalg.norm(np.where(finite_N[:, None], block_ND, 0), axis=1)
    kept_N = np.asarray(lengths_N > 0)
    return block_ND[kept_N] / lengths_N[kept_N, None], finite_N, kept_N


def _digest(path: Path) -> str | None:
    """What the manifest of a curation says of the file, None where there is none."""
    manifest = read_manifest(path.parent.parent, path.parent.name, path.stem)
    return None if manifest is None else manifest.digest


def _described(path: Path) -> FeatureFile:
    """Errors: RiceError naming the file, what it should hold and what it holds."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            shape, kind = array.shape, array.dtype
        elif path.suffix == ".parquet":
            shape, kind = _parquet_shape(path), np.dtype("float32")
        else:
            raise RiceError(f"expected a file NAME.npy or NAME.parquet, got {path}")
    except (OSError, ValueError, EOFError, OverflowError, TokenError) as error:  # of headers that NumPy reads as Python
        reason = " ".join(str(error).split())
        raise RiceError(f"cannot read features from {path}: {reason}; make the file again") from error
    if len(shape) != 2 or shape[1] < 1 or kind not in (np.float16, np.float32, np.float64):
        raise RiceError(f"{path}: expected (rows, width) of fp16, fp32 or fp64, got {shape} of {kind}")
    return FeatureFile(path, shape[0], shape[1])


def _npy_blocks(path: Path) -> Iterator[Float32]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    for first in range(0, len(array), _AT_ONCE):
        yield np.asarray(array[first : first + _AT_ONCE], dtype=np.float32)


def _parquet_shape(path: Path) -> tuple[int, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading_parquet(path):
        file = pq.ParquetFile(path)
        if COLUMN not in file.schema_arrow.names:
            raise RiceError(f"{path}: expected a column '{COLUMN}', got {', '.join(file.schema_arrow.names)}")
        kind = file.schema_arrow.field(COLUMN).type
        lists = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
        if not lists or not pa.types.is_floating(kind.value_type):
            raise RiceError(f"{path}: expected lists of floating point numbers in the column '{COLUMN}', got {kind}")
        first = next(file.iter_batches(1, columns=[COLUMN]), None)
        return (file.metadata.num_rows, len(first[COLUMN][0]) if first is not None and len(first) else 1)


def _parquet_blocks(path: Path) -> Iterator[Float32]:
    import pyarrow.parquet as pq

    with reading_parquet(path):
        for batch in pq.ParquetFile(path).iter_batches(_AT_ONCE, columns=[COLUMN]):
            column = batch[COLUMN]
            values = column.flatten().to_numpy(zero_copy_only=False)
            lengths = set(column.value_lengths().to_pylist())
            if column.null_count or len(values) % max(len(column), 1) or len(lengths) > 1:
                raise RiceError(f"{path}: expected rows of one width in the column '{COLUMN}'")
            yield np.asarray(values, dtype=np.float32).reshape(len(column), -1)
