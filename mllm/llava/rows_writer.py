"""Writes rows.parquet of a prepared folder, in groups that `Rows` reads one at a time."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mllm.llava.rows import ROWS_PER_GROUP, SCHEMA, Row
from rice.files import atomic_path

_AT_ONCE = 32 * ROWS_PER_GROUP


@contextlib.contextmanager
def writing_rows(path: Path) -> Iterator["RowsWriter"]:
    """What writes the file: whole on a clean exit; on an exception there is none."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as file:
        writer = RowsWriter(file)
        yield writer
        writer.flush()


class RowsWriter:
    """Rows of the mixture, in order. pictures: of all rows, repeated ones too. text_only: rows without any."""

    def __init__(self, file: Any) -> None:
        self.pictures = self.text_only = 0
        self._file = file
        self._hash = hashlib.sha256()
        self._rows: list[tuple[str, Row]] = []

    def write(self, source: str, row: Row) -> None:
        """One more row."""
        self.pictures += len(row.images)
        self.text_only += not row.images
        self._rows.append((source, row))
        turns = [(turn.role, turn.text) for turn in row.turns]
        line = json.dumps([source, row.id, turns, row.images, row.sizes], ensure_ascii=False, separators=(",", ":"))
        self._hash.update(f"{line}\n".encode())
        if len(self._rows) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """To the file: all but the last time a multiple of the rows in a group, so that no group but the last is
        smaller."""
        if self._rows:
            self._file.write_table(_table(self._rows), row_group_size=ROWS_PER_GROUP)
        self._rows = []

    def fingerprint(self) -> str:
        """SHA-256 of all rows so far."""
        return self._hash.hexdigest()


def _table(rows: list[tuple[str, Row]]) -> Any:
    columns = {
        "id": [row.id for _, row in rows],
        "source": [source for source, _ in rows],
        "turns": [[(turn.role, turn.text) for turn in row.turns] for _, row in rows],
        "images": [row.images for _, row in rows],
        "heights": [[height for height, _ in row.sizes] for _, row in rows],
        "widths": [[width for _, width in row.sizes] for _, row in rows],
    }
    return pa.Table.from_pydict(columns, schema=SCHEMA)
