"""Stage `decode`: every picture that the scan left is decoded once, made plain where it is not, and put into a tar.

Plain is what needs no turning, and has neither four inks nor more than 8 bits of grey. Bytes of plain pictures are
copied, also with a palette or an alpha channel, which readers of shards pass over. Others are encoded anew: JPEGs as
JPEG of quality 95, the rest as PNG. OUT/shards/SHARD.tar holds the pictures, and
OUT/decode/SHARD.parquet a row for each that was found, with the reason why it is not in the tar.

Shapes: R annotated boxes of one picture, xyxy, pixels of the upright picture.
"""

import contextlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rice.curate.scan import DAMAGED, DUPLICATE, ScanStage, identity_of, one_line, orientation_of
from rice.curate.sources import Annotated, Candidate, SourceShard
from rice.curate.stage import SHARDS, Done, Stage, Work
from rice.curate.tables import read_rows, write_rows
from rice.data.decode import DamagedPictureError, decode_picture, to_rgb
from rice.data.jpeg_window import restart_interval
from rice.data.picture import DECODER_ERRORS, open_header
from rice.data.shards import Append, write_tar
from rice.errors import RiceError
from rice.files import make_folder, sha256_json

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("converted", pa.string()),
        ("key", pa.string()),
        ("suffix", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("annotated", pa.list_(pa.list_(pa.float64(), 4))),
        ("confidence", pa.list_(pa.float32())),
    ]
)
"""reason: "" for what is in the tar. converted: what was not plain about it. annotated, confidence: of the source's own
regions; null where the source says nothing of them, or, as `detail` tells, not of this picture."""

_QUALITY = 95
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm", "GIF": "gif"}


@dataclass(frozen=True)
class DecodeStage(Stage):
    """Pictures into tars. twice: rows of each shard that are duplicates of earlier ones."""

    out: Path
    sources: Mapping[str, SourceShard]
    twice: Mapping[str, frozenset[int]]

    name: ClassVar[str] = "decode"

    def settings(self) -> dict[str, Any]:
        """Nothing may be set."""
        return {}

    def inputs(self, shard: str) -> list[str]:
        """What the scan found, and which of it is there already."""
        return [self.before(ScanStage.name, shard).digest, sha256_json(sorted(self.twice[shard]))]

    def only(self, shard: str) -> "DecodeStage":
        """Without the other sources."""
        return replace(self, sources={shard: self.sources[shard]}, twice={shard: self.twice[shard]})

    def open(self, device: str) -> Work:
        """Nothing is loaded."""
        return self._decode

    def _decode(self, shard: str) -> Generator[None, None, Done]:
        scanned = read_rows(self.out / ScanStage.name / f"{shard}.parquet")
        rows: list[dict[str, Any]] = []
        tar = self.out / SHARDS / f"{shard}.tar"
        make_folder(tar.parent)
        with contextlib.ExitStack() as stack:
            append: Append | None = None
            found = self.sources[shard].candidates()
            for number, (row, candidate) in enumerate(itertools.zip_longest(scanned, found)):
                if row is None or candidate is None or _identity(row) != identity_of(candidate):
                    raise RiceError(f"the source of {shard} was changed meanwhile; start again with another --out")
                if number in self.twice[shard]:
                    row |= {"reason": DUPLICATE, "detail": ""}
                rows.append(row := _decoded(row, candidate))
                if not row["reason"]:
                    append = append or stack.enter_context(write_tar(tar))
                    key = f"{shard}-{number:06d}"
                    row |= {"key": key, "length": len(row["content"])}
                    row["offset"] = append(f"{key}.{row['suffix']}", row["content"])
                row.pop("content", None)
                yield
        return self._written(shard, rows, tar)

    def _written(self, shard: str, rows: list[dict[str, Any]], tar: Path) -> Done:
        path = self.folder / f"{shard}.parquet"
        write_rows(path, rows, SCHEMA)
        kept = [row for row in rows if not row["reason"]]
        odd = Counter(f"converted: {row['converted']}" for row in kept if row["converted"])
        odd["annotations not used"] = sum(bool(row["detail"]) for row in kept)
        counts = Counter(pictures=len(kept), bytes=sum(row["length"] for row in kept)) + odd
        return Done(
            products=(path, tar) if kept else (path,),
            counts=counts,
            drops=Counter(row["reason"] for row in rows if row["reason"]),
        )


def _identity(row: dict[str, Any]) -> tuple[str, bytes]:
    return row["source"], row["digest"]


def _decoded(row: dict[str, Any], candidate: Candidate) -> dict[str, Any]:
    """A row of SCHEMA, and the picture's plain `content`, from a row of the scan."""
    plain = {name: row[name] for name in ("source", "reason", "detail", "width", "height")}
    if row["reason"]:
        return plain
    try:
        content, suffix, converted, orientation = _plain(candidate.content or b"", row["format"])
        decode_picture(content, (row["width"], row["height"]))
    except (DamagedPictureError, *DECODER_ERRORS) as error:
        return plain | {"reason": DAMAGED, "detail": one_line(error)}
    plain |= {"content": content, "suffix": suffix, "converted": converted, "detail": ""}
    try:
        return plain | own_regions(candidate.annotation, row["width"], row["height"], orientation)
    except RiceError as error:
        return plain | {"detail": str(error)[:200]}


class Plain(NamedTuple):
    """converted: what was not plain about it. orientation: EXIF's, 1 for upright."""

    content: bytes
    suffix: str
    converted: str
    orientation: int


def _plain(content: bytes, kind: str) -> Plain:
    with open_header(io.BytesIO(content)) as picture:
        orientation = orientation_of(picture)
        reason = _not_plain(picture, kind, orientation)
        if not reason:
            return Plain(content, _SUFFIXES[kind], "", 1)
        upright = to_rgb(ImageOps.exif_transpose(picture))
    buffer, jpeg = io.BytesIO(), kind in ("JPEG", "MPO")
    if jpeg:
        markers = restart_interval(upright.width)
        upright.save(buffer, "JPEG", quality=_QUALITY, subsampling="4:2:0", restart_marker_blocks=markers)
    else:
        upright.save(buffer, "PNG")
    return Plain(buffer.getvalue(), "jpg" if jpeg else "png", reason, orientation)


def _not_plain(picture: Image.Image, kind: str, orientation: int) -> str:
    if orientation != 1:
        return "turned"
    if picture.mode == "CMYK":
        return "CMYK"
    if picture.mode == "F":
        raise DamagedPictureError("pixels of floating point, whose range is not known")
    if picture.mode[0] == "I":
        return "16 bits"
    return "" if kind in _SUFFIXES and getattr(picture, "n_frames", 1) == 1 else f"{kind.lower()}"


def own_regions(annotation: bytes | Annotated | None, width: int, height: int, orientation: int) -> dict[str, Any]:
    """`annotated` and `confidence` of SCHEMA, for a picture of width x height once it is upright.

    Errors: RiceError for annotations that cannot be read, or of a picture of another size.
    """
    stored = (height, width) if orientation >= 5 else (width, height)
    if isinstance(annotation, bytes):
        found = read_annotations(annotation, stored)
    else:
        found = annotation and (annotation, np.ones(len(annotation.boxes), np.float32))
    if found is None:
        return {"annotated": None, "confidence": None}
    (boxes_R4, *given), scores_R = found
    if tuple(given) not in (stored, (width, height)):
        raise RiceError(f"annotated at {given[0]}x{given[1]}, the picture has {width}x{height}")
    if tuple(given) == stored:
        boxes_R4 = turned_boxes(boxes_R4, stored, orientation)
    return {"annotated": boxes_R4.tolist(), "confidence": scores_R.tolist()}


def read_annotations(content: bytes, stored: tuple[int, int]) -> tuple[Annotated, NDArray[np.float32]] | None:
    """SA-1B's regions and their predicted IoU; None of a JSON file about something else.

    stored: (width, height), where the file does not say of what size its picture is. Errors: RiceError.
    """
    from rice.curate.proposals.boxes import sa1b_proposals

    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RiceError(f"the JSON file beside it is not valid: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("annotations"), list):
        return None
    image = document.get("image")
    said = tuple(image.get(name) for name in ("width", "height")) if isinstance(image, dict) else stored
    width, height = (edge if type(edge) is int and edge > 0 else own for edge, own in zip(said, stored, strict=True))
    if (width, height) not in (stored, stored[::-1]):  # before a mask of any size that a file may claim is drawn
        raise RiceError(f"annotated at {width}x{height}, the picture has {stored[0]}x{stored[1]}")
    found = sa1b_proposals(document, width, height)
    return Annotated(found.boxes, width, height), found.scores


def turned_boxes(boxes_R4: NDArray[np.float64], size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Boxes of a picture of `size` (width, height) as stored, in the picture turned upright as EXIF says."""
    width, height = size
    x0, y0, x1, y1 = boxes_R4.T
    across, down = (x0, x1), (y0, y1)
    if orientation in (2, 3, 7, 8):
        across = (width - x1, width - x0)
    if orientation in (3, 4, 6, 7):
        down = (height - y1, height - y0)
    if orientation >= 5:
        across, down = down, across
    return np.stack([across[0], down[0], across[1], down[1]], axis=1)
