"""Conversations about pictures: one row, and the prepared folder of rows that training reads.

    FOLDER/rows.parquet    a row for every conversation, in small groups that are decoded one at a time
    FOLDER/prepared.json   the image root, what was read, kept, changed and refused, digests
    FOLDER/images/         pictures that came as bytes, in Parquet

`rice llava prepare` writes it. Imports no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import pyarrow as pa
from PIL import Image, ImageOps

from mllm.llava.row_groups import RowGroups
from rice.data.picture import DECODER_ERRORS, open_picture
from rice.errors import RiceError
from rice.files import read_object, safe_join

FORMAT = 1
ROWS = "rows.parquet"
PREPARED = "prepared.json"
MARK = "<image>"
"""Where a picture stands in a text."""

ROWS_PER_GROUP = 64
"""Decoding one group, which reading any of its rows takes, is half a millisecond."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("turns", pa.list_(pa.struct([("role", pa.string()), ("text", pa.string())]))),
        ("images", pa.list_(pa.string())),
        ("heights", pa.list_(pa.int32())),
        ("widths", pa.list_(pa.int32())),
    ]
)

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says. text: holds a mark `<image>` for every picture that belongs there."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation: perhaps a system turn, then questions of the user, each with the assistant's answer.

    id: unique in its folder. images: paths relative to the image root, one for each mark in order of the marks; a path
    that starts with "/" is relative to the prepared folder, which holds the pictures that came as bytes. sizes:
    (height, width) in pixels of each, upright (EXIF applied).
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()


class Rows(Sequence[Row]):
    """A prepared folder, read back. Memory does not grow with the number of rows: the file is mapped, and one group of
    rows at a time is decoded. May be read from several threads, pickled and forked.

    images: the image root, where it is no longer the one that prepared.json names.
    Errors: RiceError for a folder that `rice llava prepare` did not write.
    """

    def __init__(self, folder: Path, images: Path | None = None) -> None:
        self.folder = folder
        if not (folder / PREPARED).is_file():
            raise RiceError(f"expected a folder that rice llava prepare wrote, found no {folder / PREPARED}")
        self.prepared = read_object(folder / PREPARED)
        if self.prepared.get("format") != FORMAT:
            raise RiceError(f"{folder / PREPARED} is of another version of this program; prepare the rows anew")
        self.images = images if images is not None else Path(self.prepared["images"])
        self._groups = RowGroups(
            folder / ROWS,
            size=ROWS_PER_GROUP,
            count=self.prepared.get("kept"),
            described_by=PREPARED,
            remedy="prepare the rows anew",
        )

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """Row `index`. Errors: IndexError."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return _row(self._groups.row(index))

    def __iter__(self) -> Iterator[Row]:
        return map(_row, self._groups)

    def fingerprint(self) -> str:
        """SHA-256 of all ids, turns, image paths and sizes, as they were prepared; not of the pictures' pixels."""
        return str(self.prepared["fingerprint"])

    def path(self, row: Row, k: int) -> Path:
        """File of the picture of mark k. Errors: UnsafePathError for a path that leaves its root."""
        name = row.images[k]
        return safe_join(self.folder, name[1:]) if name.startswith("/") else safe_join(self.images, name)

    def open_image(self, row: Row, k: int) -> Image.Image:
        """The picture of mark k: RGB, upright.

        Errors: RiceError naming the file: missing, damaged, or of another size than when it was prepared.
        """
        from rice.data.decode import to_rgb  # torch

        path = self.path(row, k)
        picture = open_picture(path)
        try:
            picture = ImageOps.exif_transpose(picture)
        except DECODER_ERRORS as error:  # of damaged EXIF
            raise RiceError(f"cannot tell how to turn the image {path}: {error}; replace it") from error
        height, width = row.sizes[k]
        if picture.size != (width, height):
            raise RiceError(
                f"{path} has {picture.width}x{picture.height} pixels, and had {width}x{height} when row {row.id!r} was "
                f"prepared; prepare the rows anew, with --decode"
            )
        return to_rgb(picture)


def _row(values: dict[str, Any]) -> Row:
    return Row(
        id=values["id"],
        turns=tuple(Turn(turn["role"], turn["text"]) for turn in values["turns"]),
        images=tuple(values["images"]),
        sizes=tuple(zip(values["heights"], values["widths"], strict=True)),
    )
