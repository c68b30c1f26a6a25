"""One batch: how each sample is shown, and the tensors that come of it.

Shapes: B samples, S edge in pixels, R regions annotated, N regions shown, M positives, I image-level classes,
L tokens of a caption.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from rice.data.captions import LEAST_CONTEXT, tokenise
from rice.data.decode import DamagedPictureError, decode_crop
from rice.data.regions import (
    Crop,
    Draws,
    Indices,
    balanced,
    draw_caption,
    draw_crop,
    draw_positives,
    through_crop,
    visible_share,
)
from rice.data.shard_reader import Record
from rice.data.shards import NO_LABEL
from rice.errors import check_ranges


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How samples are shown.

    Args:
        size: Edge of the square pictures, in pixels.
        regions: Regions per picture, N (paper 3.2).
        positives: Text tokens per region, M (paper, Table 5d).
        image_positives: Image-level classes per picture (MLCD: 8).
        crop_scale: Share of a picture's area that a crop keeps. The paper does not say.
        crop_ratio: Width over height of a crop, in the picture's pixels.
        flip: Probability of mirroring a picture without text; text would read backwards, and is never mirrored.
        min_visible: A region stays where at least this share of its area lies in the crop.
        min_edge: And where its shorter edge then has at least this many pixels of the crop, in validation, too. The
            paper drops edges below 128 of pictures of 336 and more, when it curates.
        context: Tokens of a caption; 0: captions are not read. Set by the text tower where captions are learned.
        window: Shards that are mixed; every worker holds their annotations, about 100 bytes a sample and 20 a region,
            and the captions where they are learned.
        workers: Processes that read and decode for one rank; 0: none.
        prefetch: Batches that each worker prepares ahead.
        pin_memory: Put batches where a GPU fetches them without waiting.
    """

    size: int
    regions: int = 10
    positives: int = 10
    image_positives: int = 8
    crop_scale: tuple[float, float] = (0.4, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    min_visible: float = 0.5
    min_edge: float = 0.0
    context: Annotated[int, tyro.conf.Suppress] = 0
    window: int = 16
    workers: int = 0
    prefetch: int = 2
    pin_memory: bool = False

    def __post_init__(self) -> None:
        """Errors: RiceError naming the field."""
        limits = {
            "crop_scale": 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1,
            "crop_ratio": 0 < self.crop_ratio[0] <= self.crop_ratio[1] < math.inf,
            "flip": 0 <= self.flip <= 1,
            "min_visible": 0 < self.min_visible <= 1,
            "min_edge": 0 <= self.min_edge < math.inf,
            "context": self.context == 0 or self.context >= LEAST_CONTEXT,
            "workers": self.workers >= 0,
        }
        least_one = ("size", "regions", "positives", "image_positives", "window", "prefetch")
        limits |= {name: getattr(self, name) >= 1 for name in least_one}
        check_ranges(self, limits, "rice train")


class Batch(NamedTuple):
    """A rank's share of a step. Labels are padded with -1.

    images: uint8 (B, 3, S, S), RGB, channels last in memory. boxes: float32 (B, N, 4), xyxy in pixels of the crop,
    never empty: a picture without regions has the whole crop N times, without labels. object_labels: int64 (B, N, 1).
    ocr_labels: int64 (B, N, M), distinct ids. image_labels: int64 (B, I), most prominent first. captions: int64 (B, L),
    token ids, of the empty text where there is none; L is 0 where they are not wanted. samples: int64 (B,), global
    indices. corrupt: bool (B,): black pictures without labels; reasons: one line for each of them, in order.
    """

    images: Tensor
    boxes: Tensor
    object_labels: Tensor
    ocr_labels: Tensor
    image_labels: Tensor
    captions: Tensor
    samples: Tensor
    corrupt: Tensor
    reasons: tuple[str, ...]


class View(NamedTuple):
    """How one sample is shown, all of it known before its picture is decoded.

    frame: (width, height) of the picture. boxes: (N, 4), pixels of the crop resized. labels: (N,). tokens: N arrays of
    distinct ids. N is 0 where no region is visible. caption: "" where there is none.
    """

    frame: tuple[int, int]
    crop: Crop
    flip: bool
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    tokens: list[Indices]
    image_labels: NDArray[np.int32]
    caption: str = ""


def training_view(record: Record, config: StreamConfig, draws: Draws) -> View:
    """A random crop, mirrored or not, N of the regions that are still visible in it, and one of the captions."""
    frame = record.width, record.height
    crop = draw_crop(*frame, config.crop_scale, config.crop_ratio, draws)
    has_text = any(len(ids) for ids in record.tokens)
    flip = bool(draws.uniform(1)[0] < config.flip) and not has_text
    boxes_R4 = record.boxes.astype(np.float64)
    moved_R4 = through_crop(boxes_R4, crop, config.size, flip)
    large_enough = _shorter_edge(moved_R4) >= config.min_edge
    visible = np.flatnonzero((visible_share(boxes_R4, crop) >= config.min_visible) & large_enough)
    chosen_N = visible[balanced(len(visible), config.regions, draws)]
    tokens = [draw_positives(record.tokens[i], config.positives, draws) for i in chosen_N.tolist()]
    caption = draw_caption(record.captions, draws)
    return View(frame, crop, flip, moved_R4[chosen_N], record.labels[chosen_N], tokens, record.image_labels, caption)


def whole_view(record: Record, config: StreamConfig) -> View:
    """The whole picture with every region that is large enough, in the shard's order.

    Of a text, the first M ids; of the captions, the first.
    """
    frame = record.width, record.height
    crop = Crop(0, 0, *frame)
    boxes_R4 = through_crop(record.boxes.astype(np.float64), crop, config.size, flip=False)
    shown = np.flatnonzero(_shorter_edge(boxes_R4) >= config.min_edge)
    distinct = (list(dict.fromkeys(record.tokens[i].tolist()))[: config.positives] for i in shown.tolist())
    tokens = [np.array(ids, dtype=np.int64) for ids in distinct]
    caption = record.captions[0] if record.captions else ""
    return View(frame, crop, False, boxes_R4[shown], record.labels[shown], tokens, record.image_labels, caption)


def _shorter_edge(boxes_R4: NDArray[np.float64]) -> NDArray[np.float64]:
    edges_R: NDArray[np.float64] = (boxes_R4[:, 2:] - boxes_R4[:, :2]).min(axis=1)
    return edges_R


def assemble(
    views: Sequence[View], pictures: Sequence[bytes], samples: Indices, config: StreamConfig, regions: int
) -> Batch:
    """Decode the pictures, and pad every sample to as many regions, with the whole crop as their box."""
    count, size = len(views), config.size
    images = torch.empty(count, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    boxes = np.tile(np.array([0, 0, size, size], dtype=np.float32), (count, regions, 1))
    labels = np.full((count, regions, 1), NO_LABEL)
    tokens = np.full((count, regions, config.positives), NO_LABEL)
    image_labels = np.full((count, config.image_positives), NO_LABEL)
    captions = [""] * count
    corrupt, reasons = np.zeros(count, dtype=bool), []
    for i, (view, picture) in enumerate(zip(views, pictures, strict=True)):
        shown = len(view.labels)
        boxes[i, :shown] = view.boxes
        try:
            images[i] = decode_crop(picture, view.frame, view.crop, size, flip=view.flip)
        except DamagedPictureError as error:
            images[i], corrupt[i] = 0, True
            reasons.append(str(error))
            continue
        labels[i, :shown, 0] = view.labels
        for slot, ids in enumerate(view.tokens):
            tokens[i, slot, : len(ids)] = ids
        first = view.image_labels[: config.image_positives]
        image_labels[i, : len(first)] = first
        captions[i] = view.caption
    return Batch(
        images=images,
        boxes=torch.from_numpy(boxes),
        object_labels=torch.from_numpy(labels),
        ocr_labels=torch.from_numpy(tokens),
        image_labels=torch.from_numpy(image_labels),
        captions=tokenise(captions, config.context),
        samples=torch.from_numpy(samples),
        corrupt=torch.from_numpy(corrupt),
        reasons=tuple(reasons),
    )
