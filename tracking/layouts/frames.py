"""The frame files of a clip: found by one listing of its folder, checked against their numbering, not opened."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from rice.data.picture import DECODER_ERRORS, PICTURES, open_header
from rice.data.video import natural_key
from rice.errors import RiceError
from rice.files import refuse_links_out
from tracking.sequence import PictureFiles

_SUFFIXES = frozenset(PICTURES)
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
_EXIF_ORIENTATION, _FIRST_ON_ITS_SIDE = 0x0112, 5


def names_in(folder: Path) -> list[str]:
    """Names of all that is visible in a folder, in no order.

    Errors: RiceError naming a folder that cannot be listed, or a picture in it that is a link and leaves it.
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name[0] != "."]
            links = pictures_among(entry.name for entry in found if entry.is_symlink())
            refuse_links_out((folder / name for name in links), folder)
            return [entry.name for entry in found]
    except OSError as error:
        raise RiceError(f"cannot list the folder {folder}: {error.strerror or error}") from error


def folders_in(folder: Path) -> list[Path]:
    """Visible folders within one, links to folders included, in natural order. Errors: as `names_in`."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name[0] != "." and entry.is_dir()]
    except OSError as error:
        raise RiceError(f"cannot list the folder {folder}: {error.strerror or error}") from error
    return [folder / name for name in sorted(names, key=natural_key)]


def pictures_among(names: Iterable[str]) -> list[str]:
    """The names with a picture's suffix."""
    return [name for name in names if name[name.rfind(".") :].lower() in _SUFFIXES]


def numbered_frames(folder: Path, names: Iterable[str], *, pattern: str, first: int) -> PictureFiles:
    """The pictures among `names` of `folder`, which must be `pattern % first` and so on without a gap.

    Errors: RiceError naming the first file that is missing, or the one too many, or the number that they start from.
    """
    found = frozenset(pictures_among(names))
    if not found:
        raise RiceError(f"expected frames from {pattern % first} on in {folder}, found no picture")
    numbers = range(first, first + len(found))
    missing = next((number for number in numbers if pattern % number not in found), None)
    if missing is None:
        return PictureFiles(folder=folder, count=len(found), pattern=pattern, first=first)
    other = 1 - first
    if pattern % other in found and (other < first or missing == first):
        raise RiceError(f"{folder} counts from {other} ({pattern % other}), expected {first} ({pattern % first})")
    odd = [name for name in sorted(found, key=natural_key) if not _follows(name, pattern)]
    if odd:
        raise RiceError(f"{folder}: expected frames named like {pattern % first}, got {odd[0]}; remove or rename it")
    last = max(found, key=natural_key)
    raise RiceError(f"{folder}: expected {pattern % missing}, there is none; the last of {len(found)} frames is {last}")


def _follows(name: str, pattern: str) -> bool:
    match = _LAST_NUMBER.fullmatch(name)
    return match is not None and pattern % int(match[2]) == name


def natural_frames(folder: Path, names: Iterable[str]) -> PictureFiles:
    """The pictures among `names` of `folder` in natural order, 2 before 10, whatever their names.

    Errors: RiceError where there is none.
    """
    found = sorted(pictures_among(names), key=natural_key)
    if not found:
        raise RiceError(f"expected pictures ({', '.join(PICTURES)}) in {folder}, found none")
    match = _LAST_NUMBER.fullmatch(found[0])
    if match:
        before, digits, after = (part.replace("%", "%%") for part in match.groups())
        pattern, first = f"{before}%0{len(digits)}d{after}", int(digits)
        if all(name == pattern % (first + index) for index, name in enumerate(found)):
            return PictureFiles(folder=folder, count=len(found), pattern=pattern, first=first)
    return PictureFiles(folder=folder, count=len(found), names=tuple(found))


def frame_size(path: Path) -> tuple[int, int] | None:
    """Upright width, height by a picture's header; None where that is damaged, which reading the frame will report."""
    try:
        with open_header(path) as picture:
            width, height = picture.size
            orientation = picture.getexif().get(_EXIF_ORIENTATION, 1) if "exif" in picture.info else 1
    except DECODER_ERRORS:
        return None
    return (height, width) if orientation >= _FIRST_ON_ITS_SIDE else (width, height)
