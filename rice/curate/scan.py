"""Stage `scan`: what every picture is by its header, and which of them the next stages need not look at.

Nothing is decoded here: a header of 100 bytes can announce a terabyte of pixels. OUT/scan/SHARD.parquet has a row for
every picture that was found, in the source's order.
"""

import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from rice.curate.config import CheckConfig
from rice.curate.sources import Candidate, SourceShard
from rice.curate.stage import Done, Stage, Work
from rice.curate.tables import write_rows
from rice.data.picture import DECODER_ERRORS, open_header
from rice.data.shards import MAX_EDGE

MISSING, DAMAGED, BOMB = "no content", "damaged", "too many pixels"
SMALL, LARGE, DUPLICATE = "edge below min_edge", "edge above 65535", "duplicate"

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("digest", pa.binary(16)),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""digest: the first half of the content's SHA-256. width, height: upright. reason: "" for a picture that stays."""

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@dataclass(frozen=True)
class ScanStage(Stage):
    """Header, size and hash of every picture."""

    out: Path
    sources: Mapping[str, SourceShard]
    config: CheckConfig

    name: ClassVar[str] = "scan"

    def settings(self) -> dict[str, Any]:
        """What makes a picture too small or too large."""
        return asdict(self.config)

    def inputs(self, shard: str) -> list[str]:
        """The source's names and sizes."""
        return [self.sources[shard].fingerprint()]

    def only(self, shard: str) -> "ScanStage":
        """Without the other sources."""
        return replace(self, sources={shard: self.sources[shard]})

    def open(self, device: str) -> Work:
        """Nothing is loaded."""
        return self._scan

    def _scan(self, shard: str) -> Generator[None, None, Done]:
        rows = []
        for candidate in self.sources[shard].candidates():
            rows.append(described(candidate, self.config))
            yield
        path = self.folder / f"{shard}.parquet"
        write_rows(path, rows, SCHEMA)
        drops = Counter(row["reason"] for row in rows if row["reason"])
        counts = Counter(found=len(rows), bytes=sum(row["bytes"] for row in rows))
        return Done(products=(path,), counts=counts, drops=drops)


def identity_of(candidate: Candidate) -> tuple[str, bytes]:
    """Name and hash."""
    return candidate.name, hashlib.sha256(candidate.content or b"").digest()[:16]


def described(candidate: Candidate, config: CheckConfig) -> dict[str, Any]:
    """A row of SCHEMA."""
    content = candidate.content or b""
    name, digest = identity_of(candidate)
    row = {
        "source": name,
        "digest": digest,
        "bytes": len(content),
        "format": "",
        "width": 0,
        "height": 0,
    }
    if not content:
        return row | {"reason": MISSING, "detail": ""}
    try:
        with warnings.catch_warnings(action="ignore"), open_header(io.BytesIO(content)) as picture:
            # Of a TIFF, Pillow says the size that it has upright.
            swapped = orientation_of(picture) in _TURNED and picture.format != "TIFF"
            width, height = picture.size[::-1] if swapped else picture.size
            row |= {"format": picture.format or "", "width": width, "height": height}
    except Image.DecompressionBombError as error:
        return row | {"reason": BOMB, "detail": one_line(error)}
    except DECODER_ERRORS as error:
        return row | {"reason": DAMAGED, "detail": one_line(error)}
    return row | {"reason": _reason(width, height, config), "detail": f"{width}x{height}"}


def orientation_of(picture: Image.Image) -> int:
    """EXIF's, 1 to 8; 1 where it says none. Nothing is decoded for it, which Pillow's own method for PNG does."""
    found = Image.Image.getexif(picture).get(_ORIENTATION)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _reason(width: int, height: int, config: CheckConfig) -> str:
    if width * height > config.most_pixels:
        return BOMB
    if min(width, height) < config.min_edge:
        return SMALL
    return LARGE if max(width, height) > MAX_EDGE else ""


def one_line(error: BaseException) -> str:
    """What a decoder says, without the address of the bytes in memory."""
    said = re.sub(r" ?<_io\.BytesIO object at 0x[0-9a-f]+>", "", str(error))
    return " ".join(said.split())[:200] or type(error).__name__


def duplicates(out: Path, shards: Sequence[str]) -> dict[str, frozenset[int]]:
    """Rows of each shard whose content an earlier row has, of this shard or one before it.

    All hashes are compared at once, in about 84 bytes a picture at most.
    """
    halves, bounds = [np.zeros((0, 2), np.uint64)], [0]
    kept = [np.zeros(0, bool)]
    for shard in shards:
        table = pq.read_table(out / ScanStage.name / f"{shard}.parquet", columns=["digest", "reason"])
        digests = b"".join(table["digest"].to_pylist())
        halves.append(np.frombuffer(digests, np.uint64).reshape(-1, 2))
        kept.append(np.array([not reason for reason in table["reason"].to_pylist()], dtype=bool))
        bounds.append(bounds[-1] + len(table))
    again = _seen_before(np.concatenate(halves), np.concatenate(kept))
    cuts = np.searchsorted(again, bounds)
    return {shard: frozenset((again[cuts[k] : cuts[k + 1]] - bounds[k]).tolist()) for k, shard in enumerate(shards)}


def _seen_before(digests_N2: NDArray[np.uint64], kept_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of the rows that are kept, those that are equal to an earlier one; sorted."""
    rows = np.flatnonzero(kept_N)
    order = rows[np.lexsort((rows, digests_N2[rows, 0], digests_N2[rows, 1]))]
    same = (digests_N2[order[1:]] == digests_N2[order[:-1]]).all(axis=1)
    return np.sort(order[1:][same])
