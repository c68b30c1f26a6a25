"""Our k-means against faiss' flat one: time and squared error, both with an exact assignment of every point at the end.

    python benchmarks/kmeans.py [--points 200000] [--width 128] [--clusters 2000] [--photos FOLDER] [--json FILE]

gauss     no structure at all: every direction alike, nothing for two levels to find
surface   of 12 dimensions in a wider space, with a little noise: smooth, no clusters either
clusters  twice as many round clusters as are asked for, which overlap
photos    with --photos: patch tokens of `mini-s8-128` on the pictures of a folder; the width is theirs, 128

Rounds alternate, each with another seed of both. faiss runs its 25 iterations on all points. Goals: at most half its
time, at no larger error, and labels that are those of faiss' own search among our centres, but where two distances are
alike.

The limit: faiss computes 26 times all distances, ours 7 times and about one more for its two levels: 0.31.
"""

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.timing import begin, finish, shown, spread
from rice.curate.config import KMeansConfig
from rice.curate.kmeans import learn
from rice.curate.nearest import nearest

GOAL_TIME, GOAL_ERROR = 0.5, 1.0
SURFACE = 12


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        points: How many.
        width: Of a point.
        clusters: How many.
        rounds: Each with another seed.
        kinds: Of points.
        photos: Folder of pictures, for points that are features.
        json: Write the figures here, too.
    """

    points: int = 200_000
    width: int = 128
    clusters: int = 2000
    rounds: int = 3
    kinds: tuple[str, ...] = ("gauss", "surface", "clusters")
    photos: Path | None = None
    json: Path | None = None


def main(config: Config) -> int:
    """Run everything; 0 where every figure holds."""
    report = begin(config)
    print(f"{config.points:,} points x {config.width}, {config.clusters:,} clusters")
    kinds = [*config.kinds, *(["photos"] if config.photos else [])]
    report["kinds"] = {kind: _compare(kind, config) for kind in kinds}
    return finish(report, config.json, holds=all(figures["holds"] for figures in report["kinds"].values()))


def _compare(kind: str, config: Config) -> dict[str, Any]:
    sides: dict[str, Callable[[Tensor, int, int], tuple[Tensor, Tensor]]] = {"ours": _ours, "faiss": _faiss}
    rounds: list[dict[str, Any]] = []
    fixed_ND = tokens(config) if kind == "photos" else None
    for seed, order in zip(range(config.rounds), itertools.cycle([list(sides), list(sides)[::-1]]), strict=False):
        points_ND = POINTS[kind](config, seed) if fixed_ND is None else fixed_ND
        found: dict[str, Any] = {}
        for name in order:
            began = time.perf_counter()
            labels_N, centres_KD = sides[name](points_ND, config.clusters, seed)
            found[name] = {"seconds": time.perf_counter() - began, "error": error_of(points_ND, centres_KD, labels_N)}
            if name == "ours":
                found["labels_apart"] = _labels_apart(points_ND, centres_KD, labels_N)
        rounds.append(found)
    ratio = {of: spread([each["ours"][of] / each["faiss"][of] for each in rounds]) for of in ("seconds", "error")}
    apart = max(each["labels_apart"] for each in rounds)
    holds = ratio["seconds"]["median"] <= GOAL_TIME and ratio["error"]["max"] <= GOAL_ERROR and apart == 0
    print(
        f"  {kind:8} time {shown(ratio['seconds'])}, error {shown(ratio['error'], '.4f')} of faiss', "
        f"{apart} labels apart: {'holds' if holds else 'FAILS'}"
    )
    return {"rounds": rounds, "ratio": ratio, "holds": holds}


def _ours(points_ND: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    keys_N = torch.rand(len(points_ND), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    centres_KD = learn(points_ND, keys_N, KMeansConfig(clusters=clusters))
    return nearest(points_ND, centres_KD).labels, centres_KD


def _faiss(points_ND: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    import faiss  # type: ignore[import-not-found, import-untyped, unused-ignore]

    faiss.omp_set_num_threads(torch.get_num_threads())
    # More than it would warn of, and its own number of iterations.
    means = faiss.Kmeans(
        points_ND.shape[1], clusters, niter=25, seed=seed, max_points_per_centroid=len(points_ND), verbose=False
    )
    means.train(points_ND.numpy())
    _, labels_N1 = means.index.search(points_ND.numpy(), 1)
    return torch.from_numpy(labels_N1[:, 0]), torch.from_numpy(means.centroids)


def error_of(points_ND: Tensor, centres_KD: Tensor, labels_N: Tensor) -> float:
    """Mean squared distance to the centre of one's label, in float64."""
    total = 0.0
    for points, labels in zip(torch.split(points_ND, 8192), torch.split(labels_N, 8192), strict=True):
        total += float(((points.double() - centres_KD[labels].double()) ** 2).sum())
    return total / len(points_ND)


def _labels_apart(points_ND: Tensor, centres_KD: Tensor, labels_N: Tensor) -> int:
    """How many labels are not those of faiss' exhaustive search, and farther by more than fp32 can tell."""
    import faiss

    index = faiss.IndexFlatL2(points_ND.shape[1])
    index.add(centres_KD.numpy())
    _, found_N1 = index.search(points_ND.numpy(), 1)
    other_N = (torch.from_numpy(found_N1[:, 0]) != labels_N).nonzero()[:, 0]
    points, theirs, mine = points_ND[other_N].double(), torch.from_numpy(found_N1[:, 0])[other_N], labels_N[other_N]
    gaps = ((points - centres_KD[mine].double()) ** 2).sum(1) - ((points - centres_KD[theirs].double()) ** 2).sum(1)
    return int((gaps.abs() > 1e-5 * points.pow(2).sum(1)).sum())


def gauss(config: Config, seed: int) -> Tensor:
    """No structure."""
    return torch.randn(config.points, config.width, generator=torch.Generator().manual_seed(seed))


def surface(config: Config, seed: int) -> Tensor:
    """Few dimensions in a wider space."""
    dice = torch.Generator().manual_seed(seed)
    inner_NS = torch.randn(config.points, SURFACE, generator=dice)
    noise_ND = torch.randn(config.points, config.width, generator=dice)
    return inner_NS @ torch.randn(SURFACE, config.width, generator=dice) + 0.1 * noise_ND


def clusters(config: Config, seed: int) -> Tensor:
    """Twice as many as are asked for."""
    dice = torch.Generator().manual_seed(seed)
    places = torch.randn(2 * config.clusters, config.width, generator=dice)
    own_N = torch.randint(len(places), (config.points,), generator=dice)
    return places[own_N] + 0.7 * torch.randn(config.points, config.width, generator=dice)


POINTS: dict[str, Callable[[Config, int], Tensor]] = {"gauss": gauss, "surface": surface, "clusters": clusters}


def tokens(config: Config) -> Tensor:
    """Patch tokens of the pictures of a folder."""
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    import rice

    assert config.photos is not None
    encoder, found = rice.load_encoder("mini-s8-128"), []
    paths = sorted(config.photos.glob("*.jpg"))
    for first in range(0, len(paths), 32):
        pictures = []
        for path in paths[first : first + 32]:
            with Image.open(path) as picture:
                pictures.append(pil_to_tensor(picture.convert("RGB").resize((128, 128))).float() / 255)
        found.append(encoder(torch.stack(pictures)).patches.flatten(2).transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[: config.points].contiguous()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
