"""Features to labels: centres from a sample, the nearest of all centres for every row, a report.

    OUT/run.json              whose the folder is
    OUT/centres.safetensors   centres (K, D), fp32
    OUT/learning.json         the mean squared distance before each step
    OUT/labels/NAME.parquet   of each file of features: label (-1: not finite, or without direction), squared distance
    OUT/clusters.parquet      cluster, size, error: the sum of its squared distances
    OUT/clusters.png          how learning went, and sizes
    OUT/clusters.json         the report; written last

Any rank count and any number of kills give the same files, but for the order of fp32 sums on several ranks.
Shapes: N rows of a file, K clusters, D width.
"""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

import rice
from rice.curate.config import KMeansConfig, SampleConfig
from rice.curate.features import FeatureFile, Features, clean, find_features
from rice.curate.kmeans import learn
from rice.curate.nearest import nearest
from rice.errors import RiceError, require
from rice.files import atomic_path, make_folder, read_json, remove_leftovers, sha256_file, sha256_json, write_json
from rice.progress import Progress, bars_if
from rice.runs import alone, refuse_other, same_run
from rice.train.agree import gather, lead, settle
from rice.train.world import World

NO_LABEL = -1
CENTRES, LEARNING, LABELS = "centres.safetensors", "learning.json", "labels"
CLUSTERS, PICTURE, REPORT = "clusters.parquet", "clusters.png", "clusters.json"
_PARTS = {"cells": "cells", "children": "clusters of each cell", "all": "all clusters"}
_IDENTITY = b"rice.labels"


def cluster_features(
    place: Path, out: Path, kmeans: KMeansConfig, sample: SampleConfig, world: World
) -> dict[str, Any]:
    """Everything above; the report, on every rank. Errors: RiceError, the same on every rank."""
    features = lead(lambda: find_features(place))
    facts = {
        "kind": "clusters",
        "features": f"{features.rows} x {features.width} ({sha256_json(features.fingerprint())[:16]})",
        **dataclasses.asdict(kmeans),
        **dataclasses.asdict(sample),
    }
    lead(lambda: _claim(out, facts))
    progress = bars_if(world.leads)
    with contextlib.ExitStack() as stack:
        lead(lambda: stack.enter_context(alone(out, ".cluster.lock", "clustering into")))
        lead(lambda: remove_leftovers(out, out / LABELS))
        if not lead((out / CENTRES).is_file):
            found_KD, learning = _learnt(features, kmeans, sample, world, progress)
            lead(lambda: _write_centres(out, found_KD, learning))
        centres_KD = settle(lambda: load_file(out / CENTRES)["centres"]).to(world.device)
        identity = lead(lambda: sha256_file(out / CENTRES))
        settle(lambda: _label(features, out, centres_KD, identity, sample, world, progress))
        return lead(lambda: _reported(features, out, facts, identity, world, progress))


def _claim(out: Path, facts: dict[str, Any]) -> None:
    refuse_other(out, facts, LABELS)
    make_folder(out / LABELS)
    same_run(out, facts)


def _learnt(
    features: Features, kmeans: KMeansConfig, sample: SampleConfig, world: World, progress: Progress
) -> tuple[Tensor, dict[str, Any]]:
    """Centres, and how they were found."""
    points_ND, keys_N = settle(lambda: _drawn(features, kmeans.clusters, sample, world, progress))
    rows = sum(gather(lambda: len(points_ND)))
    # Products of fp32 tell distances apart best about the middle.
    middle_D = torch.tensor(world.total(*points_ND.double().sum(dim=0).tolist())) / max(rows, 1)
    points_ND -= middle_D.to(points_ND)
    errors: list[list[Any]] = []
    if sample.backend == "faiss":
        centres_KD = settle(lambda: _faiss(points_ND, kmeans.clusters, sample.seed, world))
    else:
        steps = iter(progress.track(range(2 * kmeans.level_steps + kmeans.steps), f"learn from {rows:,} rows"))

        def report(part: str, step: int, error: float) -> None:
            errors.append([part, step, error])
            next(steps, None)

        next(steps, None)
        centres_KD = learn(points_ND.to(world.device), keys_N.to(world.device), kmeans, report).cpu()
        next(steps, None)
    return centres_KD + middle_D.to(centres_KD), {"rows": rows, "steps": errors}


def _drawn(
    features: Features, clusters: int, sample: SampleConfig, world: World, progress: Progress
) -> tuple[Tensor, Tensor]:
    """This rank's part of the sample, and its keys: which rows of a file are drawn depends on the seed alone."""
    share = min(1.0, sample.sample * clusters / max(features.rows, 1))
    points, keys = [np.zeros((0, features.width), np.float32)], [np.zeros(0)]
    for number, file in progress.track(_own(features, world), "draw a sample"):
        dice = np.random.default_rng([sample.seed, number])
        for block_ND in file.blocks():
            keys_N = dice.random(len(block_ND))
            drawn_N = keys_N < share
            kept_ND, _, kept_N = clean(block_ND[drawn_N], unit_length=not sample.raw)
            points.append(kept_ND)
            keys.append(keys_N[drawn_N][kept_N] / share)
    return torch.from_numpy(np.concatenate(points)), torch.from_numpy(np.concatenate(keys))


def _faiss(points_ND: Tensor, clusters: int, seed: int, world: World) -> Tensor:
    faiss = require("faiss", "curate")
    if world.size > 1:
        raise RiceError("expected one process with --backend faiss; leave torchrun out, or take --backend ours")
    if len(points_ND) < clusters:
        raise RiceError(f"expected at least as many points as clusters, got {len(points_ND):,} for {clusters:,}")
    means = faiss.Kmeans(points_ND.shape[1], clusters, niter=25, seed=seed, max_points_per_centroid=len(points_ND))
    means.train(points_ND.numpy())
    return torch.from_numpy(means.centroids.copy())


def _write_centres(out: Path, centres_KD: Tensor, learning: dict[str, Any]) -> None:
    write_json(out / LEARNING, learning)
    with atomic_path(out / CENTRES) as temporary:
        save_file({"centres": centres_KD.contiguous()}, temporary)


def _own(features: Features, world: World) -> list[tuple[int, FeatureFile]]:
    """This rank's files, with their numbers."""
    return [(k, file) for k, file in enumerate(features.files) if k % world.size == world.rank]


def _label(
    features: Features,
    out: Path,
    centres_KD: Tensor,
    identity: str,
    sample: SampleConfig,
    world: World,
    progress: Progress,
) -> None:
    """Labels of this rank's files, but for those that are there."""
    middle_D = centres_KD.mean(dim=0)
    centres_KD = centres_KD - middle_D
    for _, file in progress.track(_own(features, world), "label"):
        path = out / LABELS / f"{file.path.stem}.parquet"
        if _finished(path, identity, file.rows) is not None:
            continue
        labels, distances, dropped = [], [], {"not finite": 0, "without direction": 0}
        for block_ND in file.blocks():
            kept_ND, finite_N, kept_N = clean(block_ND, unit_length=not sample.raw)
            points_ND = torch.from_numpy(kept_ND).to(world.device) - middle_D
            found = nearest(points_ND, centres_KD, bf16=world.device.type == "cuda")
            labels.append(np.full(len(block_ND), NO_LABEL, np.int32))
            distances.append(np.full(len(block_ND), np.nan, np.float32))
            labels[-1][kept_N], distances[-1][kept_N] = found.labels.cpu().numpy(), found.distances.cpu().numpy()
            dropped["not finite"] += int((~finite_N).sum())
            dropped["without direction"] += int((finite_N & ~kept_N).sum())
        table = pa.table({"label": np.concatenate(labels), "distance": np.concatenate(distances)})
        said = json.dumps({"identity": identity, "dropped": dropped})
        with atomic_path(path) as temporary:
            pq.write_table(table.replace_schema_metadata({_IDENTITY: said.encode()}), temporary, compression="zstd")


def _finished(path: Path, identity: str, rows: int) -> dict[str, int] | None:
    """What was dropped, where the file's labels are there, whole, and of these centres."""
    try:
        metadata = pq.read_metadata(path)
        said = json.loads((metadata.metadata or {}).get(_IDENTITY, b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return None  # to be written anew
    return said["dropped"] if said.get("identity") == identity and metadata.num_rows == rows else None


def _reported(
    features: Features, out: Path, facts: dict[str, Any], identity: str, world: World, progress: Progress
) -> dict[str, Any]:
    """Count all labels; write the clusters, the picture and the report."""
    clusters = int(facts["clusters"])
    sizes_K, errors_K = np.zeros(clusters, np.int64), np.zeros(clusters)
    dropped: Counter[str] = Counter()
    for file in progress.track(features.files, "count"):
        path = out / LABELS / f"{file.path.stem}.parquet"
        dropped.update(_finished(path, identity, file.rows) or {})
        table = pq.read_table(path)
        labels_N, distances_N = table["label"].to_numpy(), table["distance"].to_numpy()
        own_N = labels_N != NO_LABEL
        sizes_K += np.bincount(labels_N[own_N], minlength=clusters)
        errors_K += np.bincount(labels_N[own_N], distances_N[own_N].astype(np.float64), minlength=clusters)
    with atomic_path(out / CLUSTERS) as temporary:
        pq.write_table(pa.table({"cluster": np.arange(clusters), "size": sizes_K, "error": errors_K}), temporary)
    learning = read_json(out / LEARNING)
    report = {
        "rows": int(sizes_K.sum()),
        "dropped": dict(dropped),
        "clusters": clusters,
        "empty": int((sizes_K == 0).sum()),
        "mean_squared_distance": float(errors_K.sum() / max(int(sizes_K.sum()), 1)),
        "sizes": {str(q): float(np.quantile(sizes_K, q)) for q in (0, 0.05, 0.5, 0.95, 1)},
        "learnt_from": learning["rows"],
        "settings": facts,
        "versions": {"rice-suite": rice.__version__, "torch": torch.__version__},
        "ranks": world.size,
    }
    draw_clusters(learning["steps"], sizes_K, out / PICTURE)
    write_json(out / REPORT, report)
    return report


def draw_clusters(steps: Sequence[tuple[str, int, float]], sizes_K: NDArray[np.int64], picture: Path) -> None:
    """The course of learning, and how large clusters are."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (course, sizes) = plt.subplots(1, 2, figsize=(9, 3.2))
    for part in dict.fromkeys(part for part, _, _ in steps):
        places = [k for k, step in enumerate(steps) if step[0] == part]
        course.plot(places, [steps[k][2] for k in places], "o-", markersize=3, label=_PARTS[part])
    course.set(title="mean squared distance", xlabel="step", ylim=(0, None))
    course.xaxis.get_major_locator().set_params(integer=True)
    if steps:
        course.legend(frameon=False)
    largest = max(int(sizes_K.max()), 1)
    sizes.hist(sizes_K, bins=np.unique(np.geomspace(1, largest + 1, 40).astype(int)), color="C0")
    sizes.set(title=f"sizes of {len(sizes_K):,} clusters", xlabel="regions", xscale="log", ylabel="clusters")
    figure.tight_layout()
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
