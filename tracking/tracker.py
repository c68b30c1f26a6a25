"""Following targets with a trained head: many clips at once, each with the template of its own first frame.

Shapes: K clips, Z template tokens, D width. Boxes are x, y, width, height in pixels of their frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probes.fit import autocast
from rice.data.video import Image_HW3
from rice.encoders.base import Encoder
from rice.errors import RiceError
from tracking.config import TrackingConfig
from tracking.model import Maps, TrackingHead, build_head, grids, tokens
from tracking.windows import Crop_SS3, Window, clip_box

Box = tuple[float, float, float, float]


class Found(NamedTuple):
    """Where the target is, and the height of the response there, 0 to 1; None where it is not known."""

    box: Box
    score: float | None


@dataclass(frozen=True)
class Tracker:
    """A frozen encoder with its head (section 4.4). `sizes`: of template and search in pixels.

    The backbone never mixes template and search, so the template's tokens are computed once per clip; the blocks see
    both in every frame. No template is ever renewed (OSTrack).
    """

    encoder: Encoder
    head: TrackingHead
    sizes: tuple[int, int]
    config: TrackingConfig

    def templates(self, frames: Sequence[Image_HW3], boxes: Sequence[Box], pool: Executor | None = None) -> Tensor:
        """Tokens (K, Z, D) of the targets' first frames. Errors: RiceError for a box without an area."""
        for box in boxes:
            if not (np.isfinite(box).all() and box[2] > 0 and box[3] > 0):
                raise RiceError(f"expected a first box x y width height with an area, got {box}")
        windows = [Window.around(box, self.config.template_factor) for box in boxes]
        return self._tokens(cut_all(windows, frames, self.sizes[0], pool))

    def follow(
        self, frames: Sequence[Image_HW3], boxes: Sequence[Box], templates_KZD: Tensor, pool: Executor | None = None
    ) -> list[Found]:
        """Where the targets are now, `boxes` being where they were in the frame before."""
        windows = [Window.around(box, self.config.search_factor) for box in boxes]
        maps = self.maps(cut_all(windows, frames, self.sizes[1], pool), templates_KZD)
        response = maps.score * hann_window(self.head.search[0], maps.score.device)
        boxes_K4, scores_K = maps.boxes(response)
        found = []
        for row, score, window, frame in zip(boxes_K4.tolist(), scores_K.tolist(), windows, frames, strict=True):
            centre_x, centre_y, width, height = row
            box = window.outside((centre_x - width / 2, centre_y - height / 2, width, height))
            found.append(Found(clip_box(box, frame.shape[0], frame.shape[1], self.config.margin), score))
        return found

    def maps(self, crops: Sequence[Crop_SS3], templates_KZD: Tensor) -> Maps:
        """The head's maps for search windows that are cut."""
        search_KXD = self._tokens(crops)
        with torch.inference_mode(), autocast(self.encoder.device, self.config.amp):
            maps: Maps = self.head(templates_KZD, search_KXD)
        return maps

    def track(self, frames: Iterable[Image_HW3], box: Box) -> Iterator[Found]:
        """The target in every frame of one clip; in the first it is `box`, with score 1."""
        templates: Tensor | None = None
        for frame in frames:
            if templates is None:
                templates = self.templates([frame], [box])
                found = Found(box, 1.0)
            else:
                (found,) = self.follow([frame], [found.box], templates)
            yield found

    def _tokens(self, crops: Sequence[Crop_SS3]) -> Tensor:
        images_K3SS = torch.from_numpy(np.stack(crops)).to(self.encoder.device).permute(0, 3, 1, 2).float().div(255)
        with torch.inference_mode(), autocast(self.encoder.device, self.config.amp):
            return tokens(self.encoder(images_K3SS).patches)


def build_tracker(
    encoder: Encoder, config: TrackingConfig, sizes: tuple[int, int] | None = None, *, seed: int = 0
) -> Tracker:
    """With a fresh head from `seed`, on the encoder's device. `sizes`: where they are not what `config` gives."""
    sizes = sizes or config.sizes(encoder.spec)
    template, search = grids(sizes, encoder.spec.patch)
    head = build_head(config.heads, width=encoder.spec.width, template=template, search=search, seed=seed)
    return Tracker(encoder, head.to(encoder.device), sizes, config)


def cut_all(windows: Sequence[Window], frames: Sequence[Image_HW3], size: int, pool: Executor | None) -> list[Crop_SS3]:
    """Each frame's window, in threads where there are any."""
    if pool is None or len(windows) == 1:
        return [window.cut(frame, size) for window, frame in zip(windows, frames, strict=True)]
    return list(pool.map(Window.cut, windows, frames, [size] * len(windows)))


def hann_window(cells: int, device: torch.device | None = None) -> Tensor:
    """(cells, cells): the product of two Hann windows without their zeros; targets do not jump (OSTrack)."""
    edge = torch.hann_window(cells + 2, periodic=False, dtype=torch.float64)[1:-1]
    return torch.outer(edge, edge).to(device, torch.float32)
