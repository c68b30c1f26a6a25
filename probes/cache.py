"""Frozen features, computed once per cell and read by all its seeds, or recomputed where the disk budget is too small.

Shapes: B images, S input edge in pixels, F the shape of one item's features.

On disk: one folder with a manifest that says whose features they are (`FeatureSource.key`), and one .npy file per chunk
of items, each renamed into place when it is whole. So a finished chunk is a file that exists, and a kill costs at most
one chunk.
"""

import dataclasses
import hashlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from probes.images import load_ahead
from probes.protocol import Probe, identity
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.files import atomic_write, format_bytes, read_json, sha256_json, write_json
from rice.progress import Progress

EXTRACT_BATCH = 16
_CHUNK_BYTES = 64 * 2**20

Item = TypeVar("Item")


class FrozenFeatures(Protocol):
    """Features of a fixed list of items, read batch by batch in any order, any number of times."""

    def stream(self, batches: Iterable[Iterable[int]]) -> Iterator[Tensor]:
        """For each batch of item indices its features, (B, *F). `batches` may be endless and is read ahead."""
        ...


@dataclass(frozen=True, kw_only=True)
class FeatureSource(Generic[Item]):
    """How one encoder turns the items into features: itself a `FrozenFeatures` that recomputes on every read.

    Items are indices, where they are to be cached. `load(i)` gives item i as (3, S, S); `extract((B, 3, S, S))` gives
    (B, *F). `dtype`: what is kept of them, fp16 or fp32; recomputed features are rounded to it too, so that both ways
    give the same numbers. `key` identifies the numbers: `encoder_key` and the pictures.
    """

    load: Callable[[Item], Tensor]
    extract: Callable[[Tensor], Tensor]
    count: int
    shape: tuple[int, ...]
    key: str
    dtype: torch.dtype = torch.float16

    @property
    def nbytes(self) -> int:
        """Bytes that all features take."""
        return self.count * math.prod(self.shape) * self.dtype.itemsize

    def stream(self, batches: Iterable[Iterable[Item]]) -> Iterator[Tensor]:
        """Features (B, *F) on the encoder's device. Errors: RiceError for features that are not finite or misshapen."""
        for images in load_ahead(self.load, batches):
            features = self.extract(torch.stack(images)).to(self.dtype)
            if tuple(features.shape[1:]) != self.shape:
                raise RiceError(f"expected features of shape {self.shape} per item, got {tuple(features.shape[1:])}")
            if not torch.isfinite(features).all():
                raise RiceError(
                    "the encoder gave features that are NaN, infinite or beyond the range of "
                    f"{self.dtype}; check its weights, or load it in fp32"
                )
            yield features


class CachedFeatures:
    """Features in the chunk files of one folder, memory-mapped."""

    def __init__(self, folder: Path, count: int, chunk: int) -> None:
        self._chunk = chunk
        self._parts = [np.load(_chunk_path(folder, start), mmap_mode="r") for start in range(0, count, chunk)]

    def stream(self, batches: Iterable[Iterable[int]]) -> Iterator[Tensor]:
        """Features (B, *F) on the CPU."""
        for batch in batches:
            rows = [self._parts[index // self._chunk][index % self._chunk] for index in map(int, batch)]
            yield torch.from_numpy(np.stack(rows))


def open_features(
    source: FeatureSource[int], folder: Path, *, budget_bytes: float, progress: Progress, label: str
) -> FrozenFeatures:
    """Extract what `folder` lacks and map it; above `budget_bytes`, the source itself: recomputed on every read.

    Resumes after a kill at any instant. Errors: RiceError when the disk has no room for what is within the budget, or
    when the folder holds other features.
    """
    if source.nbytes > budget_bytes:
        return source
    chunk = max(1, min(_CHUNK_BYTES // max(source.nbytes // max(source.count, 1), 1), 512))
    chunk = _agree(folder, source, chunk)
    chunks = [range(start, min(start + chunk, source.count)) for start in range(0, source.count, chunk)]
    missing = [items for items in chunks if not _chunk_path(folder, items.start).exists()]
    if missing:
        _check_disk(folder, source.nbytes * sum(map(len, missing)) / source.count)
        features = source.stream(batch for items in missing for batch in _split(items))
        for items in progress.track(missing, f"{label}: features to disk ({format_bytes(source.nbytes)})"):
            _write_chunk(_chunk_path(folder, items.start), [next(features) for _ in _split(items)])
    return CachedFeatures(folder, source.count, chunk)


def encoder_key(encoder: Encoder, size: int, form: str) -> str:
    """SHA-256 of all that features depend on, but for the pictures. `form` names what is kept of the encoder's output.

    The weights are hashed themselves, not their name: a file that changed gives other features.
    """
    spec = dataclasses.asdict(encoder.spec)
    return sha256_json([weights_digest(encoder.module), spec, size, form])


def material_key(encoder: Encoder, probe: Probe, form: str) -> str:
    """SHA-256 that names what all seeds of a cell share; `form`: see `encoder_key`."""
    size = probe.input_size(encoder.spec, None)
    return sha256_json([encoder_key(encoder, size, form), probe.fingerprint(), identity(probe.config)])


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a module's state by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _agree(folder: Path, source: FeatureSource[int], chunk: int) -> int:
    """The chunk length of an unfinished cache, or ours, written down; drops what a killed writer left half-done."""
    manifest = folder / "manifest.json"
    facts = {"key": source.key, "count": source.count, "shape": list(source.shape), "dtype": str(source.dtype)}
    if not manifest.exists():
        write_json(manifest, facts | {"chunk": chunk})
        return chunk
    found = read_json(manifest)
    if {name: found.get(name) for name in facts} != facts or not isinstance(found.get("chunk"), int):
        raise RiceError(f"{folder} holds other features than expected; delete it")
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()
    return int(found["chunk"])


def _split(items: range) -> list[range]:
    return [items[k : k + EXTRACT_BATCH] for k in range(0, len(items), EXTRACT_BATCH)]


def _write_chunk(path: Path, batches: Sequence[Tensor]) -> None:
    with atomic_write(path, "wb") as file:
        np.save(file, torch.cat([batch.cpu() for batch in batches]).numpy())


def _chunk_path(folder: Path, start: int) -> Path:
    return folder / f"{start:09d}.npy"


def _check_disk(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise RiceError(
            f"the features need {format_bytes(needed)} and {folder} has {format_bytes(free)} free; "
            "lower cache-gb to recompute them instead, or choose a smaller size"
        )
