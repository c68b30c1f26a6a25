"""Expressions in one JSON file beside COCO: real sentences about real photographs, some about what is not there.

    FOLDER/expressions.json    [{"file_name": "val2017/000000000139.jpg", "expression", "box_xyxy", "empty",
                               "annotation_id"}, ...]
    ROOT/coco/annotations/instances_val2017.json, ROOT/coco/val2017/

The mask of an item is that of its annotation; of an item that has only a box, the filled box. An item that is `empty`
has neither.
"""

import reprlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm.lisa.pictures import Picture, Target
from mllm.lisa.pictures_writer import Refusals, UnusableError, clean, files_in, runs_of, size_of
from rice.data.coco_json import parse_coco
from rice.errors import RiceError
from rice.files import read_json
from rice.progress import Progress

_LARGEST = 1e9
"""Coordinate; beyond it a number is damaged."""


@dataclass(frozen=True, slots=True)
class Item:
    """One expression. id: its place in the file. box: xyxy, pixels; neither box nor annotation: there is no such thing.

    folder: COCO's folder of its picture, such as val2017, and image the file in it. text: None where there is none.
    """

    id: int
    folder: str
    image: str
    text: str | None
    box: tuple[float, ...] | None
    annotation: int | None


def read_items(path: Path) -> list[Item]:
    """All expressions of a file. Errors: RiceError naming the item that is of another layout."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise RiceError(f"expected a list of expressions in {path}, got {type(entries).__name__}")
    return [_item(path, place, entry) for place, entry in enumerate(entries)]


def read_expressions(
    root: Path, items: Sequence[Item], *, source: str, coco: str, folder: str, refusals: Refusals, progress: Progress
) -> Iterator[Picture]:
    """The pictures of one of COCO's folders in order of their first expression, every expression one target.

    coco: relative to the root. A picture that COCO's file does not have is as large as its header says. What cannot be
    used is counted in `refusals`. Errors: RiceError, as `parse_coco`.
    """
    place = root / coco / folder
    parsed = parse_coco(root / coco / "annotations" / f"instances_{folder}.json", place)
    known = {image.file_name: image for image in parsed.images}
    present = files_in(place)
    by_image: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.folder == folder:
            by_image[item.image].append(item)
    for name, found in progress.track(by_image.items(), f"reading {source}"):
        try:
            if name not in present:
                raise UnusableError("missing picture file")
            height, width = (known[name].height, known[name].width) if name in known else size_of(place / name)
        except UnusableError as error:
            for item in found:
                refusals.add(str(error), item.id)
            continue
        own = {one.id: one.segmentation for one in known[name].annotations} if name in known else {}
        targets = tuple(target for item in found if (target := _target(item, own, height, width, refusals)))
        if targets:
            yield Picture(name, source, f"{coco}/{folder}/{name}", height, width, None, targets)


def _target(item: Item, own: Mapping[int, Any], height: int, width: int, refusals: Refusals) -> Target | None:
    """own: the segmentations of the picture's annotations, by id."""
    try:
        if item.text is None:
            raise UnusableError("empty text")
        return Target(str(item.id), (item.text,), masks=_masks(item, own, height, width))
    except UnusableError as error:
        refusals.add(str(error), item.id)
        return None


def _masks(item: Item, own: Mapping[int, Any], height: int, width: int) -> tuple[str, ...]:
    if item.annotation is not None:
        if item.annotation not in own:
            raise UnusableError("its annotation is not one of its picture's")
        return (runs_of(own[item.annotation], height, width),)
    if item.box is None:
        return ()
    x0, y0, x1, y1 = item.box
    return (runs_of([[x0, y0, x1, y0, x1, y1, x0, y1]], height, width),)


def _item(path: Path, place: int, entry: Any) -> Item:
    if not isinstance(entry, dict):
        raise RiceError(f"{path}: expected an object at position {place}, got {reprlib.repr(entry)}")
    name, box, annotation, empty = (entry.get(key) for key in ("file_name", "box_xyxy", "annotation_id", "empty"))
    pieces = name.split("/") if isinstance(name, str) else []
    holds = {
        "file_name": len(pieces) == 2 and pieces[0].isalnum() and bool(pieces[1]),
        "box_xyxy": box is None or _is_box(box),
        "annotation_id": annotation is None or type(annotation) is int,
        "empty": type(empty) is bool and empty == (box is None and annotation is None),
    }
    for key, right in holds.items():
        if not right:
            raise RiceError(f"{path}: expression {place}: {key} cannot be {reprlib.repr(entry.get(key))}; correct it")
    return Item(place, pieces[0], pieces[1], clean(entry.get("expression")), box and tuple(box), annotation)


def _is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(type(number) in (int, float) and abs(number) < _LARGEST for number in value)  # False for NaN
