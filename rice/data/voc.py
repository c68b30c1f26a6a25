"""Pascal VOC's XML as COCO's records. Imports no torch.

Boxes: VOC counts pixels from 1 and includes the last one, so a box over a whole image of W x H pixels reads 1, 1, W, H.
Here it is 0, 0, W, H: one is taken from the first corner only, as detectron2 does (COCO's converters in mmdetection
take one from both, which makes each box a pixel smaller). An xmin or ymin of 0, from tools that count from 0, is the
image's edge. Boxes that reach outside the image are kept as annotated, like COCO's.

`difficult` objects become crowds: VOC neither rewards nor punishes finding them, and trainers leave them out. The known
difference: a crowd takes part in matching by the share of the detection that it covers, a difficult object by IoU.
Polygons and segmentation PNGs are not read.
"""

import math
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from rice.data.coco_json import MAX_EDGE, Box, CocoAnnotation, CocoCategory, CocoFile, CocoImage
from rice.data.picture import PICTURES
from rice.data.splits import SplitFiles, read_lines, scan, stem
from rice.errors import RiceError, os_errors_as

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LARGEST = 1e9


def parse_voc(files: SplitFiles) -> CocoFile:
    """Parse and validate one split. Image ids are 1.. in the order of the list, annotation ids 1.. in that order too.

    Categories are the names in every XML file of the root, sorted, ids from 1: all splits agree on them. Images are
    found by their name in the list, with or without a suffix; what an XML file says of its own name is not trusted.
    Errors: RiceError in one line that names the file: no XML or no image of a listed name, not XML, a DOCTYPE,
    missing elements, sizes that are not positive, boxes that are not finite or have their corners swapped.
    """
    documents = {stem(name): (path, _read(path)) for name, path in _xml(files.xml[0])}
    siblings = [(path, _read(path)) for folder in files.xml[1:] for _, path in _xml(folder)]
    names = {name for path, root in (*documents.values(), *siblings) for name in _names(path, root)}
    categories = tuple(CocoCategory(index, index + 1, name, "") for index, name in enumerate(sorted(names)))
    index_of = {category.name: category.index for category in categories}
    pictures = _pictures(files.folder)
    images: list[CocoImage] = []
    annotations = 0
    for index, key in enumerate(_listed(files, documents)):
        path, root = documents[key]
        name = _picture(files, path, root, pictures.get(key, []))
        found = _annotations(path, root, index, annotations, index_of)
        annotations += len(found)
        width, height = _size(path, root)
        images.append(CocoImage(index + 1, name, files.folder / name, width, height, found))
    return CocoFile(tuple(images), categories)


def _xml(folder: Path) -> list[tuple[str, Path]]:
    return sorted((name, folder / name) for name, _ in scan(folder) if name.endswith(".xml"))


def _listed(files: SplitFiles, documents: Mapping[str, object]) -> list[str]:
    """Keys of `documents` in the order of the list."""
    if files.annotations.is_dir():
        return list(documents)
    keys: list[str] = []
    for name in filter(None, map(str.strip, read_lines(files.annotations))):
        key = name if name in documents else stem(name)
        if key not in documents:
            raise RiceError(f"{files.annotations}: image {_short(name)}: no {name}.xml in {files.xml[0]}")
        keys.append(key)
    if len(set(keys)) < len(keys):
        twice = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise RiceError(f"{files.annotations}: image {_short(twice)}: expected names that are listed once")
    return keys


def _pictures(folder: Path) -> dict[str, list[str]]:
    pictures: dict[str, list[str]] = {}
    for name, _ in scan(folder):
        if PurePosixPath(name).suffix.lower() in PICTURES:
            pictures.setdefault(stem(name), []).append(name)
    return pictures


def _picture(files: SplitFiles, path: Path, root: ElementTree.Element, found: list[str]) -> str:
    """Two pictures of one name are told apart by the suffix that the XML file gives."""
    stated = PurePosixPath((root.findtext("filename") or "").strip()).suffix
    chosen = found if len(found) == 1 else [name for name in found if PurePosixPath(name).suffix == stated]
    if len(chosen) != 1:
        number = "none" if not found else f"{len(found)}: {', '.join(sorted(found))}"
        _fail(path, f"expected one picture of this name in {files.folder}, found {number}")
    return chosen[0]


def _read(path: Path) -> ElementTree.Element:
    """Document type declarations are refused by the parser itself, whatever the encoding: entities need one."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: Any) -> NoReturn:
        _fail(path, "expected XML without a DOCTYPE; remove it")

    parser.StartDoctypeDeclHandler = refuse
    with os_errors_as(f"cannot read {path}"):
        content = path.read_bytes()
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two: encodings that Python has not
        raise RiceError(f"{path} is not valid XML: {error}") from error
    root = builder.close()
    if root.tag != "annotation":
        _fail(path, f"expected a Pascal VOC annotation, got <{_short(root.tag)}>")
    return root


def _names(path: Path, root: ElementTree.Element) -> Iterable[str]:
    """Objects only: VOC's people have parts, with names of their own."""
    for number, element in enumerate(root.findall("object"), start=1):
        yield _name(path, number, element)


def _name(path: Path, number: int, element: ElementTree.Element) -> str:
    name = (element.findtext("name") or "").strip()
    if not name:
        _fail(path, f"object {number}: expected a name")
    return name


def _size(path: Path, root: ElementTree.Element) -> tuple[int, int]:
    width, height = (_number(path, "size", root.findtext(f"size/{edge}")) for edge in ("width", "height"))
    if not all(1 <= edge <= MAX_EDGE and edge == int(edge) for edge in (width, height)):
        _fail(path, f"expected a width and a height of 1 to {MAX_EDGE} pixels, got {width:g} x {height:g}")
    return int(width), int(height)


def _annotations(
    path: Path, root: ElementTree.Element, image: int, before: int, index_of: Mapping[str, int]
) -> tuple[CocoAnnotation, ...]:
    found = []
    for number, element in enumerate(root.findall("object"), start=1):
        box = _box(path, number, element)
        difficult = (element.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            _fail(path, f"object {number}: expected 0 or 1 as difficult, got {_short(difficult)}")
        found.append(
            CocoAnnotation(
                id=before + number,
                image=image,
                category=index_of[_name(path, number, element)],
                box=box,
                iscrowd=difficult == "1",
                area=(box[2] - box[0]) * (box[3] - box[1]),
                segmentation=None,
            )
        )
    return tuple(found)


def _box(path: Path, number: int, element: ElementTree.Element) -> Box:
    place = f"object {number}: bndbox"
    x0, y0, x1, y1 = (_number(path, place, element.findtext(f"bndbox/{key}")) for key in _CORNERS)
    if x1 < x0 or y1 < y0:
        _fail(path, f"{place}: expected xmin <= xmax and ymin <= ymax, got {x0:g}, {y0:g}, {x1:g}, {y1:g}")
    return (_from_zero(x0), _from_zero(y0), x1, y1)


def _from_zero(first: float) -> float:
    return 0.0 if 0 <= first < 1 else first - 1


def _number(path: Path, place: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:
        _fail(path, f"{place}: expected finite numbers, got {_short(text)}")
    return value


def _fail(path: Path, problem: str) -> NoReturn:
    raise RiceError(f"{path}: {problem}")


def _short(value: Any) -> str:
    return reprlib.repr(value)
