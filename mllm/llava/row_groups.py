"""A Parquet file that is mapped and decoded one small group of rows at a time. Imports no torch."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rice.errors import RiceError


class RowGroups:
    """Rows as dictionaries, by their number. Memory does not grow with the file. May be read from several threads,
    pickled and forked.

    size: rows of a group, the last one's excepted. count: rows that the file must have, which `described_by` tells;
    remedy: what to do where it has others, or cannot be read.
    Errors: RiceError in these two cases, also when it is unpickled.
    """

    def __init__(self, path: Path, *, size: int, count: object, described_by: str, remedy: str) -> None:
        self._told = (path, size, count, described_by, remedy)
        self._open()

    def _open(self) -> None:
        path, self._size, count, described_by, remedy = self._told
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RiceError(f"cannot read {path} ({reason}); {remedy}") from error
        if self._file.metadata.num_rows != count:
            raise RiceError(f"{path} is not the one that {described_by} describes; {remedy}")
        self._lock = threading.Lock()
        self._group: tuple[int, Any] = (-1, None)

    def __getstate__(self) -> dict[str, Any]:
        return {"_told": self._told}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def row(self, index: int) -> dict[str, Any]:
        """Row `index`; negative ones count from the end. Errors: IndexError."""
        group, offset = divmod(range(len(self))[index], self._size)
        found: dict[str, Any] = self._table(group).slice(offset, 1).to_pylist()[0]
        return found

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for group in range(self._file.metadata.num_row_groups):
            yield from self._table(group).to_pylist()

    def _table(self, group: int) -> Any:
        with self._lock:
            if self._group[0] != group:
                self._group = (group, self._file.read_row_group(group, use_threads=False))
            return self._group[1]
