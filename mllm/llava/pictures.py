"""The pictures that rows name: are they there, how large, and where are those kept that came as bytes?

Headers are read, nothing is decoded unless asked. Imports no torch.
"""

import hashlib
import io
import itertools
import os
import re
import stat
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from PIL import UnidentifiedImageError

from mllm.llava.parse import Picture, Reason, RefusedRowError
from rice.curate.scan import one_line, orientation_of
from rice.data.picture import DECODER_ERRORS, open_header
from rice.errors import check_ranges
from rice.files import UnsafePathError, safe_join

IMAGES = "images"
"""Of a prepared folder: holds pictures that came as bytes."""

THREADS = 16
"""More than cores: on a network's disk a header is waited for."""

_AT_ONCE = 32
"""Pictures of one task of a thread."""

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

_PLAIN = re.compile(r"(?!\.\.?$)[^\\:\0]+")
"""A file name that means the same on every system."""

_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """Which pictures are taken.

    Args:
        max_aspect: Refuse a row with a picture whose longer edge is more than this many times its shorter one.
        max_edge: Refuse a row with a picture that has a longer edge, in pixels.
        decode: Decode every picture, not only its header; finds files that are cut off, at 40 times the work.
    """

    # LLaVA-NeXT's unpadding leaves no row of patches beyond 48:1 (336 px, 2x2 tiles, patches of 14), 32:1 (112 px).
    max_aspect: float = 20.0
    max_edge: int = 16_384
    decode: bool = False

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields that are out of range."""
        check_ranges(self, {"max_aspect": self.max_aspect >= 1, "max_edge": self.max_edge >= 1}, "rice llava prepare")


class Found(NamedTuple):
    """A picture that may be used. name: as a row names it. height, width: upright, in pixels."""

    name: str
    height: int
    width: int


@dataclass
class Gallery:
    """The pictures below `root`, each file looked at once, and those in the prepared folder, `folder`."""

    root: Path
    folder: Path
    config: PictureConfig

    def __post_init__(self) -> None:
        """Nothing has been looked at."""
        self._files: dict[str, Found | RefusedRowError] = {}
        self._folders: dict[str, str] = {}

    def look(self, pictures: Iterable[Picture], pool: ThreadPoolExecutor) -> dict[Picture, Found | RefusedRowError]:
        """What each of the pictures is, or why a row with it is refused."""
        distinct = list(dict.fromkeys(pictures))
        new = [picture for picture in distinct if picture.content is not None or picture.path not in self._files]
        groups = [new[k : k + _AT_ONCE] for k in range(0, len(new), _AT_ONCE)]
        with warnings.catch_warnings(action="ignore"):  # Pillow's, of large pictures and odd EXIF
            looked = itertools.chain.from_iterable(pool.map(self._look_at, groups))
            seen = dict(zip(new, looked, strict=True))
        self._files |= {picture.path: one for picture, one in seen.items() if picture.content is None}
        return {picture: seen[picture] if picture in seen else self._files[picture.path] for picture in distinct}

    @property
    def files(self) -> int:
        """How many distinct paths have been looked at."""
        return len(self._files)

    def keep(self, picture: Picture, name: str) -> None:
        """Write a picture that came as bytes; the same bytes are written once."""
        path = self.folder / name[1:]
        if picture.content is not None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.content)

    def _look_at(self, pictures: list[Picture]) -> list[Found | RefusedRowError]:
        return [self._one(picture) for picture in pictures]

    def _one(self, picture: Picture) -> Found | RefusedRowError:
        try:
            found = self._bytes(picture.content) if picture.content is not None else self._file(picture.path)
            self._check(found, picture.path)
        except RefusedRowError as error:
            return error
        return found

    def _file(self, name: str) -> Found:
        path = self._place(name)
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - a Path costs as much as the header
                _, height, width = header(file, decode=self.config.decode)
        except DECODER_ERRORS as error:
            raise RefusedRowError(Reason.UNREADABLE, f"{shown(name)}: {_said(error)}") from error
        return Found(name, height, width)

    def _place(self, name: str) -> str:
        """Where the file is. Its folder is made sure of once, not for every file in it: a quarter of the work.

        Errors: RefusedRowError where it is outside the root, or no file.
        """
        folder, _, file = name.rpartition("/")
        try:
            if folder not in self._folders:
                self._folders[folder] = str(safe_join(self.root, folder) if folder else self.root)
            path = f"{self._folders[folder]}/{file}"
            mode = os.lstat(path).st_mode if _PLAIN.fullmatch(file) and not name.startswith("/") else 0
            if not stat.S_ISREG(mode):
                path = str(safe_join(self.root, name))
                mode = os.stat(path).st_mode  # noqa: PTH116
        except UnsafePathError as error:
            raise RefusedRowError(Reason.OUTSIDE, shown(name)) from error
        except (OSError, ValueError, RuntimeError):  # not there, too long, not to be spelt, links in a circle
            mode = 0
        if not stat.S_ISREG(mode):  # nor a pipe, which would be waited for
            raise RefusedRowError(Reason.MISSING, shown(name))
        return path

    def _bytes(self, content: bytes) -> Found:
        try:
            kind, height, width = header(io.BytesIO(content), decode=self.config.decode)
        except DECODER_ERRORS as error:
            raise RefusedRowError(Reason.UNREADABLE, _said(error)) from error
        digest = hashlib.sha256(content).hexdigest()[:32]
        return Found(f"/{IMAGES}/{digest[:2]}/{digest}.{_SUFFIXES.get(kind, kind.lower())}", height, width)

    def _check(self, found: Found, path: str) -> None:
        short, long = sorted(found[1:])
        said = f"{shown(path)}: {found.width}x{found.height}" if path else f"{found.width}x{found.height}"
        if short < 1:
            raise RefusedRowError(Reason.UNREADABLE, said)
        if long > self.config.max_aspect * short:
            raise RefusedRowError(Reason.ASPECT, said)
        if long > self.config.max_edge:
            raise RefusedRowError(Reason.EDGE, said)


def header(file: IO[bytes], *, decode: bool = False) -> tuple[str, int, int]:
    """(Pillow's name of the format, height, width) of the upright picture. Errors: those of DECODER_ERRORS.

    decode: also decode it. EXIF that stands behind a PNG's pixels is known only then.
    """
    with open_header(file) as picture:
        if decode:
            picture.load()
        # Of a TIFF, Pillow says the size that it has upright.
        swapped = orientation_of(picture) in _TURNED and picture.format != "TIFF"
        width, height = picture.size[::-1] if swapped else picture.size
        return picture.format or "", height, width


def shown(name: str) -> str:
    """A path in a report: one line of text."""
    return " ".join(name.encode("utf-8", "backslashreplace").decode().split())[:200]


def _said(error: BaseException) -> str:
    return "not a picture" if isinstance(error, UnidentifiedImageError) else one_line(error)
