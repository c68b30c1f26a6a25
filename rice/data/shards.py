"""The shard format: pictures in tar files that any tar reader opens, annotations in a Parquet file beside each.

    FOLDER/dataset.json          what the folder holds; written last
    FOLDER/NAME-000000.tar       KEY.jpg, KEY.png, ...: WebDataset's layout, the bytes as they came
    FOLDER/NAME-000000.parquet   one row per picture, in the tar's order

New labels rewrite the Parquet files and dataset.json, whose `source` says what they are: it is what identifies the data
of a run (`RegionStream.fingerprint`), as sidecars of 400M pictures are not read to begin one.

Shapes: R regions of one picture. Boxes are xyxy in pixels of the upright picture.
"""

import contextlib
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rice.errors import RiceError
from rice.files import atomic_path, atomic_write, write_json

FORMAT = 1
DATASET = "dataset.json"
NO_LABEL = -1
MAX_EDGE = 65_535
IDENTITY_KEY = b"rice.shard"

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("suffix", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.uint16()),
        ("height", pa.uint16()),
        ("boxes", pa.list_(pa.list_(pa.uint16(), 4))),
        ("labels", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.list_(pa.int32()))),
        ("scores", pa.list_(pa.float32())),
        ("image_labels", pa.list_(pa.int32())),
    ]
)
"""Columns of a sidecar. offset, length: of the picture's bytes in the tar."""
CAPTIONS = pa.field("captions", pa.list_(pa.string()))
"""One more column, in sidecars of which any picture has a caption."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,90}")
_SUFFIX = re.compile(r"[a-z0-9]{1,8}")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """What a sidecar says of one picture and its regions.

    key: letters, digits, _ and -; unique in its data set. suffix: jpg, png, ... width, height: of the upright picture.
    boxes: (R, 4) uint16, whole pixels, inside the picture, not empty. labels: object class of each
    region, -1 for none. tokens: ids of the text in each region, may be empty. scores: confidence of each region.
    image_labels: most prominent first. captions: texts of the whole picture, any number.
    """

    key: str
    suffix: str
    width: int
    height: int
    boxes: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, 4), dtype=np.uint16))
    labels: list[int] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    image_labels: list[int] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample(Annotations):
    """One picture, as the bytes of its file, with its annotations."""

    image: bytes


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """What dataset.json says of a shard: its files' stem, its pictures and regions, the bytes of its tar."""

    name: str
    samples: int
    regions: int
    tar_bytes: int


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """dataset.json. `classes`: names of the object classes, or empty. `source`: what the shards were made from."""

    object_classes: int
    ocr_classes: int
    shards: tuple[ShardInfo, ...]
    classes: tuple[str, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


Append = Callable[[str, bytes], int]
"""(file name, content) -> offset of the content in the tar."""


@contextlib.contextmanager
def write_tar(path: Path) -> Iterator[Append]:
    """Yield what appends a file; the tar is there after a clean exit. Owner and time are zero: same input, same tar."""
    with (
        atomic_write(path, "wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):

        def append(name: str, content: bytes) -> int:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
            stream: IO[bytes] = tar.fileobj  # type: ignore[assignment]
            return stream.tell() - -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

        yield append


def write_shard(folder: Path, name: str, samples: Iterable[Sample], *, identity: str = "") -> ShardInfo:
    """Write NAME.tar, then NAME.parquet; killed before the second, the shard counts as not written.

    identity: any text that tells whether a shard found later is the same one (see `finished_shard`).
    Errors: RiceError for a sample that does not hold what `Annotations` says; nothing is written then.
    """
    rows: list[dict[str, Any]] = []
    with write_tar(folder / f"{name}.tar") as append:
        for sample in samples:
            row = sidecar_row(sample)
            if not sample.image:
                raise RiceError(f"sample {sample.key!r}: bad image; expected the bytes of a picture's file, got none")
            offset = append(f"{sample.key}.{sample.suffix}", sample.image)
            rows.append(row | {"offset": offset, "length": len(sample.image)})
        _distinct(name, rows)
    return write_sidecar(folder, name, rows, identity=identity)


def write_sidecar(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], *, identity: str = "", extra: Sequence[pa.Field] = ()
) -> ShardInfo:
    """Write NAME.parquet beside NAME.tar: `sidecar_row`s with the picture's offset and length in the tar.

    extra: columns beside the shard's own, which readers of shards pass over. Errors: RiceError where there is no row,
    or two have one key.
    """
    _distinct(name, rows)
    tar_bytes = (folder / f"{name}.tar").stat().st_size
    metadata = {IDENTITY_KEY: f"{tar_bytes} {identity}".encode()}
    own = [*SCHEMA, CAPTIONS] if any(row["captions"] for row in rows) else [*SCHEMA]
    schema = pa.schema([*own, *extra], metadata=metadata)
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with atomic_path(folder / f"{name}.parquet") as path:
        pq.write_table(table, path, compression="zstd")
    return ShardInfo(name=name, samples=len(rows), regions=sum(len(r["labels"]) for r in rows), tar_bytes=tar_bytes)


def finished_shard(folder: Path, name: str, *, identity: str) -> ShardInfo | None:
    """The shard where an earlier run wrote it whole with the same identity, else None."""
    tar, sidecar = folder / f"{name}.tar", folder / f"{name}.parquet"
    if not tar.is_file() or not sidecar.is_file():
        return None
    try:
        table = pq.read_table(sidecar, columns=["labels"])
    except (pa.ArrowException, OSError):
        return None  # to be written anew
    found = (table.schema.metadata or {}).get(IDENTITY_KEY, b"")
    if found != f"{tar.stat().st_size} {identity}".encode():
        return None
    regions = len(table["labels"].combine_chunks().flatten())
    return ShardInfo(name=name, samples=len(table), regions=regions, tar_bytes=tar.stat().st_size)


def write_dataset(folder: Path, info: DatasetInfo) -> None:
    """Write dataset.json: the last step, which makes the folder a data set."""
    write_json(folder / DATASET, asdict(info))


def sidecar_row(sample: Annotations) -> dict[str, Any]:
    """A sidecar's row but for the picture's place in the tar. Errors: RiceError naming the sample and the field."""
    boxes_R4, edges = sample.boxes, (sample.width, sample.height)
    count = len(boxes_R4)
    problems = {
        "key": not _KEY.fullmatch(sample.key),
        "suffix": not _SUFFIX.fullmatch(sample.suffix),
        "width or height": not all(0 < edge <= MAX_EDGE for edge in edges),
        "boxes": boxes_R4.shape != (count, 4)
        or bool((boxes_R4[:, :2] >= boxes_R4[:, 2:]).any())
        or bool((boxes_R4[:, 2:] > np.array(edges)).any()),
        "labels": len(sample.labels) != count or min(sample.labels, default=0) < NO_LABEL,
        "tokens": len(sample.tokens) != count or any(min(ids, default=0) < 0 for ids in sample.tokens),
        "scores": len(sample.scores) != count,
        "image_labels": min(sample.image_labels, default=0) < 0,
        "captions": not all(map(_is_text, sample.captions)),
    }
    wrong = [name for name, bad in problems.items() if bad]
    if wrong:
        raise RiceError(
            f"sample {sample.key!r}: bad {', '.join(wrong)}; see rice.data.shards.Annotations for what is asked"
        )
    return {
        "key": sample.key,
        "suffix": sample.suffix,
        "width": sample.width,
        "height": sample.height,
        "boxes": boxes_R4.tolist(),
        "labels": sample.labels,
        "tokens": sample.tokens,
        "scores": sample.scores,
        "image_labels": sample.image_labels,
        "captions": sample.captions,
    }


def _is_text(caption: object) -> bool:
    """Half of a surrogate pair, which broken JSON holds, is none: Parquet's text is UTF-8."""
    return isinstance(caption, str) and not _SURROGATE.search(caption)


def _distinct(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    keys = [row["key"] for row in rows]
    if not keys:
        raise RiceError(f"shard {name}: expected at least one sample")
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RiceError(f"shard {name}: two samples have the key {twice!r}; keys must be unique")
