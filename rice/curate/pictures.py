"""The pictures that a curation keeps: one table and one tar a shard, as the stage `decode` left them.

Shapes: H, W one picture.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rice.curate.decode import DecodeStage
from rice.curate.stage import SHARDS
from rice.curate.tables import Row, read_rows
from rice.data.decode import DamagedPictureError, Pixels, decode_picture
from rice.errors import RiceError, os_errors_as


def kept(out: Path, shard: str) -> list[Row]:
    """Rows of `rice.curate.decode.SCHEMA` of the pictures that are in the tar, in its order."""
    return [row for row in read_rows(out / DecodeStage.name / f"{shard}.parquet") if not row["reason"]]


def decoded(out: Path, shard: str, rows: Sequence[Row]) -> Iterator[Pixels]:
    """The pictures of `rows`, RGB (H, W, 3), one by one."""
    path = out / SHARDS / f"{shard}.tar"
    with os_errors_as(f"cannot read {path}"), path.open("rb") as tar:
        for row in rows:
            tar.seek(row["offset"])
            content = tar.read(row["length"])
            try:
                yield decode_picture(content, (row["width"], row["height"]))
            except DamagedPictureError as error:
                said = f"{path} is damaged at {row['key']} ({error})"
                raise RiceError(f"{said}; remove it, and run rice curate IMAGES --out {out} again") from error
