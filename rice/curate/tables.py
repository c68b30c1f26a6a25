"""Tables of a stage: one Parquet file a shard, read and written whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rice.errors import RiceError
from rice.files import atomic_path

Row = dict[str, Any]


def write_rows(path: Path, rows: Sequence[Row], schema: pa.Schema) -> None:
    """Whole or not at all; the same rows, the same bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd")


def read_rows(path: Path) -> list[Row]:
    """All rows. Errors: RiceError where the file is not there or not readable."""
    try:
        rows: list[Row] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        what = f"cannot read {path} ({reason})"
        raise RiceError(f"{what}; remove its .json too and run the same command again") from error
    return rows
