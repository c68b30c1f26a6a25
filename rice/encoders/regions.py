"""Embeddings of boxes in a picture, by trained region layers or by the mean of each box's patches.

Shapes: N boxes, D width, H W pixels.
"""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import layer_norm, normalize
from torchvision.transforms.v2.functional import pil_to_tensor

from rice.encoders.base import Encoder
from rice.encoders.commands import region_file
from rice.encoders.load import load_encoder
from rice.encoders.region_checkpoint import attach
from rice.encoders.regions_command import Pool
from rice.encoders.spec import EncoderSpec
from rice.encoders.weights import PUBLISHED
from rice.errors import RiceError
from rice.model.region import roi_mean
from rice.model.vit import ViT


class OnePass:
    """An encoder with a way to read regions from its patches. Errors: RiceError where it has no trained region layers,
    or they are asked for at another layer than the last."""

    def __init__(self, name: str, pool: Pool, device: str, *, weights: str | None = PUBLISHED) -> None:
        layers = _region_layers(name) if pool == "layers" else None
        self.encoder = load_encoder(name, weights=weights, device=device)
        if layers is not None and self.encoder.spec.layer != -1:
            raise RiceError(f"region layers look at the last hidden state; leave out layer={self.encoder.spec.layer}")
        self.model = None if layers is None else attach(cast(ViT, self.encoder.module), layers).to(self.encoder.device)

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.encoder.spec.width

    def __call__(self, picture: Image.Image, corners_N4: NDArray[np.float32]) -> Tensor:
        """(N, D), of length 1, fp32, on the encoder's device. corners: xyxy, pixels of the picture."""
        encoder = self.encoder
        height, width = input_size(picture.height, picture.width, encoder.spec)
        resampling = Image.Resampling[encoder.spec.preprocessing.interpolation.upper()]
        pixels_3HW = pil_to_tensor(picture.resize((width, height), resampling)).float() / 255
        scale = np.array([width / picture.width, height / picture.height] * 2, dtype=np.float32)
        boxes_1N4 = torch.from_numpy(corners_N4 * scale)[None].to(encoder.device)
        with torch.no_grad():
            if self.model is None:
                return _roi_embeddings(encoder, pixels_3HW[None], boxes_1N4)
            embeddings_ND: Tensor = self.model(encoder.normalise(pixels_3HW[None]), boxes_1N4).regions[0]
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


def _region_layers(name: str) -> Path:
    try:
        return region_file(name)
    except RiceError as error:
        raise RiceError(f"{error}; or ask for --pool roi_align, which any encoder has") from error


def _roi_embeddings(encoder: Encoder, images_13HW: Tensor, boxes_1N4: Tensor) -> Tensor:
    maps_1Dhw = encoder(images_13HW).patches.float()
    normed_1hwD = layer_norm(maps_1Dhw.movedim(1, -1), maps_1Dhw.shape[1:2])
    return normalize(roi_mean(normed_1hwD.movedim(-1, 1).contiguous(), boxes_1N4, encoder.spec.patch)[0], dim=-1)
