"""`rice regions`: embeddings of a user's own boxes.

Shapes: N boxes, D width, H W pixels.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import layer_norm, normalize
from torchvision.transforms.v2.functional import pil_to_tensor
from tyro.conf import Positional

from rice.data.picture import open_upright
from rice.encoders.base import Encoder
from rice.encoders.commands import region_file
from rice.encoders.load import load_encoder
from rice.encoders.region_checkpoint import attach
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.files import atomic_path, read_json, write_json
from rice.model.region import roi_mean
from rice.model.vit import ViT

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
        device: cpu or cuda.
    """
    _check_suffix("--out", out, _FORMATS)
    _check_suffix("--picture", picture, _PICTURES)
    upright = open_upright(image)
    found = read_boxes(boxes, upright.size)
    embeddings_ND = embed(upright, found.corners, encoder, pool, device).cpu().numpy()
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


def embed(picture: Image.Image, corners_N4: NDArray[np.float32], name: str, pool: Pool, device: str) -> Tensor:
    """(N, D), of length 1, fp32, on `device`. Errors: RiceError where the encoder has no trained region layers."""
    layers = _region_layers(name) if pool == "layers" else None
    encoder = load_encoder(name, device=device)
    height, width = input_size(picture.height, picture.width, encoder.spec)
    resampling = Image.Resampling[encoder.spec.preprocessing.interpolation.upper()]
    pixels_3HW = pil_to_tensor(picture.resize((width, height), resampling)).float() / 255
    scale = np.array([width / picture.width, height / picture.height] * 2, dtype=np.float32)
    boxes_1N4 = torch.from_numpy(corners_N4 * scale)[None].to(device)
    with torch.no_grad():
        if layers is None:
            return _roi_embeddings(encoder, pixels_3HW[None], boxes_1N4)
        if encoder.spec.layer != -1:
            raise RiceError(f"region layers look at the last hidden state; leave out layer={encoder.spec.layer}")
        model = attach(cast(ViT, encoder.module), layers).to(device)
        embeddings_ND: Tensor = model(encoder.normalise(pixels_3HW[None]), boxes_1N4).regions[0]
        return embeddings_ND


def input_size(height: int, width: int, spec: EncoderSpec) -> tuple[int, int]:
    """(H, W) in pixels of the encoder's input: the shorter edge its size, the longer one in proportion."""
    multiple, size = spec.size_multiple, spec.native_size
    if height == width:
        return size, size
    shorter = max(round(size / multiple), 1)
    longer = max(round(size / multiple * max(height, width) / min(height, width)), 1)
    edges = (shorter * multiple, longer * multiple)
    return edges if height < width else (edges[1], edges[0])


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


def _region_layers(name: str) -> Path:
    try:
        return region_file(name)
    except RiceError as error:
        raise RiceError(f"{error}; or ask for --pool roi_align, which any encoder has") from error


def _roi_embeddings(encoder: Encoder, images_13HW: Tensor, boxes_1N4: Tensor) -> Tensor:
    maps_1Dhw = encoder(images_13HW).patches.float()
    normed_1hwD = layer_norm(maps_1Dhw.movedim(1, -1), maps_1Dhw.shape[1:2])
    return normalize(roi_mean(normed_1hwD.movedim(-1, 1).contiguous(), boxes_1N4, encoder.spec.patch)[0], dim=-1)


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
