"""From a picture in COCO's layout to a sample of a shard.

Shapes: H, W one picture, R its regions. Boxes are xyxy in pixels.
"""

import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rice.data.coco import CocoImage
from rice.data.jpeg_window import restart_interval
from rice.data.shards import Sample

_QUALITY = 90


def sample_of(image: CocoImage, content: bytes, min_edge: int) -> Sample:
    """A picture with its boxes, clipped and rounded outwards; crowds and boxes below `min_edge` are left out."""
    single = [a for a in image.annotations if not a.iscrowd]
    boxes_R4 = np.array([a.box for a in single], dtype=np.float64).reshape(-1, 4)
    boxes_R4 = boxes_R4.clip(0, [image.width, image.height] * 2)
    edges_R = (boxes_R4[:, 2:] - boxes_R4[:, :2]).min(axis=1, initial=np.inf)
    kept = np.flatnonzero((edges_R > 0) & (edges_R >= min_edge))
    return Sample(
        key=f"{image.id:012d}",
        image=content,
        suffix=image.path.suffix.lower().removeprefix("."),
        width=image.width,
        height=image.height,
        boxes=outwards(boxes_R4[kept]),
        labels=[single[i].category for i in kept],
        tokens=[[] for _ in kept],
        scores=[1.0 for _ in kept],
        image_labels=by_area((single[i].category, single[i].area) for i in kept),
    )


def shrunk(sample: Sample, pixels_HW3: NDArray[np.uint8], short_edge: int) -> Sample:
    """The sample with its picture and boxes made smaller, where its shorter edge is longer than `short_edge`.

    Restart markers in the file let a crop be decoded without the rest.
    """
    scale = short_edge / min(sample.width, sample.height)
    if scale >= 1:
        return sample
    width, height = round(sample.width * scale), round(sample.height * scale)
    buffer = io.BytesIO()
    smaller = Image.fromarray(pixels_HW3).resize((width, height), Image.Resampling.LANCZOS)
    smaller.save(buffer, "JPEG", quality=_QUALITY, subsampling="4:2:0", restart_marker_blocks=restart_interval(width))
    scales = np.array([width / sample.width, height / sample.height] * 2)
    return replace(
        sample,
        image=buffer.getvalue(),
        suffix="jpg",
        width=width,
        height=height,
        boxes=outwards((sample.boxes * scales).clip(0, [width, height] * 2)),
    )


def outwards(boxes_R4: NDArray[np.float64]) -> NDArray[np.uint16]:
    """To whole pixels, of which a box covers at least a part."""
    return np.concatenate([np.floor(boxes_R4[:, :2]), np.ceil(boxes_R4[:, 2:])], axis=1).astype(np.uint16)


def by_area(regions: Iterable[tuple[int, float]]) -> list[int]:
    """From (label, area) of a picture's regions: labels by the area that they cover, largest first."""
    areas: defaultdict[int, float] = defaultdict(float)
    for label, area in regions:
        areas[label] += area
    return sorted(areas, key=lambda label: (-areas[label], label))
