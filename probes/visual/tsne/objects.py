"""Which objects of a dataset are shown, and what an encoder makes of each: the mean of the patch tokens under it.

Shapes: K objects of one picture, T = t t tokens, D width, H W pixels of the picture, S input edge.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probes.cache import EXTRACT_BATCH
from probes.dense.model import TokenGrid, extract_tokens
from probes.images import load_ahead, squash
from probes.visual.towers import refused_size
from rice.data.coco import CocoAnnotation, CocoCategory, CocoSplit
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.progress import Progress

SMALLEST_SHARE = 1 / 1024
"""Of the picture, a box's area: one cell of the matched grid of 32 x 32 tokens. What is smaller no patch sees apart
from what surrounds it."""


@dataclass(frozen=True)
class Objects:
    """Chosen objects of a split: `categories` by frequency; `annotations` by category, then in the drawn order."""

    split: CocoSplit
    categories: tuple[CocoCategory, ...]
    annotations: tuple[CocoAnnotation, ...]
    masks: bool

    @property
    def labels(self) -> list[int]:
        """Of each object the position of its category in `categories`."""
        position = {category.index: place for place, category in enumerate(self.categories)}
        return [position[annotation.category] for annotation in self.annotations]


def choose(split: CocoSplit, *, objects: int, categories: int, seed: int) -> Objects:
    """The most frequent `categories`, and of each the same number of objects, `objects` together (fewer where a
    category has fewer).

    Crowds, objects below `SMALLEST_SHARE`, empty masks, and, where others have masks, objects without, are left out.
    The order is that of a hash of seed and annotation id: it depends on neither the encoders nor the file's order, and
    fewer objects are a subset of more. Errors: RiceError for fewer than two categories, or a damaged mask.
    """
    masks = any(a.segmentation is not None for image in split.images for a in image.annotations)
    found: defaultdict[int, list[CocoAnnotation]] = defaultdict(list)
    for image in split.images:
        for annotation in image.annotations:
            if _is_shown(split, annotation, masks):
                found[annotation.category].append(annotation)
    chosen = sorted(found, key=lambda category: (-len(found[category]), category))[:categories]
    if len(chosen) < 2:
        raise RiceError(
            f"{split.files.annotations}: expected objects of at least two categories, found {len(chosen)}; objects "
            f"that cover less than 1/{1 / SMALLEST_SHARE:.0f} of their picture, and crowds, do not count"
        )
    annotations: list[CocoAnnotation] = []
    for place, category in enumerate(chosen):
        quota = objects // len(chosen) + (place < objects % len(chosen))
        annotations += _draw(split, found[category], quota, seed, masks)
    return Objects(split, tuple(split.categories[category] for category in chosen), tuple(annotations), masks)


def _is_shown(split: CocoSplit, annotation: CocoAnnotation, masks: bool) -> bool:
    if annotation.iscrowd or (masks and annotation.segmentation is None):
        return False
    image = split.images[annotation.image]
    x0, y0, x1, y1 = annotation.box
    width, height = min(x1, image.width) - max(x0, 0), min(y1, image.height) - max(y0, 0)
    return width > 0 and height > 0 and width * height >= SMALLEST_SHARE * image.width * image.height


def _draw(
    split: CocoSplit, candidates: Sequence[CocoAnnotation], quota: int, seed: int, masks: bool
) -> list[CocoAnnotation]:
    drawn: list[CocoAnnotation] = []
    for annotation in sorted(candidates, key=lambda a: hashlib.sha256(f"{seed} {a.id}".encode()).digest()):
        if len(drawn) == quota:
            break
        if not masks or split.mask(annotation).any():
            drawn.append(annotation)
    return drawn


def coverage(objects: Objects, annotation: CocoAnnotation, grid: TokenGrid) -> NDArray[np.float64]:
    """(T,): the area of each token's cell that the object's mask covers, or its box where the data has no masks.

    Exact, in squashed pixels; a cell that a pixel's edge crosses gets its part. Never all zero, however small the
    object is.
    """
    image = objects.split.images[annotation.image]
    if objects.masks:
        mask_HW = objects.split.mask(annotation).astype(np.float64)
        x_edges, y_edges = (np.linspace(0, 1, pixels + 1) for pixels in (image.width, image.height))
    else:
        x0, y0, x1, y1 = np.clip(annotation.box, 0, [image.width, image.height] * 2)
        mask_HW = np.ones((1, 1))
        x_edges, y_edges = np.array([x0, x1]) / image.width, np.array([y0, y1]) / image.height
    rows_Ht, columns_Wt = _overlaps(y_edges, grid), _overlaps(x_edges, grid)
    area_T: NDArray[np.float64] = (rows_Ht.T @ mask_HW @ columns_Wt).ravel()
    return area_T


def _overlaps(edges: NDArray[np.float64], grid: TokenGrid) -> NDArray[np.float64]:
    """Along one edge of the picture, the length that each interval between `edges` (shares of it, ascending) has in
    common with each cell, (len(edges) - 1, t). The last cell reaches to the border, as `TokenGrid` says."""
    starts = np.arange(grid.tokens) * grid.patch
    ends = np.append(starts[1:], grid.size)
    low, high = edges[:-1, None] * grid.size, edges[1:, None] * grid.size
    lengths: NDArray[np.float64] = np.clip(np.minimum(high, ends) - np.maximum(low, starts), 0, None)
    return lengths


def object_features(encoder: Encoder, objects: Objects, grid: TokenGrid, progress: Progress, label: str) -> Tensor:
    """(N, D) fp32 of unit length: of each object the mean of its layer-normalised tokens, weighted by `coverage`.

    Every picture passes through the encoder once. `label`: what to call the encoder. Errors: RiceError for a damaged
    picture, an encoder that fails on this size, or features that are not finite.
    """
    of_image: defaultdict[int, list[int]] = defaultdict(list)
    for number, annotation in enumerate(objects.annotations):
        of_image[annotation.image].append(number)
    images = sorted(of_image)
    batches = [images[start : start + EXTRACT_BATCH] for start in range(0, len(images), EXTRACT_BATCH)]

    def load(image: int) -> tuple[Tensor, Tensor]:
        weights_KT = np.stack([coverage(objects, objects.annotations[number], grid) for number in of_image[image]])
        return squash(objects.split.load_image(image), grid.size), torch.from_numpy(weights_KT).float()

    features_ND = torch.empty(len(objects.annotations), encoder.spec.width)
    loads = progress.track(load_ahead(load, batches), f"{label}: encode", len(batches))
    for batch, loaded in zip(batches, loads, strict=True):
        images_B3SS = torch.stack([picture for picture, _ in loaded])
        with refused_size(encoder, label, images_B3SS, "choose another --grid"):
            tokens_BTD = extract_tokens(encoder, images_B3SS).cpu()
        for image, tokens_TD, (_, weights_KT) in zip(batch, tokens_BTD, loaded, strict=True):
            features_ND[of_image[image]] = weights_KT @ tokens_TD
    if not torch.isfinite(features_ND).all():
        raise RiceError(f"{label} gave features that are NaN or infinite; check its weights")
    return nn.functional.normalize(features_ND)
