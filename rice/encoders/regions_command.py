"""`rice regions`: embeddings of a user's own boxes. Imports no torch, so that --help is quick.

Shapes: N boxes, D width.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from rice.data.picture import open_upright
from rice.errors import RiceError
from rice.files import atomic_path, read_json, write_json

Pool = Literal["layers", "roi_align"]

_FORMATS = (".npz", ".safetensors", ".json")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
_MOST_PRINTED = 16


class Boxes(NamedTuple):
    """`corners` (N, 4): xyxy, the picture's pixels. `labels`: "" where the file has none."""

    corners: NDArray[np.float32]
    labels: tuple[str, ...]


def regions(
    image: Positional[Path],
    *,
    boxes: Path,
    encoder: str,
    pool: Pool = "layers",
    out: Path | None = None,
    picture: Path | None = None,
    device: str = "cpu",
) -> None:
    """One embedding of length 1 for every box of a picture, all in one pass, and how alike they are.

    The whole picture is seen: nothing is cropped. Its shorter edge becomes the encoder's size, the longer one keeps its
    shape, both in whole patches; boxes are scaled with it. Example:
    rice regions photo.jpg --boxes boxes.json --encoder rice:out/final --out photo.npz --picture photo.png

    Args:
        image: Any picture that Pillow reads; turned upright first where EXIF says so.
        boxes: JSON: a list of [left, top, right, bottom] in the picture's pixels, or of {"box": [...], "label": "dog"}.
        encoder: rice:DIR with trained region layers, as `rice train` leaves it; @SIZE picks the input size. With
            --pool roi_align any encoder of `rice encoders`.
        pool: layers: the trained region layers. roi_align: the mean of the normalised patch features in each box.
        out: .npz or .safetensors (embeddings, boxes, labels) or .json (a list of objects), in the order of --boxes.
        picture: .png (or .jpg, .webp, .pdf, .svg): the boxes, numbered from 0, beside their cosine similarities.
        device: auto, cpu or cuda.
    """
    _check_suffix("--out", out, _FORMATS)
    _check_suffix("--picture", picture, _PICTURES)
    from rice.encoders.regions import OnePass

    upright = open_upright(image)
    found = read_boxes(boxes, upright.size)
    embeddings_ND = OnePass(encoder, pool, device)(upright, found.corners).cpu().numpy()
    similarity_NN = embeddings_ND @ embeddings_ND.T
    _print(similarity_NN, found)
    if out is not None:
        write(out, embeddings_ND, found)
    if picture is not None:
        from rice.encoders.region_picture import draw

        draw(upright, found.corners, found.labels, similarity_NN, picture)
    for file in (out, picture):
        if file is not None:
            print(file)  # noqa: T201


def read_boxes(file: Path, size: tuple[int, int]) -> Boxes:
    """The boxes of a JSON file for a picture of `size` (width, height).

    Errors: RiceError that names the first one that is no box, empty, or outside the picture.
    """
    entries = read_json(file)
    if not isinstance(entries, list) or not entries:
        raise RiceError(f"{file}: expected a JSON list of boxes [left, top, right, bottom], with at least one")
    pairs = [
        (entry.get("box"), entry.get("label", "")) if isinstance(entry, dict) else (entry, "") for entry in entries
    ]
    for number, (corners, label) in enumerate(pairs):
        if problem := _problem(corners, size) or ("" if isinstance(label, str) else f"label {label!r} is no text"):
            raise RiceError(f"{file}: box {number}: {problem}")
    return Boxes(np.array([corners for corners, _ in pairs], dtype=np.float32), tuple(label for _, label in pairs))


def write(file: Path, embeddings_ND: NDArray[np.float32], boxes: Boxes) -> None:
    """Write rows in the boxes' order, in the format of the file's ending, whole or not at all."""
    if file.suffix == ".json":
        rows = zip(boxes.corners.tolist(), boxes.labels, embeddings_ND.tolist(), strict=True)
        write_json(file, [{"box": box, "label": label, "embedding": row} for box, label, row in rows])
        return
    with atomic_path(file) as temporary:
        if file.suffix == ".safetensors":
            from safetensors.numpy import save_file

            arrays = {"embeddings": np.ascontiguousarray(embeddings_ND), "boxes": boxes.corners}
            save_file(arrays, temporary, metadata={"labels": json.dumps(boxes.labels)})
        else:
            with temporary.open("wb") as stream:
                np.savez(
                    stream, embeddings=embeddings_ND, boxes=boxes.corners, labels=np.array(boxes.labels, dtype=str)
                )


def _problem(corners: Any, size: tuple[int, int]) -> str:
    """What is wrong with one box, or nothing."""
    numbers = isinstance(corners, list) and len(corners) == 4
    if not numbers or any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in corners):
        return f"expected [left, top, right, bottom], got {str(corners)[:80]}"
    left, top, right, bottom = corners
    if not all(map(math.isfinite, corners)):
        return f"expected finite numbers, got {corners}"
    if left >= right or top >= bottom:
        return f"expected left < right and top < bottom, got {corners}"
    if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
        return f"{corners} lies outside the picture of {size[0]} x {size[1]} pixels"
    return ""


def _check_suffix(flag: str, file: Path | None, known: Sequence[str]) -> None:
    if file is not None and file.suffix not in known:
        raise RiceError(f"expected {flag} to end in {', '.join(known)}, got {file}")


def _print(similarity_NN: NDArray[np.float32], boxes: Boxes) -> None:
    """The cosine similarities, a row a box; only how many there are where they are too many to read."""
    count = len(similarity_NN)
    if count > _MOST_PRINTED:
        print(f"{count} regions")  # noqa: T201
        return
    names = [f"{number} {label}".rstrip() for number, label in enumerate(boxes.labels)]
    width = max(map(len, names))
    print(" " * width + "".join(f"{number:>7}" for number in range(count)))  # noqa: T201
    for name, row in zip(names, similarity_NN.tolist(), strict=True):
        print(f"{name:<{width}}" + "".join(f"{value:7.3f}" for value in row))  # noqa: T201
