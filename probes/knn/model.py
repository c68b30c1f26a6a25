"""One vector per picture.

Shapes: N pictures, B pictures of a batch, D width, S input edge in pixels.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probes.cache import EXTRACT_BATCH, FeatureSource, open_features
from probes.fit import split_batches
from probes.images import read_picture
from probes.knn.data import Picture, subsample
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.files import sha256_json
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.knn.probe import KnnConfig


class Vectors(NamedTuple):
    """Vectors (N, D) fp32 and labels (N,) int64 of pictures, on one device."""

    features: Tensor
    labels: Tensor

    def join(self, other: "Vectors") -> "Vectors":
        """Both, one after the other."""
        return Vectors(torch.cat([self.features, other.features]), torch.cat([self.labels, other.labels]))

    def subsample(self, fraction: float, seed: int) -> "Vectors":
        """The part that one seed uses, of each class alike; see `probes.knn.data.subsample`."""
        rows = torch.from_numpy(subsample(self.labels.cpu().numpy(), fraction, seed)).to(self.labels.device)
        return Vectors(self.features[rows], self.labels[rows])


def extract_pooled(encoder: Encoder, pool: str, images_B3SS: Tensor) -> Tensor:
    """(B, D) fp32: the class token ("cls"; "auto" where the tower has one), else the mean of the patch tokens.

    Errors: RiceError for "cls" on a tower without a class token.
    """
    features = encoder(images_B3SS)
    if pool == "cls" and features.cls is None:
        raise RiceError(f"{encoder.spec.name} has no class token; choose pool mean or auto")
    if pool == "mean" or features.cls is None:
        mean_BD: Tensor = features.patches.float().mean(dim=(2, 3))
        return mean_BD
    cls_BD: Tensor = features.cls.float()
    return cls_BD


def read_vectors(
    encoder: Encoder,
    pictures: Sequence[Picture],
    config: "KnnConfig",
    size: int,
    *,
    key: str,
    folder: Path,
    progress: Progress,
) -> Vectors:
    """The vectors of these pictures, each cut as the encoder's source would, on its device; `folder` keeps them.

    `key` identifies encoder, size and dataset.
    """
    source: FeatureSource[int] = FeatureSource(
        load=lambda item: encoder.preprocess(read_picture(pictures[item].path), size),
        extract=partial(extract_pooled, encoder, config.pool),
        count=len(pictures),
        shape=(encoder.spec.width,),
        key=sha256_json([key, [picture.name for picture in pictures]]),
        dtype=torch.float32,
    )
    label, budget = f"{folder.name}: {len(pictures)} pictures", config.cache_gb * 1e9
    features = open_features(source, folder, budget_bytes=budget, progress=progress, label=label)
    batches = split_batches(np.arange(len(pictures)), EXTRACT_BATCH)
    features_ND = torch.cat(list(features.stream(batches))).to(encoder.device)
    return Vectors(features_ND, torch.tensor([picture.label for picture in pictures], device=encoder.device))
