"""Tracks and truths from folders of text files: everything that comes from outside is checked here, once.

Shapes: N lines. Boxes are x, y, width, height, as the files have them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rice.errors import RiceError
from rice.files import read_json
from tracking.layouts.text import lines_of, read_boxes, read_flags, words
from tracking.metrics import Truth
from tracking.score import named
from tracking.sequence import Boxes_N4, Levels_N

Size = tuple[int, int]

_COVER_LEVELS = 8


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What accompanies the truth's boxes: folders, as the truth's, and picture sizes.

    sizes: a file with lines `SEQUENCE W H`, or JSON {"SEQUENCE": [W, H]}. size: width, height of all sequences.
    """

    absent: Path | None = None
    cover: Path | None = None
    sizes: Path | None = None
    size: Size | None = None


def read_truths(folder: Path, sides: Sides) -> tuple[dict[str, Truth], list[str]]:
    """Truths by sequence, by name, and notes. Lines of 8 numbers are polygons: the upright box around each.

    Errors: RiceError in one line with file and line.
    """
    notes: list[str] = []
    sizes = None if sides.sizes is None else _read_sizes(sides.sizes)
    truths = {}
    for name, path in _texts(folder).items():
        boxes_N4 = read_boxes(path)
        if sizes is not None and name not in sizes:
            raise RiceError(f"{sides.sizes}: expected the picture size of {name}, found none")
        truths[name] = Truth(
            boxes=boxes_N4,
            absent=None if sides.absent is None else _levels(sides.absent, name, len(boxes_N4), 1, notes) > 0,
            cover=None if sides.cover is None else _levels(sides.cover, name, len(boxes_N4), _COVER_LEVELS, notes),
            size=sides.size if sizes is None else sizes[name],
        )
    return truths, notes


def read_predictions(folder: Path, names: Iterable[str]) -> tuple[dict[str, Boxes_N4 | None], list[str]]:
    """Predictions for `names`, None where there are none, and notes.

    A sequence's file is SEQUENCE.txt or, as GOT-10k's toolkit writes it, SEQUENCE/SEQUENCE_001.txt. Times beside them
    are passed over. Errors: RiceError in one line with file and line.
    """
    notes: list[str] = []
    files = _texts(folder, nested=True)
    known = list(names)
    predictions = {name: read_boxes(files[name], polygons=False) if name in files else None for name in known}
    strangers = [name for name in files if name not in predictions and name.removesuffix("_time") not in predictions]
    if strangers:
        notes.append(f"predictions for sequences without a truth are ignored ({named(strangers, len(files))})")
    repeated = [name for name in known if name in files and files[name].with_name(f"{name}_002.txt").is_file()]
    if repeated:
        notes.append(f"only the first of several runs is judged ({named(repeated, len(known))})")
    return predictions, notes


def _levels(folder: Path, name: str, length: int, highest: int, notes: list[str]) -> Levels_N:
    """(length,). Errors: RiceError: no file, another number of values unless the surplus is all 0; as `read_flags`."""
    path = folder / f"{name}.txt"
    if not path.is_file():
        raise RiceError(f"{folder}: expected a file {name}.txt as for its truth, found none")
    values = read_flags(path, highest=highest)
    if len(values) > length and not values[length:].any():
        notes.append(f"{name}: {len(values)} values in {path} for {length} frames: the surplus, all 0, is not used")
    elif len(values) != length:
        raise RiceError(f"{path}: expected {length} values, one for each frame of the truth, got {len(values)}")
    return values[:length]


def _read_sizes(path: Path) -> dict[str, Size]:
    lines = lines_of(path)
    sizes = {}
    if lines[0].lstrip().startswith("{"):
        for name, value in read_json(path).items():
            sizes[name] = _size(f"{path}, {name}", value)
        return sizes
    for number, line in enumerate(lines, start=1):
        *name_parts, width, height = ["", "", *words(line)]
        edges = [int(edge) if edge.isdecimal() else edge for edge in (width, height)]
        sizes[" ".join(name_parts).strip()] = _size(f"{path} line {number}", edges)
    return sizes


def _size(where: str, value: object) -> Size:
    if isinstance(value, list) and len(value) == 2 and all(type(edge) is int and edge > 0 for edge in value):
        return value[0], value[1]
    raise RiceError(f"{where}: expected a sequence's width and height in pixels, got {value!r:.60}")


def _texts(folder: Path, *, nested: bool = False) -> dict[str, Path]:
    """SEQUENCE -> file, by name. Errors: RiceError where there is none."""
    if not folder.is_dir():
        raise RiceError(f"expected a folder with a SEQUENCE.txt each, got {folder}; unpack archives first")
    found = {path.stem: path for path in folder.glob("*.txt") if not path.name.startswith(".")}
    if nested:
        inner = ((path.name, path / f"{path.name}_001.txt") for path in folder.iterdir() if path.is_dir())
        found = {name: path for name, path in inner if path.is_file()} | found
    if not found:
        raise RiceError(f"{folder}: expected a SEQUENCE.txt for each sequence, found no .txt file")
    return {name: found[name] for name in sorted(found)}
