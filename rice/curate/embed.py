"""Stage `embed`: a feature of every region, from any encoder: what the clusters are of (the paper: CLIP's).

OUT/embed/SHARD.npy is (R, D) fp16, rows of length 1 in the order of OUT/propose/SHARD.parquet; all of a picture's
regions lie together.

Shapes: R regions of a shard, N of one picture, D width, S the encoder's edge.
"""

import functools
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from rice.curate.config import EmbedConfig
from rice.curate.decode import DecodeStage
from rice.curate.pictures import decoded, kept
from rice.curate.propose import ProposeStage
from rice.curate.stage import Done, Stage, Work
from rice.curate.tables import read_rows
from rice.data.decode import Pixels, resize_crop
from rice.data.regions import Crop
from rice.encoders.base import Encoder
from rice.encoders.commands import region_file
from rice.encoders.identity import fingerprint
from rice.encoders.load import load_encoder
from rice.encoders.regions import OnePass
from rice.encoders.spec import EncoderReference
from rice.files import atomic_path, sha256_unchanged

Boxes = NDArray[np.uint16]


class RegionFeatures(Protocol):
    """Takes pictures with their regions, one by one, and gives the features of them all."""

    def add(self, pixels_HW3: Pixels, boxes_N4: Boxes) -> None:
        """One picture, and at least one of its regions, xyxy in its pixels."""
        ...

    def take(self) -> NDArray[np.float16]:
        """(R, D), rows of length 1, of all that were added since the last time."""
        ...


@dataclass(frozen=True)
class EmbedStage(Stage):
    """Features of regions."""

    out: Path
    config: EmbedConfig

    name: ClassVar[str] = "embed"

    def on_gpu(self) -> bool:
        """Encoders are networks."""
        return True

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        reference = EncoderReference.parse(self.config.encoder)
        identity = fingerprint(reference, self.config.weights)
        layers = sha256_unchanged(region_file(self.config.encoder)) if self.config.pool == "layers" else None
        facts = {"pool": self.config.pool, "layers": layers, "dtype": self.config.dtype}
        return {"encoder": identity, "size": reference.size, **facts}

    def settings(self) -> dict[str, Any]:
        """The encoder's identity, not its name, and how it is used."""
        return self._settings

    def inputs(self, shard: str) -> list[str]:
        """The pictures and their regions."""
        return [self.before(name, shard).digest for name in (DecodeStage.name, ProposeStage.name)]

    def open(self, device: str) -> Work:
        """Load the encoder."""
        return functools.partial(self._embed, features=build_features(self.config, device))

    def _embed(self, shard: str, features: RegionFeatures) -> Generator[None, None, Done]:
        pictures = kept(self.out, shard)
        proposals = read_rows(self.out / ProposeStage.name / f"{shard}.parquet")
        features.take()  # what a shard that failed has left
        for pixels_HW3, row in zip(decoded(self.out, shard, pictures), proposals, strict=True):
            if row["boxes"]:
                features.add(pixels_HW3, np.array(row["boxes"], dtype=np.uint16))
            yield
        rows_RD, regions = features.take(), sum(len(row["boxes"]) for row in proposals)
        if len(rows_RD) != regions:
            raise RuntimeError(f"{shard}: {len(rows_RD)} features of {regions} regions")
        path = self.folder / f"{shard}.npy"
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, rows_RD)
        return Done(products=(path,), counts=Counter(regions=len(rows_RD)))


def build_features(config: EmbedConfig, device: str) -> RegionFeatures:
    """Load the encoder. Errors: RiceError, as `rice.load_encoder`; where it has no trained region layers."""
    if config.pool == "crops":
        dtype = getattr(torch, config.dtype)
        encoder = load_encoder(config.encoder, weights=config.weights, device=device, dtype=dtype)
        return CropFeatures(encoder, config.batch)
    return OnePassFeatures(OnePass(config.encoder, config.pool, device, weights=config.weights))


class CropFeatures:
    """The encoder sees every region by itself, as a square; a picture is decoded once for all of them.

    The feature is the class token where the encoder has one, else the mean of its normalised patches.
    """

    def __init__(self, encoder: Encoder, batch: int) -> None:
        self.encoder, self.batch = encoder, batch
        self._waiting: list[Tensor] = []
        self._found: list[Tensor] = []

    def add(self, pixels_HW3: Pixels, boxes_N4: Boxes) -> None:
        """Cut the regions out, and embed a batch as soon as there is one."""
        for left, top, right, bottom in boxes_N4.tolist():
            crop = Crop(left, top, right - left, bottom - top)
            self._waiting.append(resize_crop(pixels_HW3, crop, self.encoder.spec.native_size))
            if len(self._waiting) == self.batch:
                self._embed()

    def take(self) -> NDArray[np.float16]:
        """(R, D); the last batch may be smaller."""
        if self._waiting:
            self._embed()
        found, self._found = self._found, []
        return _rows(found, self.encoder.spec.width)

    def _embed(self) -> None:
        crops_B3SS = torch.stack(self._waiting).to(self.encoder.device)
        self._waiting = []
        features = self.encoder(crops_B3SS.float() / 255)
        vectors_BD = features.cls
        if vectors_BD is None:
            patches_BhwD = features.patches.float().movedim(1, -1)
            vectors_BD = layer_norm(patches_BhwD, patches_BhwD.shape[-1:]).mean(dim=(1, 2))
        self._found.append(normalize(vectors_BD.float(), dim=-1).half().cpu())


class OnePassFeatures:
    """The encoder sees the whole picture once; regions are read from its patches."""

    def __init__(self, encode: OnePass) -> None:
        self.encode = encode
        self._found: list[Tensor] = []

    def add(self, pixels_HW3: Pixels, boxes_N4: Boxes) -> None:
        """Embed the picture's regions."""
        features_ND = self.encode(Image.fromarray(pixels_HW3), boxes_N4.astype(np.float32))
        self._found.append(features_ND.half().cpu())

    def take(self) -> NDArray[np.float16]:
        """(R, D)."""
        found, self._found = self._found, []
        return _rows(found, self.encode.width)


def _rows(found: list[Tensor], width: int) -> NDArray[np.float16]:
    rows: NDArray[np.float16] = torch.cat([torch.zeros(0, width, dtype=torch.float16), *found]).numpy()
    return rows
