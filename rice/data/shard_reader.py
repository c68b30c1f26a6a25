"""Reading shards: dataset.json, the sidecar of a shard as packed arrays, and byte ranges of its tar.

Whatever a file says is checked before it is used. Shapes: S samples of a shard, R regions of one picture.
"""

import functools
import io
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rice.data.blobs import Blob, location_of
from rice.data.shards import CAPTIONS, DATASET, FORMAT, NO_LABEL, SCHEMA, DatasetInfo, ShardInfo
from rice.errors import RiceError
from rice.files import sha256_json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_MOST = 1 << 40
"""Of anything that is counted, so that sums are whole numbers of 64 bits."""
_FACTOR, _LEAST, _LEAST_BYTES = 100, 1 << 30, 8
"""A sidecar may take this many times its size in memory, or a GiB, counting so many bytes for each value."""
_HEADER = 512
"""Bytes of a tar header, which lies right before a member's content."""


class Record(NamedTuple):
    """One sample's annotations; see `rice.data.shards.Annotations`. tokens: arrays of ids.

    captions: none where the shard was not asked for them.
    """

    key: str
    width: int
    height: int
    boxes: NDArray[np.uint16]
    labels: NDArray[np.int32]
    tokens: list[NDArray[np.int32]]
    image_labels: NDArray[np.int32]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sidecar:
    """A shard's annotations in packed arrays: about 100 bytes a sample and 20 a region, and captions as they are."""

    keys: pa.StringArray
    suffixes: pa.StringArray
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    sizes: NDArray[np.uint16]
    regions_at: NDArray[np.int64]
    """(S + 1,): where each sample's regions begin; likewise `tokens_at` per region and `image_labels_at`."""
    boxes: NDArray[np.uint16]
    labels: NDArray[np.int32]
    tokens_at: NDArray[np.int64]
    tokens: NDArray[np.int32]
    image_labels_at: NDArray[np.int64]
    image_labels: NDArray[np.int32]
    captions: pa.ListArray | None
    """None where they were not asked for, or the shard has none."""

    def record(self, row: int) -> Record:
        """The annotations of one sample: views, not copies, but for the captions, which are decoded here."""
        begin, end = self.regions_at[row : row + 2].tolist()
        first, last = self.image_labels_at[row : row + 2].tolist()
        bounds = self.tokens_at[begin : end + 1].tolist()
        tokens = [self.tokens[a:b] for a, b in itertools.pairwise(bounds)]
        width, height = self.sizes[row].tolist()
        return Record(
            str(self.keys[row]),
            width,
            height,
            self.boxes[begin:end],
            self.labels[begin:end],
            tokens,
            self.image_labels[first:last],
            () if self.captions is None else tuple(self.captions[row].as_py()),
        )


class Shard:
    """One tar with its sidecar, read on first use.

    Errors of all methods: RiceError in one line that names the file: missing, truncated, not what dataset.json says,
    a sidecar of another tar, a label that is not below the number of classes.
    captions: whether to read them, too.
    """

    def __init__(
        self, location: str, info: ShardInfo, object_classes: int, ocr_classes: int, *, captions: bool = False
    ) -> None:
        self.info = info
        self._captions = captions
        self._classes = object_classes, ocr_classes
        self._tar = Blob(location, f"{info.name}.tar")
        self._parquet = Blob(location, f"{info.name}.parquet")

    @functools.cached_property
    def sidecar(self) -> Sidecar:
        """Parsed and checked."""
        size = self._tar.size()
        if size != self.info.tar_bytes:
            raise RiceError(
                f"{self._tar.path} has {size} bytes, {DATASET} says {self.info.tar_bytes}; it is cut off or another "
                f"file: get a whole copy"
            )
        sidecar = _parse(self._parquet.path, self._parquet.read_all(), captions=self._captions)
        _check(self._parquet.path, sidecar, self.info, self._classes)
        return sidecar

    def close(self) -> None:
        """Forget the annotations and close the tar; both come back on the next use."""
        self.__dict__.pop("sidecar", None)
        self._tar.close()

    def images(self, rows: Sequence[int]) -> list[bytes]:
        """The pictures' bytes. Each one's tar header is read with it, and must name the sample that the sidecar has."""
        sidecar = self.sidecar
        offsets, lengths = sidecar.offsets[rows].tolist(), sidecar.lengths[rows].tolist()
        ranges = [(at - _HEADER, n + _HEADER) for at, n in zip(offsets, lengths, strict=True)]
        found = self._tar.read(ranges)
        for row, length, content in zip(rows, lengths, found, strict=True):
            name = f"{sidecar.keys[row]}.{sidecar.suffixes[row]}"
            if content[: len(name) + 1] != name.encode() + b"\0" or _octal(content[124:136]) != length:
                raise RiceError(
                    f"{self._parquet.path} is not the sidecar of {self._tar.path}: expected {name!r} with {length} "
                    f"bytes at its place; get both files of one shard"
                )
        return [content[_HEADER:] for content in found]


def read_dataset(folder: Path | str) -> tuple[str, DatasetInfo]:
    """The location and its dataset.json, checked. Errors: RiceError naming the file and what is wrong with it."""
    location = location_of(folder)
    blob = Blob(location, DATASET)
    try:
        content = blob.read_all()
    except RiceError as error:
        raise RiceError(f"no shards at {folder}: {error}; rice pack writes them") from error
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RiceError(f"{blob.path} is not valid JSON: {error}") from error
    try:
        info = _dataset(document)
        sha256_json([info.classes, info.source])  # half of a surrogate pair, NaN and endless nesting have no hash
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RiceError(f"{blob.path} is not a data set's description: {error}; write it with rice pack") from error
    return location, info


def fingerprint(infos: Sequence[DatasetInfo]) -> str:
    """SHA-256 of what the data sets' descriptions say, whichever folders they lie in."""
    # Not asdict, which copies every shard and recurses deeper than JSON does.
    return sha256_json([vars(info) | {"shards": [vars(shard) for shard in info.shards]} for info in infos])


def _dataset(document: Any) -> DatasetInfo:
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {document['format']!r}, this version reads {FORMAT}")
    shards = tuple(
        ShardInfo(
            name=_checked_name(entry["name"]),
            samples=_count(entry, "samples", 1),
            regions=_count(entry, "regions", 0),
            tar_bytes=_count(entry, "tar_bytes", 1),
        )
        for entry in document["shards"]
    )
    if not shards:
        raise ValueError("it lists no shards")
    if sum(shard.samples for shard in shards) > _MOST:
        raise ValueError(f"expected at most {_MOST} samples")
    return DatasetInfo(
        object_classes=_count(document, "object_classes", 0),
        ocr_classes=_count(document, "ocr_classes", 0),
        shards=shards,
        classes=tuple(map(str, document["classes"])),
        source=dict(document["source"]),
    )


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"expected a shard's plain file name, got {name!r}")
    return name


def _count(entry: Any, name: str, least: int) -> int:
    value = entry[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise ValueError(f"expected {name} of at least {least} and at most {_MOST}, got {value!r}")
    return value


def _parse(path: str, content: bytes, *, captions: bool) -> Sidecar:
    fields = [*SCHEMA, CAPTIONS] if captions else [*SCHEMA]
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        _check_growth(path, file.metadata, len(content))
        there = [f for f in fields if f is not CAPTIONS or CAPTIONS.name in file.schema_arrow.names]
        table = file.read(columns=[f.name for f in there])
        columns = {f.name: table[f.name].combine_chunks().cast(f.type) for f in there}
        for column in columns.values():
            column.validate(full=True)  # texts are UTF-8
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RiceError(f"{path} is not a shard's sidecar ({reason[:200]}); is it whole?") from error
    empty = [name for name, column in columns.items() if _lacks_values(column)]
    if empty:
        raise RiceError(f"{path}: expected a value everywhere, column {empty[0]!r} has none in places; write it anew")
    regions_S, boxes = _unpack(columns["boxes"])
    labels_at, labels_R = _unpack(columns["labels"])
    tokens_S, token_lists = _unpack(columns["tokens"])
    tokens_at, tokens = _unpack(token_lists)
    image_labels_at, image_labels = _unpack(columns["image_labels"])
    if not (np.array_equal(regions_S, labels_at) and np.array_equal(regions_S, tokens_S)):
        raise RiceError(f"{path}: boxes, labels and tokens of some picture differ in number; write it anew")
    return Sidecar(
        columns["key"],
        columns["suffix"],
        columns["offset"].to_numpy(),
        columns["length"].to_numpy(),
        np.stack([columns["width"].to_numpy(), columns["height"].to_numpy()], axis=1),
        regions_S,
        boxes.flatten().to_numpy().reshape(-1, 4),
        labels_R.to_numpy(),
        tokens_at,
        tokens.to_numpy(),
        image_labels_at,
        image_labels.to_numpy(),
        columns.get(CAPTIONS.name),
    )


def _check_growth(path: str, metadata: Any, size: int) -> None:
    """Runs of equal values take no room in the file, and all of it in memory."""
    groups = (metadata.row_group(k) for k in range(metadata.num_row_groups))
    chunks = [group.column(k) for group in groups for k in range(group.num_columns)]
    grown = sum(max(chunk.total_uncompressed_size, _LEAST_BYTES * chunk.num_values) for chunk in chunks)
    if grown > max(_FACTOR * size, _LEAST):
        raise RiceError(f"{path} has {size:,} bytes and would take {grown:,} in memory; write it anew")


def _lacks_values(column: Any) -> bool:
    """Whether a row, or an element of its lists at any depth, has no value."""
    if column.null_count:
        return True
    kind = column.type
    return (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) and _lacks_values(column.flatten())


def _unpack(column: Any) -> tuple[NDArray[np.int64], Any]:
    """(begins and end of every row's list, all lists' elements in one array) of a list column."""
    begins = np.asarray(column.offsets).astype(np.int64)
    return begins - begins[0], column.flatten()


def _check(path: str, sidecar: Sidecar, info: ShardInfo, classes: tuple[int, int]) -> None:
    samples = len(sidecar.keys)
    if samples != info.samples:
        raise RiceError(f"{path} has {samples} rows, {DATASET} says {info.samples}; get both of one data set")
    ends = sidecar.offsets + sidecar.lengths
    outside = (sidecar.offsets < _HEADER) | (sidecar.lengths <= 0) | (ends > info.tar_bytes)
    if outside.any():
        key = sidecar.keys[int(outside.argmax())]
        raise RiceError(f"{path}: the picture of {key} lies outside the tar; get both files of one shard")
    owners_R = np.repeat(np.arange(samples), np.diff(sidecar.regions_at))
    _check_boxes(path, sidecar, owners_R)
    owners_of_tokens = np.repeat(owners_R, np.diff(sidecar.tokens_at))
    owners_of_image_labels = np.repeat(np.arange(samples), np.diff(sidecar.image_labels_at))
    objects, words = classes
    _check_labels(path, sidecar, "object label", sidecar.labels, owners_R, NO_LABEL, objects)
    _check_labels(path, sidecar, "OCR token", sidecar.tokens, owners_of_tokens, 0, words)
    _check_labels(path, sidecar, "image label", sidecar.image_labels, owners_of_image_labels, 0, objects)


def _check_boxes(path: str, sidecar: Sidecar, owners_R: NDArray[np.int64]) -> None:
    boxes_R4 = sidecar.boxes
    bad_R = (boxes_R4[:, :2] >= boxes_R4[:, 2:]).any(1) | (boxes_R4[:, 2:] > sidecar.sizes[owners_R]).any(1)
    if bad_R.any():
        first = int(bad_R.argmax())
        key, box = sidecar.keys[int(owners_R[first])], boxes_R4[first].tolist()
        raise RiceError(f"{path}: {key} has the box {box}, which is empty or leaves the picture; correct the shard")


def _check_labels(
    path: str, sidecar: Sidecar, what: str, ids: NDArray[np.int32], owners: NDArray[np.int64], least: int, classes: int
) -> None:
    bad = (ids < least) | (ids >= classes)
    if bad.any():
        first = int(bad.argmax())
        key = sidecar.keys[int(owners[first])]
        raise RiceError(
            f"{path}: {key} has the {what} {ids[first]}, but there are {classes} classes; correct the shard"
        )


def _octal(field: bytes) -> int:
    digits = field.rstrip(b"\0 ")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else -1
