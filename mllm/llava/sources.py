"""Files of conversations as rows, one after another: .json, .jsonl, .parquet, or a folder of Parquet files.

A row is what stands in the file, unchecked; `mllm.llava.parse` makes sense of it. Imports no torch.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mllm.llava.json_stream import lines_of_jsonl, rows_of_json
from mllm.llava.parse import TURNS, Reason, RefusedRowError
from rice.data.parquet import reading_parquet
from rice.errors import RiceError
from rice.files import sha256_unchanged

_PARQUET_ROWS = 1
"""Read at a time: pictures stand in them, and a dictionary of one large picture can stand for any number of rows."""

_COLUMNS = (*TURNS, "id", "image", "images", "question", "questionId", "answers", "video", "videos", "audio", "audios")


@dataclass(frozen=True)
class Source:
    """Rows of one file, or of a folder's Parquet files.

    name: unique among the sources of one call. folder: that of the file, or the one that was named.
    """

    name: str
    folder: Path
    files: tuple[Path, ...]

    @property
    def in_parquet(self) -> bool:
        """Whether rows may bring their pictures along, so that few of them fit into memory."""
        return self.files[0].suffix == ".parquet"

    def count(self) -> int | None:
        """Number of rows, where that is known without reading them. Errors: RiceError for a broken file."""
        return sum(_opened(file).metadata.num_rows for file in self.files) if self.in_parquet else None

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file, by name."""
        return {file.name: sha256_unchanged(file) for file in self.files}

    def values(self) -> Iterator[Any]:
        """What stands in the place of every row, in order; a line that is no JSON comes as the refusal that it is.

        Errors: RiceError naming a file that cannot be read.
        """
        for file in self.files:
            yield from _READERS[file.suffix](file)


def find_sources(places: Sequence[Path]) -> list[Source]:
    """One for every place, named after it. Errors: RiceError for a place that is not there or of no known kind."""
    sources: list[Source] = []
    taken: set[str] = set()
    for place in places:
        files = tuple(sorted(place.rglob("*.parquet"))) if place.is_dir() else (place,)
        if not files:
            raise RiceError(f"expected Parquet files in the folder {place}, found none; name .json files themselves")
        if not files[0].is_file():
            raise RiceError(f"no such file: {place}")
        if files[0].suffix not in _READERS:
            raise RiceError(f"expected a file {', '.join(_READERS)}, or a folder of Parquet files, got {place}")
        stem = place.resolve().name if place.is_dir() else place.stem
        name = next(n for n in (stem, *(f"{stem}-{k}" for k in range(2, len(places) + 2))) if n not in taken)
        taken.add(name)
        sources.append(Source(name, place if place.is_dir() else place.parent, files))
    return sources


def _lines(path: Path) -> Iterator[Any]:
    for line in lines_of_jsonl(path):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            yield RefusedRowError(Reason.BAD_LINE, str(error))


def _opened(path: Path) -> Any:
    with reading_parquet(path):
        return pq.ParquetFile(path, pre_buffer=False)  # with it, the whole file would be held


def _parquet(path: Path) -> Iterator[Any]:
    file = _opened(path)
    with reading_parquet(path):
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        if not {*TURNS, "question"} & set(columns):
            raise RiceError(f"{path}: expected a column {' or '.join(TURNS)}, got {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(_PARQUET_ROWS, columns=columns):
            yield from batch.to_pylist()


_READERS = {".json": rows_of_json, ".jsonl": _lines, ".parquet": _parquet}
