"""Semantic segmentation sets, whose pixels are classes: ADE20K, COCO-Stuff, Mapillary Vistas.

    ROOT/ade20k/{images,annotations}/training, objectInfo150.txt         0 is "other", then the classes from 1
    ROOT/cocostuff/train2017/*.png, labels.txt, ROOT/coco/train2017      the classes from 0; 255 has no label
    ROOT/mapillary/{config_v2.0.json, training/{images,v2.0/labels}}     places in the list of the configuration

A picture's targets are the classes that its map holds. Masks are taken from the map when they are asked for; as in
LISA, a pixel without a label is one that is not the target.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm.lisa.ade_names import ADE_NAMES
from mllm.lisa.pictures import Picture, Target, read_label_map
from mllm.lisa.pictures_writer import Refusals, UnusableError, clean, files_in, size_of
from mllm.lisa.stuff_names import STUFF_NAMES
from rice.data.splits import read_lines
from rice.errors import RiceError
from rice.files import read_object
from rice.progress import Progress

_THREADS = 4
"""Decoding a map releases Python's lock."""

_UNLABELLED = "void--unlabeled"
"""Mapillary's class of what has none."""


def ade20k_names(path: Path) -> dict[int, str]:
    """Value -> class of objectInfo150.txt (ADEChallengeData2016.zip), the first of its synonyms, or of its own table
    where there is no such file.

    Errors: RiceError naming the file where it is another table.
    """
    if not path.is_file():
        return dict(enumerate(ADE_NAMES, start=1))
    rows = [line.split("\t") for line in read_lines(path) if line.strip()]
    header = [cell.strip() for cell in rows[0]] if rows else []
    if not {"Idx", "Name"} <= set(header):
        raise RiceError(f"expected a table with the columns Idx and Name in {path}, got {header}; get a whole copy")
    names = {}
    for row in rows[1:]:
        cells = dict(zip(header, row, strict=False))
        number, name = cells["Idx"].strip(), clean(cells.get("Name", "").replace(";", ",").split(",")[0])
        if not number.isdecimal() or not name:
            raise RiceError(f"expected a number and a name in every row of {path}, got {row}; get a whole copy")
        names[int(number)] = name
    return names


def cocostuff_names(path: Path) -> dict[int, str]:
    """Value -> class of COCO-Stuff's labels.txt ("1: person"), or of its own table where there is no such file.

    Classes with "-" are left out, as in LISA: "floor-marble" is no word for what one sees.
    Errors: RiceError naming the file where it is another list.
    """
    names = dict(enumerate(STUFF_NAMES))
    if path.is_file():
        pairs = [line.partition(":") for line in read_lines(path) if line.strip()]
        if not all(number.strip().isdecimal() and name.strip() for number, _, name in pairs):
            raise RiceError(f"expected lines such as '1: person' in {path}; get a whole copy, or remove it")
        names = {int(number) - 1: name.strip() for number, _, name in pairs}
    return {value: name for value, name in names.items() if value >= 0 and "-" not in name}


def mapillary_names(path: Path) -> dict[int, str]:
    """Value -> readable class of Mapillary's config_v2.0.json, in small letters.

    Errors: RiceError naming the file where it is another document.
    """
    labels = read_object(path).get("labels")
    known = isinstance(labels, list) and all(isinstance(one, dict) and clean(one.get("readable")) for one in labels)
    if not isinstance(labels, list) or not known:
        raise RiceError(f"expected 'labels' with a 'readable' name each in {path}; get a whole copy")
    return {k: str(clean(one["readable"])).lower() for k, one in enumerate(labels) if one.get("name") != _UNLABELLED}


@dataclass(frozen=True, slots=True)
class _Map:
    """What one label map holds. problem: why it cannot be used."""

    name: str
    image: str
    size: tuple[int, int] = (0, 0)
    values: tuple[int, ...] = ()
    problem: str = ""


def read_semantic(
    root: Path,
    names: Mapping[int, str],
    *,
    source: str,
    images: str,
    labels: str,
    refusals: Refusals,
    progress: Progress,
) -> Iterator[Picture]:
    """A picture for every label map, in order of their names, with the classes that it holds, in order of the values.

    names: of the values that are classes. images, labels: folders relative to the root, with files of the same stems.
    Maps that cannot be used are counted in `refusals`.
    """
    present = files_in(root / images)
    pictures = {str(PurePosixPath(name).with_suffix("")): name for name in present if name.endswith((".jpg", ".png"))}
    maps = sorted(name for name in files_in(root / labels) if name.endswith(".png"))

    def look(name: str) -> _Map:
        image = pictures.get(str(PurePosixPath(name).with_suffix("")))
        if image is None:
            return _Map(name, "", problem="missing picture file")
        return _look(root / labels / name, root / images / image, name, image)

    with ThreadPoolExecutor(_THREADS) as threads:
        for found in progress.track(threads.map(look, maps), f"reading {source}", len(maps)):
            values = [value for value in found.values if value in names]
            problem = found.problem or ("" if values else "no class on its label map")
            if problem:
                refusals.add(problem, found.name)
                continue
            stem = str(PurePosixPath(found.name).with_suffix(""))
            targets = tuple(Target(f"{stem}/{value}", (names[value],), value=value) for value in values)
            yield Picture(
                stem, source, f"{images}/{found.image}", *found.size, f"{labels}/{found.name}", targets=targets
            )


def _look(map_path: Path, image_path: Path, name: str, image: str) -> _Map:
    try:
        values_HW = read_label_map(map_path)
    except RiceError:
        return _Map(name, image, problem="unreadable label map")
    height, width = values_HW.shape
    try:
        size = size_of(image_path)
    except UnusableError as error:
        return _Map(name, image, problem=str(error))
    if size not in ((height, width), (width, height)):  # perhaps it is to be turned
        return _Map(name, image, problem="picture of another size than its label map")
    return _Map(name, image, (height, width), tuple(_values(values_HW)))


def _values(values_HW: NDArray[np.integer[Any]]) -> list[int]:
    """Values that occur, ascending."""
    if values_HW.dtype != np.uint8:
        return [int(value) for value in np.unique(values_HW)]
    return [int(value) for value in np.flatnonzero(np.bincount(values_HW.ravel(), minlength=256))]
