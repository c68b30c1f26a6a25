"""Small samples whose pictures show their annotations: every region is a rectangle in the colour of its label."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rice.data.shards import DatasetInfo, Sample, write_dataset, write_shard

COLOURS = np.array([[x, y, z] for x in (30, 220) for y in (30, 220) for z in (30, 220)], dtype=np.uint8)
"""One for each of eight classes."""
WORDS = 50


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def painted(number: int, regions: int, *, width: int = 96, height: int = 64) -> Sample:
    """A grey picture with `regions` side by side in it, labelled by colour; each has as many words as its label."""
    rng = np.random.default_rng(number)
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    boxes, labels = [], rng.integers(0, len(COLOURS), regions).tolist()
    for slot, label in enumerate(labels):
        step = width // regions
        left, top = slot * step + int(rng.integers(0, 3)), int(rng.integers(0, height // 2))
        box = [left, top, left + step - 3, top + height // 2]
        pixels[box[1] : box[3], box[0] : box[2]] = COLOURS[label]
        boxes.append(box)
    return Sample(
        key=f"{number:05d}",
        image=encoded(Image.fromarray(pixels)),
        suffix="png",
        width=width,
        height=height,
        boxes=np.array(boxes, dtype=np.uint16).reshape(-1, 4),
        labels=labels,
        tokens=[rng.integers(0, WORDS, label).tolist() for label in labels],
        scores=rng.random(regions).tolist(),
        image_labels=list(dict.fromkeys(labels)),
    )


def write_dataset_of(folder: Path, shards: list[list[Sample]], *, ocr_classes: int = WORDS) -> None:
    """The samples as one data set of as many shards."""
    infos = [write_shard(folder, f"toy-{i:06d}", samples) for i, samples in enumerate(shards)]
    info = DatasetInfo(object_classes=len(COLOURS), ocr_classes=ocr_classes, shards=tuple(infos))
    write_dataset(folder, info)
