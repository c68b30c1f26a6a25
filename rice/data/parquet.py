"""Reading Parquet files from outside."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rice.errors import RiceError


@contextlib.contextmanager
def reading_parquet(path: Path) -> Iterator[None]:
    """Errors: RiceError naming the file, for all that pyarrow raises of one that is cut off, damaged or no Parquet.

    Names of columns and texts that are not UTF-8 are a ValueError of Python's own.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RiceError(f"{path} is not a readable Parquet file ({reason[:200]}); get a whole copy") from error
