"""Image-level labels: the nearest of K clusters of whole pictures' features, as UNICOM and MLCD learn from.

    OUT/features/whole.npy  a feature of every picture, float16, in the shards' order
    OUT/clusters            what `rice curate cluster` writes
    OUT/shards              the same pictures (links to their tars), without regions, with image-level labels

UNICOM (An et al., 2023) takes the nearest cluster of a picture, MLCD (An et al., 2024) the eight nearest. Shapes: N
pictures, K clusters, D width, M nearest.
"""

import dataclasses
import os
import shutil
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
from rice.data.shards import DATASET, ShardInfo, write_dataset, write_sidecar
from rice.data.stream import RegionStream, StreamConfig
from rice.encoders.load import load_encoder
from rice.errors import RiceError
from rice.files import atomic_path, make_folder, sha256_json
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
    location, info = read_dataset(data)
    make_folder(out)
    identity = sha256_json({"data": info.source, **source})
    infos, at = [], 0
    for shard in info.shards:
        rows = pq.read_table(Path(location) / f"{shard.name}.parquet").to_pylist()
        _link(Path(location) / f"{shard.name}.tar", out / f"{shard.name}.tar")
        infos.append(_sidecar(out, shard, rows, labels_NM[at : at + len(rows)], identity))
        at += len(rows)
    classes = int(source["clusters"]["clusters"])
    labelled = dataclasses.replace(
        info, object_classes=classes, ocr_classes=0, classes=(), shards=tuple(infos), source=source
    )
    write_dataset(out, labelled)


def _sidecar(
    out: Path, shard: ShardInfo, rows: list[dict[str, Any]], labels_NM: NDArray[np.int64], identity: str
) -> ShardInfo:
    kept = ({"captions": [], **row} for row in rows)
    labelled = [{**row, **_EMPTY, "image_labels": labels} for row, labels in zip(kept, labels_NM.tolist(), strict=True)]
    return write_sidecar(out, shard.name, labelled, identity=identity)


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has none."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
