"""ReasonSeg: questions that have to be thought about, with polygons drawn by hand.

    FOLDER/{train,val,test}/NAME.jpg, NAME.json    {"shapes": [{"label", "points"}, ...], "text", "is_sentence"}
    FOLDER/explanatory/train.json                  [{"image": "NAME.jpg", "query", "outputs"}, ...]

Shapes labelled "target" are it, those with "ignore" in their label do not count, "flag" is left over from annotating.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllm.lisa.pictures import IGNORE, Picture, Target
from mllm.lisa.pictures_writer import Refusals, UnusableError, clean, files_in, size_of
from rice.data.segmentation import encode_mask
from rice.errors import RiceError, require
from rice.files import read_json
from rice.progress import Progress

_EXTRA = "mllm"


def read_reason(
    root: Path, *, source: str, images: str, explanations: Path | None, refusals: Refusals, progress: Progress
) -> Iterator[Picture]:
    """A picture for every JSON file, in order of their names, with one target, whose texts are alternatives.

    images: the split's folder relative to the root. What cannot be used is counted in `refusals`.
    Errors: RiceError for explanations of another layout.
    """
    present = files_in(root / images)
    explained = {} if explanations is None else _explanations(explanations)
    for name in progress.track(sorted(name for name in present if name.endswith(".json")), f"reading {source}"):
        picture = str(PurePosixPath(name).with_suffix(".jpg"))
        try:
            if picture not in present:
                raise UnusableError("missing picture file")
            size = size_of(root / images / picture, upright=True)  # OpenCV turned the pictures that were painted on
            target = _target(root / images / name, size, explained.get(picture))
        except UnusableError as error:
            refusals.add(str(error), name)
            continue
        yield Picture(PurePosixPath(name).stem, source, f"{images}/{picture}", *size, None, (target,))
    for name in sorted(present):
        if name.endswith(".jpg") and str(PurePosixPath(name).with_suffix(".json")) not in present:
            refusals.add("picture without a JSON file", name)


def paint(shapes: Sequence[Any], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 (H, W) of LabelMe's shapes: 1 target, 0 not, 255 does not count, as LISA paints them.

    Larger shapes lie beneath smaller ones; a shape has its outline, one pixel wide, and what is inside by the even-odd
    rule; coordinates are cut to whole pixels. OpenCV draws: its lines are not those of Pillow or scikit-image (in
    polygons of 200 pixels' width, 8 to 130 pixels differ). Errors: UnusableError for a damaged shape.
    """
    layers = []
    for shape in shapes:
        label, points_P2 = _shape(shape, height, width)
        if label == "flag":
            continue
        mask_HW = _fill(points_P2, height, width)
        layers.append((int(np.count_nonzero(mask_HW)), IGNORE if "ignore" in label else 1, mask_HW))
    painted_HW = np.zeros((height, width), dtype=np.uint8)
    for _, value, mask_HW in sorted(layers, key=lambda layer: layer[0])[::-1]:  # of equal ones the first lies on top
        painted_HW[mask_HW] = value
    return painted_HW


def _fill(points_P2: NDArray[np.int32], height: int, width: int) -> NDArray[np.bool_]:
    cv2 = require("cv2", _EXTRA)
    canvas_HW = np.zeros((height, width), dtype=np.uint8)
    cv2.polylines(canvas_HW, [points_P2], True, 1, 1)
    cv2.fillPoly(canvas_HW, [points_P2], 1)
    return np.asarray(canvas_HW != 0)


def _shape(shape: Any, height: int, width: int) -> tuple[str, NDArray[np.int32]]:
    """Label in small letters, and points (P, 2) as x, y."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise UnusableError("a shape without a label")
    try:
        points_P2 = np.asarray(shape.get("points"), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise UnusableError("a shape with damaged points") from None
    reach = max(height, width)  # slightly outside is common; an image size away is damage
    sound = points_P2.ndim == 2 and points_P2.shape[1] == 2 and len(points_P2) > 0
    if not sound or not bool(np.all((points_P2 >= -reach) & (points_P2 <= 2 * reach))):
        raise UnusableError("a shape with damaged points")
    return shape["label"].strip().lower(), points_P2.astype(np.int32)


def _target(path: Path, size: tuple[int, int], explanation: str | None) -> Target:
    document = _document(path)
    shapes, texts, sentence = (document.get(key) for key in ("shapes", "text", "is_sentence"))
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(shapes, list) or not isinstance(texts, list) or type(sentence) is not bool:
        raise UnusableError("JSON file of another layout")
    words = tuple(text for text in map(clean, texts) if text)
    if not words or len(words) < len(texts):
        raise UnusableError("empty text")
    painted_HW = paint(shapes, *size)
    if not (painted_HW == 1).any():
        raise UnusableError("its mask has no pixel")
    ignore_HW = painted_HW == IGNORE
    return Target(
        path.stem,
        words,
        sentence=sentence,
        masks=(_code(painted_HW == 1),),
        ignore=_code(ignore_HW) if ignore_HW.any() else None,
        explanation=explanation,
    )


def _code(mask_HW: NDArray[np.bool_]) -> str:
    return str(encode_mask(mask_HW)["counts"])


def _document(path: Path) -> dict[str, Any]:
    """Some files are in Windows' code page."""
    try:
        data = path.read_bytes()
        try:
            document = json.loads(data.decode("utf-8"))
        except UnicodeDecodeError:
            document = json.loads(data.decode("cp1252"))
    except (OSError, ValueError, RecursionError):
        raise UnusableError("unreadable JSON file") from None
    if not isinstance(document, dict):
        raise UnusableError("JSON file of another layout")
    return document


def _explanations(path: Path) -> Mapping[str, str]:
    """Picture's file name -> answer in words."""
    items = read_json(path)
    if not isinstance(items, list):
        raise RiceError(f"expected a list of explanations in {path}, got {type(items).__name__}; get a whole copy")
    found = {}
    for item in items:
        name, words = (item.get(key) if isinstance(item, dict) else None for key in ("image", "outputs"))
        if not isinstance(name, str) or not clean(words):
            raise RiceError(f"expected 'image' and 'outputs' in every explanation of {path}; get a whole copy")
        found[name] = str(clean(words))
    return found
