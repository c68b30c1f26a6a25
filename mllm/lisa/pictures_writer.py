"""Writes a prepared folder of pictures, in groups that `Pictures` reads one at a time, and counts what is left out."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mllm.lisa.pictures import ABOUT, FORMAT, PICTURES_PER_GROUP, SCHEMA, TABLE, Picture
from rice.data.picture import DECODER_ERRORS, open_header
from rice.data.segmentation import encode_segmentation
from rice.data.splits import scan
from rice.errors import RiceError
from rice.files import UnsafePathError, atomic_path, make_folder, safe_join, write_json

NAMED = 20
"""What was refused, of every reason, that pictures.json names."""

_ORIENTATION, _UPSIDE_DOWN, _ON_THE_SIDE = 0x0112, (2, 3, 4), (5, 6, 7, 8)
"""EXIF's tag, and its values that keep and that swap width and height."""

_AT_ONCE = 32 * PICTURES_PER_GROUP
_PRINTED = 3


@dataclass
class Refusals:
    """What cannot be used, by reason, with the first ids: nothing is left out silently."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, id_: object) -> None:
        """One more."""
        self.counts[reason] += 1
        named = self.first.setdefault(reason, [])
        if len(named) < NAMED:
            named.append(str(id_).encode("utf-8", "backslashreplace").decode())

    def as_json(self) -> dict[str, Any]:
        """{reason: {"count": n, "first": [id, ...]}}."""
        return {reason: {"count": count, "first": self.first[reason]} for reason, count in self.counts.items()}

    def lines(self) -> list[str]:
        """For people: 'no segmentation: 3 (a, b, c)'."""
        return [
            f"{reason}: {count:,} ({', '.join(self.first[reason][:_PRINTED])}{', ...' if count > _PRINTED else ''})"
            for reason, count in self.counts.items()
        ]


class UnusableError(Exception):
    """A target cannot be used; the message is the reason under which it is counted."""


def runs_of(segmentation: Any, height: int, width: int) -> str:
    """COCO's compressed run lengths of one annotation's segmentation.

    Errors: UnusableError for none, a damaged one, or one without a pixel.
    """
    from pycocotools import mask as rle

    if segmentation is None:
        raise UnusableError("its annotation has no segmentation")
    try:
        code = encode_segmentation(segmentation, height, width)
    except ValueError as error:
        raise UnusableError("its segmentation is damaged") from error
    if not rle.area({"size": [height, width], "counts": code}):
        raise UnusableError("its mask has no pixel")
    return code


def clean(text: object) -> str | None:
    """A text from outside without surplus white space; None where there is nothing in it that could be read."""
    if not isinstance(text, str):
        return None
    words = " ".join(text.split())
    try:
        words.encode()
    except UnicodeEncodeError:  # half a surrogate pair, or bytes that are no UTF-8
        return None
    return words or None


def size_of(path: Path, upright: bool = False) -> tuple[int, int]:
    """(height, width) of a picture, from its header; upright: turned as EXIF says.

    Errors: UnusableError for a file that is no picture; for one that has to be mirrored or turned upside down.
    """
    try:
        with open_header(path) as picture:
            width, height = picture.size
            orientation = picture.getexif().get(_ORIENTATION, 1) if upright else 1
    except DECODER_ERRORS as error:
        raise UnusableError("unreadable picture") from error
    if orientation in _UPSIDE_DOWN:  # `Pictures.open_image` would not know
        raise UnusableError("EXIF turns its picture in a way that does not show in its size")
    return (width, height) if orientation in _ON_THE_SIDE else (height, width)


def files_in(folder: Path, parts: Iterable[str] = ("",)) -> frozenset[str]:
    """Names of the files that may be used below some parts of a picture folder (the whole one), relative to it.

    Links that lead out of the folder are none, but the folder and its parts may be links themselves.
    """
    return frozenset(
        f"{part}/{name}" if part else name
        for part in parts
        if (folder / part).is_dir()
        for name, entry in scan(folder / part)
        if not entry.is_symlink() or _stays(folder / part, name)
    )


def _stays(folder: Path, name: str) -> bool:
    try:
        return safe_join(folder, name).is_file()
    except UnsafePathError:
        return False


def write_pictures(folder: Path, about: dict[str, Any], found: Iterable[Picture], refusals: Refusals) -> None:
    """Write FOLDER anew. about: what pictures.json says besides counts, refusals and fingerprint. refusals: filled
    while `found` runs.

    Errors: RiceError where no picture is left, with the reasons.
    """
    make_folder(folder)
    (folder / ABOUT).unlink(missing_ok=True)  # a folder without it is one that is not finished
    with _writing(folder / TABLE) as writer:
        for picture in found:
            writer.write(picture)
        if not writer.counts["pictures"]:
            reasons = "; ".join(refusals.lines()) or "nothing in it"
            raise RiceError(f"{about['name']} ({about['split']}) has no picture that can be used: {reasons}")
    counted = {"counts": dict(writer.counts), "refused": refusals.as_json(), "fingerprint": writer.fingerprint()}
    write_json(folder / ABOUT, {"format": FORMAT, **about, **counted})


@contextlib.contextmanager
def _writing(path: Path) -> Iterator["_Writer"]:
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as file:
        writer = _Writer(file)
        yield writer
        writer.flush()


class _Writer:
    def __init__(self, file: Any) -> None:
        self.counts = Counter(pictures=0, targets=0, texts=0, absent=0)
        self._file = file
        self._hash = hashlib.sha256()
        self._pictures: list[dict[str, Any]] = []

    def write(self, picture: Picture) -> None:
        self.counts["pictures"] += 1
        self.counts["targets"] += len(picture.targets)
        self.counts["texts"] += sum(len(target.texts) for target in picture.targets)
        self.counts["absent"] += sum(target.absent for target in picture.targets)
        row = _row(picture)
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        self._hash.update(f"{line}\n".encode())
        self._pictures.append(row)
        if len(self._pictures) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """All but the last time a multiple of a group's pictures, so that no group but the last is smaller."""
        if self._pictures:
            table = pa.Table.from_pylist(self._pictures, schema=SCHEMA)
            self._file.write_table(table, row_group_size=PICTURES_PER_GROUP)
        self._pictures = []

    def fingerprint(self) -> str:
        return self._hash.hexdigest()


def _row(picture: Picture) -> dict[str, Any]:
    targets = [{name: getattr(target, name) for name in target.__slots__} for target in picture.targets]
    return {name: getattr(picture, name) for name in picture.__slots__} | {"targets": targets}
