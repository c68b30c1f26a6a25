"""Where pictures come from: folders, tar files, Parquet files with the pictures' bytes; in shards, in a fixed order.

A folder may be in COCO's layout, whose boxes come along, and any picture KEY.jpg may have a KEY.json beside it, as
SA-1B's do. Whatever lies in a source is data: names are never paths to write to, and nothing is executed.

Shapes: R annotated boxes of one picture.
"""

import os
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rice.curate.tars import DAMAGE, open_tar
from rice.data.parquet import reading_parquet
from rice.data.picture import PICTURES
from rice.errors import RiceError, os_errors_as
from rice.files import leads_out, sha256_json

_TARS = (".tar", ".tar.gz", ".tgz")
_SUFFIXES = (*PICTURES, ".gif", ".jfif", ".jpe", ".avif", ".heic")
"""What is looked at; the scan says of what is no picture that Pillow reads."""
_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
"""Of Parquet files: img2dataset names the column after the format, Hugging Face's data sets call it image."""
_ROWS = 1
"""Read at a time: a dictionary of one large picture can stand for any number of rows."""
_MOST_BYTES, _MOST_JSON = 1 << 30, 64 << 20
"""Of one picture, and of annotations beside it, that are read."""


class Annotated(NamedTuple):
    """What a COCO file says of a picture: boxes (R, 4), xyxy in pixels of a picture of width x height."""

    boxes: NDArray[np.float64]
    width: int
    height: int


class Candidate(NamedTuple):
    """A picture as it was found. content: None where the source has none, or none that can be read. annotation: of a
    COCO file, or a KEY.json's content."""

    name: str
    content: bytes | None
    annotation: bytes | Annotated | None = None


class SourceShard(Protocol):
    """Some pictures of one source."""

    @property
    def name(self) -> str:
        """Of the shard that they become."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of names and sizes: what is looked at of terabytes."""
        ...

    def count(self) -> int | None:
        """How many pictures there are, where that is known without reading them."""
        ...

    def candidates(self) -> Iterator[Candidate]:
        """In the same order every time. Errors: RiceError where the source cannot be read at all."""
        ...


@dataclass(frozen=True)
class FolderShard:
    """Files of a folder. annotated: those that a COCO file names."""

    name: str
    root: Path
    files: tuple[str, ...]
    annotated: dict[str, Annotated]

    def fingerprint(self) -> str:
        """Of names, sizes and boxes."""
        paths = [self.root / file for file in self.files]
        sizes = [[*map(_size, (path, path.with_suffix(".json")))] for path in paths]
        boxes = [[_shown(file), found.boxes.tolist(), *found[1:]] for file, found in self.annotated.items()]
        return sha256_json([[_shown(file) for file in self.files], sizes, boxes])

    def count(self) -> int:
        """Its files."""
        return len(self.files)

    def candidates(self) -> Iterator[Candidate]:
        """By name. A link that leaves the folder has no content, and says so."""
        for file in self.files:
            path = self.root / file
            if leads_out(path, self.root) and path.exists():
                yield Candidate(f"{_shown(file)}: a link that leaves {self.root.name}", None)
                continue
            annotation = self.annotated.get(file) or self._beside(path.with_suffix(".json"))
            yield Candidate(_shown(file), _read(path, _MOST_BYTES), annotation)

    def _beside(self, path: Path) -> bytes | None:
        return None if leads_out(path, self.root) else _read(path, _MOST_JSON)


@dataclass(frozen=True)
class TarShard:
    """A tar file in WebDataset's layout: KEY.jpg, and KEY.json next to it."""

    name: str
    path: Path

    def fingerprint(self) -> str:
        """Of its name and size."""
        return _fingerprint(self.path)

    def count(self) -> None:
        """A tar has no list of what it holds."""

    def candidates(self) -> Iterator[Candidate]:
        """In the tar's order. A file that is cut off ends with a candidate that has no content, and says so."""
        pending: Candidate | None = None
        key, annotation, whole = "", None, False
        try:
            with open_tar(self.path) as tar:
                for member in tar:
                    suffix = Path(member.name).suffix.lower()
                    if not (member.isfile() or member.islnk()) or suffix not in (*_SUFFIXES, ".json"):
                        continue
                    stem, content = member.name[: -len(suffix)], _content(tar, member, suffix)
                    if pending is not None and (stem != key or suffix != ".json"):
                        yield pending
                        pending = None
                    if stem != key:
                        key, annotation = stem, None
                    if suffix != ".json":
                        pending = Candidate(_shown(member.name), content, annotation)
                    elif pending is None:
                        annotation = content
                    else:
                        pending = pending._replace(annotation=content)
                whole = _ends(tar)
        except (*DAMAGE, zlib.error):
            whole = False
        except OSError as error:  # of a disk or a network: it may be there again
            raise RiceError(f"cannot read {self.path}: {error.strerror or error}") from error
        if pending is not None:
            yield pending
        if not whole:
            yield Candidate(f"{self.path.name}: cut off or no tar file", None)


@dataclass(frozen=True)
class ParquetShard:
    """A Parquet file with a column of pictures' bytes, as img2dataset and Hugging Face write."""

    name: str
    path: Path

    def fingerprint(self) -> str:
        """Of its name and size."""
        return _fingerprint(self.path)

    def count(self) -> int:
        """Its rows. Errors: RiceError where the file is not readable."""
        return int(self._opened().metadata.num_rows)

    def _opened(self) -> Any:
        import pyarrow.parquet as pq

        with reading_parquet(self.path):
            return pq.ParquetFile(self.path)

    def candidates(self) -> Iterator[Candidate]:
        """By row; named by `key` where there is such a column, else by number."""
        file = self._opened()
        with reading_parquet(self.path):
            column = _picture_column(self.path, file.schema_arrow)
            keys = ["key"] if "key" in file.schema_arrow.names else []
            row = 0
            for batch in file.iter_batches(_ROWS, columns=[column, *keys]):
                contents = _contents(batch[column])
                names = batch["key"].to_pylist() if keys else [None] * len(contents)
                for name, content in zip(names, contents, strict=True):
                    yield Candidate(f"row {row}" if name is None else _shown(str(name)), content)
                    row += 1


def find_sources(places: Sequence[Path], per_shard: int) -> list[SourceShard]:
    """All shards of all places. per_shard: pictures of a folder in each; a tar or Parquet file is a shard itself.

    Errors: RiceError for a place that is not there, or holds no pictures; a broken COCO file.
    """
    shards: list[SourceShard] = []
    names: set[str] = set()
    for place in places:
        stem = _distinct(_plain(place.resolve().name.split(".")[0]), names)
        found = _of_place(place, stem, per_shard)
        if not found:
            raise RiceError(f"expected pictures, tar or Parquet files at {place}, found none")
        shards += found
    return shards


def _of_place(place: Path, stem: str, per_shard: int) -> list[SourceShard]:
    if place.is_file():
        if (archive := _archive(f"{stem}-000000", place)) is None:
            raise RiceError(f"expected a folder, a tar file or a Parquet file, got {place}")
        return [archive]
    if not place.is_dir():
        raise RiceError(f"no such file or folder: {place}")
    files = _files(place)
    archives = [file for file in files if _archive("", place / file) is not None]
    tars = {_stem(file) for file in archives if not file.lower().endswith(".parquet")}
    # A Parquet file beside its tar holds what img2dataset knows of the pictures, not the pictures.
    archives = [file for file in archives if not (file.lower().endswith(".parquet") and _stem(file) in tars)]
    shards = [_archive(f"{stem}-{k:06d}", place / file) for k, file in enumerate(archives)]
    pictures = [file for file in files if Path(file).suffix.lower() in _SUFFIXES]
    annotated = _annotated(place) if pictures else {}
    groups = [tuple(pictures[k : k + per_shard]) for k in range(0, len(pictures), per_shard)]
    folders: list[SourceShard] = [
        FolderShard(f"{stem}-{k:06d}", place, group, {file: annotated[file] for file in group if file in annotated})
        for k, group in enumerate(groups, start=len(archives))
    ]
    return [*(shard for shard in shards if shard is not None), *folders]


def _stem(file: str) -> str:
    """Without the suffix that makes it an archive."""
    suffix = next(suffix for suffix in (*_TARS, ".parquet") if file.lower().endswith(suffix))
    return file[: -len(suffix)]


def _archive(name: str, path: Path) -> SourceShard | None:
    if path.name.lower().endswith(_TARS):
        return TarShard(name, path)
    return ParquetShard(name, path) if path.suffix.lower() == ".parquet" else None


def _files(place: Path) -> list[str]:
    """Names below the folder, sorted; hidden ones and links to folders are passed over."""
    found = []
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = Path(folder).relative_to(place)
        found += [(base / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def _annotated(place: Path) -> dict[str, Annotated]:
    """Pictures of a folder in COCO's or its relatives' layout, by name; crowds are left out."""
    from rice.data.coco import find_splits, open_split

    try:
        splits = find_splits(place)
    except RiceError:
        return {}
    annotated: dict[str, Annotated] = {}
    for name in (name for name, split in splits.items() if split.folder.is_dir()):
        for image in open_split(place, name).images:
            single = [annotation.box for annotation in image.annotations if not annotation.iscrowd]
            boxes_R4 = np.array(single, dtype=np.float64).reshape(-1, 4)
            file = image.path.relative_to(place).as_posix()
            annotated.setdefault(file, Annotated(boxes_R4, image.width, image.height))
    return annotated


def _plain(name: str) -> str:
    """Letters, digits, _ and -; not too long for a key."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name).strip("_-")[:40] or "pictures"


def _distinct(name: str, taken: set[str]) -> str:
    chosen = next(c for c in (name, *(f"{name}-{k}" for k in range(2, 10_000))) if c not in taken)
    taken.add(chosen)
    return chosen


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> bytes | None:
    """None where the tar ends before the member does, and for what is absurdly large."""
    if member.size > (_MOST_JSON if suffix == ".json" else _MOST_BYTES):
        return None
    try:
        stream = tar.extractfile(member)
    except KeyError:  # a link to what is not in the tar
        return None
    content = stream.read() if stream is not None else b""
    return content if len(content) == member.size or member.islnk() else None


def _ends(tar: tarfile.TarFile) -> bool:
    """Whether zeros, and nothing else, end the tar; the library takes a header that is cut off for the end, too."""
    stream = tar.fileobj
    if stream is None:
        return False
    stream.seek(tar.offset)
    rest = stream.read(8 * tarfile.RECORDSIZE)
    return len(rest) >= tarfile.BLOCKSIZE and not rest.strip(b"\0")


def _fingerprint(archive: Path) -> str:
    with os_errors_as(f"cannot read {archive}"):
        return sha256_json([_shown(archive.name), archive.stat().st_size])


def _read(path: Path, most: int) -> bytes | None:
    """None for what is no file (a pipe would be waited for), cannot be read, or is absurdly large."""
    try:
        status = path.stat()
        return path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= most else None
    except OSError:
        return None


def _size(path: Path) -> int:
    """-1 for a file that cannot be read, as a link to nothing."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _shown(name: str) -> str:
    """A name as text: bytes that are not UTF-8 are spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _picture_column(path: Path, schema: Any) -> str:
    import pyarrow as pa

    def holds(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and holds(kind.field("bytes").type)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    for name in _COLUMNS:
        if name in schema.names and holds(schema.field(name).type):
            return name
    raise RiceError(
        f"{path}: expected pictures' bytes in a column named {', '.join(_COLUMNS[:-1])} or {_COLUMNS[-1]}, got "
        f"{', '.join(schema.names)}"
    )


def _contents(column: Any) -> list[bytes | None]:
    values = column.to_pylist()
    contents = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    return [None if content is None or len(content) > _MOST_BYTES else content for content in contents]
