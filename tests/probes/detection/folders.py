"""Datasets in COCO's layout of a few tiny pictures, and an encoder whose tokens are known: each patch's mean colour."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor, nn

from rice.data.coco import CocoSplit, open_split
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec

CATEGORIES = (3, 7, 40, 90)
"""Ids of the file: not contiguous, not from one on."""


class Thing(NamedTuple):
    """One annotation: index of its category; box xywh; `mask` bool (H, W), "box" for all of the box, or None."""

    category: int
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | str | None = "box"
    crowd: bool = False


class Scene(NamedTuple):
    """One picture: its size, what is in it, and its id (None: counted from 1000 on)."""

    width: int
    height: int
    things: Sequence[Thing] = ()
    id: int | None = None


def box_mask(box: tuple[float, float, float, float], width: int, height: int) -> NDArray[np.bool_]:
    """The pixels of a box with whole corners."""
    x, y, w, h = (round(value) for value in box)
    mask = np.zeros((height, width), bool)
    mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
    return mask


def write_split(root: Path, name: str, scenes: Sequence[Scene], seed: int = 0) -> CocoSplit:
    """ROOT/{name}/*.png of noise and their annotations, read by the project's own reader."""
    dice = np.random.default_rng(seed)
    (root / name).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, scene in enumerate(scenes):
        id_ = 1000 + index if scene.id is None else scene.id
        file_name = f"{id_}.png"
        pixels = dice.integers(0, 256, (scene.height, scene.width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name / file_name)
        images.append({"id": id_, "file_name": file_name, "width": scene.width, "height": scene.height})
        annotations += [_annotation(thing, scene, id_, len(annotations) + k) for k, thing in enumerate(scene.things, 1)]
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id_, "name": f"kind {id_}"} for id_ in CATEGORIES],
    }
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(document))
    return open_split(root, name)


def _annotation(thing: Thing, scene: Scene, image_id: int, id_: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": id_,
        "image_id": image_id,
        "category_id": CATEGORIES[thing.category],
        "bbox": list(thing.box),
        "area": thing.box[2] * thing.box[3],
        "iscrowd": int(thing.crowd),
    }
    mask = box_mask(thing.box, scene.width, scene.height) if isinstance(thing.mask, str) else thing.mask
    if mask is not None:
        code = rle.encode(np.asfortranarray(mask).view(np.uint8))
        found["segmentation"] = {"size": list(mask.shape), "counts": code["counts"].decode()}
        found["area"] = int(mask.sum())
    return found


class PatchMeans(nn.Module):
    """Each patch's mean colour and its products: the same numbers whatever else is in the batch."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(patch)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        means = self.pool(images_B3HW)
        return nn.functional.pad(means, (0, 0, 0, 0, 0, 1), value=0.5)


def tiny_encoder(patch: int = 4, native: int = 32) -> Encoder:
    """Four channels: red, green, blue and a constant. Sizes are multiples of `patch`, or `native`."""
    spec = EncoderSpec(name="patch-means", source="test", patch=patch, size_multiple=patch, width=4, native_size=native)
    return Encoder(
        PatchMeans(patch), spec, lambda module, images, layer: Features(module(images), None), weights="random"
    )
