"""Image-level labels: the nearest of K clusters of whole pictures' features, as UNICOM and MLCD learn from.

    OUT/features/whole.npy  a feature of every picture, float16, in the shards' order
    OUT/clusters            what `rice curate cluster` writes
    OUT/shards              the same pictures (links to their tars), without regions, with image-level labels

UNICOM (An et al., 2023) takes the nearest cluster of a picture, MLCD (An et al., 2024) the eight nearest. Shapes: N
pictures, K clusters, D width, M nearest.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from rice.curate.cluster import CENTRES, cluster_features
from rice.curate.config import KMeansConfig, SampleConfig
from rice.data.shard_reader import read_dataset
from rice.data.shards import DATASET, DatasetInfo, write_dataset, write_sidecar
from rice.data.stream import RegionStream, StreamConfig
from rice.encoders.load import load_encoder
from rice.errors import RiceError
from rice.files import atomic_path, link_or_copy, make_folder, sha256_json
from rice.progress import Progress
from rice.runs import same_run
from rice.train.world import join

FEATURES, CLUSTERS, SHARDS = "features", "clusters", "shards"
NEAREST = 8
"""MLCD's."""

_BATCH = 64
_EMPTY: dict[str, list[Any]] = {"boxes": [], "labels": [], "tokens": [], "scores": []}


def label_whole(
    data: Path,
    out: Path,
    encoder: str,
    kmeans: KMeansConfig,
    progress: Progress,
    *,
    nearest: int = NEAREST,
    sample: SampleConfig | None = None,
) -> Path:
    """Label the pictures of the shards in `data`; returns OUT/shards. Killed at any instant, the same call goes on.

    encoder: as load_encoder takes it; its class token, or the mean of its patches where it has none, is the feature.
    Errors: RiceError for fewer clusters than `nearest`, for pictures that cannot be read, and for an `out` that holds
    labels by other settings.
    """
    if nearest > kmeans.clusters:
        raise RiceError(f"expected at least as many clusters as nearest ones are kept, got {kmeans.clusters}")
    shards, sample = out / SHARDS, sample or SampleConfig()
    settings = {"encoder": encoder, "nearest": nearest, **dataclasses.asdict(kmeans), **dataclasses.asdict(sample)}
    make_folder(out)
    same_run(out, {"kind": "whole pictures", "data": sha256_json(read_dataset(data)[1].source), **settings})
    if (shards / DATASET).is_file():
        return shards
    features_ND = _features(data, out / FEATURES / "whole.npy", encoder, progress)
    with join("cpu") as world:
        report = cluster_features(out / FEATURES, out / CLUSTERS, kmeans, sample, world)
    centres_KD = load_file(out / CLUSTERS / CENTRES)["centres"]
    labels_NM = _nearest(torch.from_numpy(features_ND).float(), centres_KD, nearest, unit_length=not sample.raw)
    _write(data, shards, labels_NM, {"kind": "whole", "encoder": encoder, "clusters": report["settings"]})
    return shards


def as_regions(labelled: Path, out: Path) -> Path:
    """What `label_whole` wrote, with one region a picture: all of it, of the nearest cluster; returns `out`.

    What is learnt from it by RICE's region layers tells how much of RICE is the way that regions are read out.
    """

    def as_region(row: dict[str, Any], _: int) -> dict[str, Any]:
        box, label = [0, 0, row["width"], row["height"]], row["image_labels"][0]
        return row | {"boxes": [box], "labels": [label], "tokens": [[]], "scores": [1.0]}

    info = read_dataset(labelled)[1]
    source = {"kind": "whole as region", "whole": info.source}
    _rewrite(labelled, out, as_region, dataclasses.replace(info, source=source))
    return out


def _features(data: Path, path: Path, encoder: str, progress: Progress) -> NDArray[np.float16]:
    """(N, D); computed once."""
    if path.is_file():
        found: NDArray[np.float16] = np.load(path)
        return found
    network = load_encoder(encoder)
    stream = RegionStream.open(data, StreamConfig(size=network.spec.native_size))
    batches = -(-stream.samples // _BATCH)
    parts = []
    for batch in progress.track(stream.all_regions(batch=_BATCH), "embed whole pictures", batches):
        if batch.corrupt.any():
            raise RiceError(f"cannot label {data}: {stream.keys(batch.samples[batch.corrupt])[0]}: {batch.reasons[0]}")
        seen = network(batch.images.float() / 255)
        parts.append(seen.patches.mean(dim=(2, 3)) if seen.cls is None else seen.cls)
    features_ND: NDArray[np.float16] = torch.cat(parts).half().numpy()
    make_folder(path.parent)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, features_ND)
    return features_ND


def _nearest(points_ND: Tensor, centres_KD: Tensor, count: int, *, unit_length: bool) -> NDArray[np.int64]:
    """Numbers (N, M) of the nearest centres, the nearest first."""
    if unit_length:
        points_ND = torch.nn.functional.normalize(points_ND, dim=1)
    parts = (torch.cdist(part, centres_KD).topk(count, largest=False).indices for part in torch.split(points_ND, 4096))
    found: NDArray[np.int64] = torch.cat(list(parts)).numpy()
    return found


def _write(data: Path, out: Path, labels_NM: NDArray[np.int64], source: dict[str, Any]) -> None:
    labels = labels_NM.tolist()
    classes = int(source["clusters"]["clusters"])
    info = dataclasses.replace(read_dataset(data)[1], object_classes=classes, ocr_classes=0, classes=(), source=source)
    _rewrite(data, out, lambda row, at: row | _EMPTY | {"image_labels": labels[at]}, info)


def _rewrite(
    data: Path, out: Path, relabel: Callable[[dict[str, Any], int], dict[str, Any]], info: DatasetInfo
) -> None:
    """The same pictures with other labels. relabel: of a row and its number among all. info: of the new ones, but for
    their shards."""
    location, old = read_dataset(data)
    make_folder(out)
    identity = sha256_json({"data": old.source, **info.source})
    infos, at = [], 0
    for shard in old.shards:
        rows = pq.read_table(Path(location) / f"{shard.name}.parquet").to_pylist()
        link_or_copy(Path(location) / f"{shard.name}.tar", out / f"{shard.name}.tar")
        labelled = [relabel({"captions": [], **row}, at + k) for k, row in enumerate(rows)]
        infos.append(write_sidecar(out, shard.name, labelled, identity=identity))
        at += len(rows)
    write_dataset(out, dataclasses.replace(info, shards=tuple(infos)))
