"""Where torch.distributed.checkpoint writes and reads: safetensors files and JSON. Nothing on disk is a pickle.

The library plans which rank writes and reads which part of each tensor; here is only its storage. Every rank writes
one file, streamed and hashed on the way, so that no copy of the whole is made. A chunk is the part of one tensor that
one rank holds: its offsets and sizes, in elements along each dimension.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from rice.files import atomic_write, safe_join

T = TypeVar("T")

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The element types that a checkpoint may hold, by the names that safetensors gives them."""

Contents = dict[str, Any]
"""JSON. "files": name -> {"bytes", "sha256"}; "tensors": name -> {"dtype", "shape", "chunks"}."""


@dataclass(frozen=True)
class _Written:
    """What the coordinating rank learns of a chunk: its place, and the file's own record."""

    chunk: dict[str, Any]
    dtype: str
    file: dict[str, Any]


class _InFolder:
    """What the library asks of any storage: here the folder is given at construction, and every plan kept to."""

    def reset(self, checkpoint_id: object = None) -> None:
        """Nothing is kept from one checkpoint to the next."""

    def prepare_local_plan(self, plan: T) -> T:
        """As planned."""
        return plan

    def prepare_global_plan(self, plans: list[T]) -> list[T]:
        """As planned."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: object) -> bool:
        """Names are not understood."""
        return False


class SafetensorsWriter(_InFolder, StorageWriter):
    """Writes this rank's chunks to `folder`; on the coordinating rank, `publish` receives what all ranks wrote."""

    def __init__(self, folder: Path, rank: int, publish: Callable[[Contents], None]) -> None:
        self._folder = folder
        self._name = f"rank-{rank:05d}.safetensors"
        self._publish = publish

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to prepare: the folder exists."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write the planned chunks. Errors: OSError, which the library carries to every rank."""
        future: Future[list[WriteResult]] = Future()
        future.set_result(self._write(plan.items, planner) if plan.items else [])
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the coordinating rank, after every rank's file is on disk."""
        contents: Contents = {"files": {}, "tensors": {}}
        for result in (result for of_rank in results for result in of_rank):
            written: _Written = result.storage_data
            size = list(metadata.state_dict_metadata[result.index.fqn].size)  # type: ignore[union-attr]
            tensor = contents["tensors"].setdefault(
                result.index.fqn, {"dtype": written.dtype, "shape": size, "chunks": []}
            )
            tensor["chunks"].append(written.chunk)
            contents["files"][written.chunk["file"]] = written.file
        self._publish(contents)

    def _write(self, items: list[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        # Wide elements first: each tensor then starts at a multiple of its element size, as mapped files need.
        items = sorted(items, key=lambda item: (-_properties(item).dtype.itemsize, item.index.fqn))
        digest, count = hashlib.sha256(), 0
        with atomic_write(self._folder / self._name, "wb") as file:
            for part in _stream(items, planner):
                digest.update(part)
                count += len(part)
                file.write(part)
        record = {"bytes": count, "sha256": digest.hexdigest()}
        return [WriteResult(item.index, _nbytes(item), self._written(item, record)) for item in items]

    def _written(self, item: WriteItem, record: dict[str, Any]) -> _Written:
        chunk = _chunk(item)
        place = {"file": self._name, "offsets": list(chunk.offsets), "sizes": list(chunk.sizes)}
        return _Written(place, DTYPES[_properties(item).dtype], record)


class SafetensorsReader(_InFolder, StorageReader):
    """Reads from `folder` what `Contents` says is there; the caller has verified both."""

    def __init__(self, folder: Path, contents: Contents) -> None:
        self._folder = folder
        self._contents = contents
        self._files: dict[MetadataIndex, str] = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The library's own description of the tensors and their chunks."""
        tensors = {name: _metadata(tensor) for name, tensor in self._contents["tensors"].items()}
        return Metadata(state_dict_metadata=tensors, storage_meta=StorageMeta())  # type: ignore[arg-type]

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Find the file of each chunk."""
        self._files = {
            MetadataIndex(name, chunk["offsets"]): chunk["file"]
            for name, tensor in self._contents["tensors"].items()
            for chunk in tensor["chunks"]
        }

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy the planned parts into the present tensors, in place."""
        from safetensors import safe_open

        by_file: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            by_file.setdefault(self._files[item.storage_index], []).append(item)
        for name, items in by_file.items():
            with safe_open(safe_join(self._folder, name), framework="pt") as file:
                for item in items:
                    _read(file, item, planner)
        future: Future[None] = Future()
        future.set_result(None)
        return future


def _stream(items: list[WriteItem], planner: SavePlanner) -> Iterable[memoryview]:
    """The file's bytes: length of the header, header, then each chunk in the order of `items`."""
    header: dict[str, Any] = {}
    end = 0
    for item in items:
        start, end = end, end + _nbytes(item)
        dtype, sizes = DTYPES[_properties(item).dtype], list(_chunk(item).sizes)
        header[_key(item.index)] = {"dtype": dtype, "shape": sizes, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for item in items:
        value = planner.resolve_data(item)
        assert isinstance(value, Tensor)
        raw: Any = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        yield memoryview(raw)


def _read(file: Any, item: ReadItem, planner: LoadPlanner) -> None:
    target = planner.resolve_tensor(item).detach()
    key = _key(item.storage_index)
    if target.ndim:
        part = tuple(slice(start, start + n) for start, n in zip(item.storage_offsets, item.lengths, strict=True))
        target.copy_(file.get_slice(key)[part])
    else:
        target.copy_(file.get_tensor(key))
    planner.commit_tensor(item, target)


def _metadata(tensor: Mapping[str, Any]) -> TensorStorageMetadata:
    dtype = next(dtype for dtype, name in DTYPES.items() if name == tensor["dtype"])
    chunks = [ChunkStorageMetadata(torch.Size(c["offsets"]), torch.Size(c["sizes"])) for c in tensor["chunks"]]
    return TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(tensor["shape"]), chunks)


def _key(index: MetadataIndex) -> str:
    """A chunk's name inside its file: one rank may hold several chunks of one tensor."""
    return "@".join([index.fqn, ",".join(map(str, index.offset or ()))])


def _chunk(item: WriteItem) -> ChunkStorageMetadata:
    assert item.tensor_data is not None  # only tensors are passed to the library
    return item.tensor_data.chunk


def _properties(item: WriteItem) -> TensorProperties:
    assert item.tensor_data is not None
    return item.tensor_data.properties


def _nbytes(item: WriteItem) -> int:
    return _chunk(item).sizes.numel() * _properties(item).dtype.itemsize
