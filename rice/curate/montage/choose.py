"""Which clusters and which of their regions are shown. Sidecars are read one by one; what is kept is bounded.

Every region has a lot: 64 bits from the seed, its picture's key and its place in the picture. What is drawn are the
lowest lots, so that neither the number of shards nor their order changes it.

Shapes: K clusters, S pictures of a shard, R regions of it, N chosen regions.
"""

import hashlib
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rice.curate.montage.config import MontageConfig
from rice.curate.montage.regions import Collection, Regions
from rice.progress import Progress

Indices = NDArray[np.int64]
Chosen = NDArray[Any]
"""Structured, `CANDIDATE`."""

CANDIDATE = np.dtype(
    [
        ("slot", np.int64),
        ("lot", np.uint64),
        ("distance", np.float32),
        ("score", np.float32),
        ("shard", np.int32),
        ("picture", np.int32),
        ("region", np.int64),
        ("box", np.uint16, 4),
        ("near", np.bool_),
    ]
)
"""slot: of its cluster among those that are shown. picture, region: rows in its shard. box: xyxy, pixels of the upright
picture. near: whether it is of the nearest."""

_BUFFERED = 1 << 16
_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """sizes: (K,) regions of each cluster. measured: (K,) those with a distance. sums: (K,) of their distances."""

    pictures: int
    regions: int
    texts: int
    sizes: Indices
    measured: Indices
    sums: NDArray[np.float64]


def count(collection: Collection, progress: Progress) -> Counts:
    """Go through all sidecars."""
    clusters = collection.info.object_classes
    sizes_K, measured_K, sums_K = np.zeros(clusters, np.int64), np.zeros(clusters, np.int64), np.zeros(clusters)
    pictures = regions = texts = 0
    for number, shard in enumerate(progress.track(collection.shards, "count regions")):
        found = collection.regions(number)
        labels_R, distances_R = found.sidecar.labels, found.distances
        own_R = labels_R >= 0
        finite_R = own_R & np.isfinite(distances_R)
        sizes_K += np.bincount(labels_R[own_R], minlength=clusters)
        measured_K += np.bincount(labels_R[finite_R], minlength=clusters)
        sums_K += np.bincount(labels_R[finite_R], distances_R[finite_R].astype(np.float64), minlength=clusters)
        pictures += len(found.sidecar.keys)
        regions += len(labels_R)
        texts += int(found.is_text.sum())
        shard.close()
    return Counts(pictures=pictures, regions=regions, texts=texts, sizes=sizes_K, measured=measured_K, sums=sums_K)


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """clusters: numbers of those that are shown, ascending. regions: theirs, by slot and in the order of the sheet.

    texts: regions of text, in the order of the page.
    """

    counts: Counts
    clusters: Indices
    regions: Chosen
    texts: Chosen

    def slices(self) -> list[slice]:
        """Where each shown cluster's regions stand."""
        bounds = np.searchsorted(self.regions["slot"], np.arange(len(self.clusters) + 1)).tolist()
        return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def choose(collection: Collection, config: MontageConfig, progress: Progress) -> Choice:
    """Two passes over the sidecars: sizes of clusters, then regions of those that are shown."""
    counts = count(collection, progress)
    clusters = choose_clusters(counts.sizes, config.most_clusters, config.seed)
    regions, texts = choose_regions(collection, clusters, config, progress)
    return Choice(counts=counts, clusters=clusters, regions=regions, texts=texts)


def choose_clusters(sizes_K: Indices, most: int, seed: int) -> Indices:
    """The numbers of those that are shown, ascending: all that have regions, or the largest half and a drawn half."""
    there = np.flatnonzero(sizes_K)
    if len(there) <= most:
        return there
    by_size = there[np.lexsort([there, -sizes_K[there]])]
    largest, others = by_size[: most - most // 2], by_size[most - most // 2 :]
    lots = _scrambled(others.astype(np.uint64) + _scrambled(np.array([seed], np.uint64)))
    return np.sort(np.concatenate([largest, others[np.argsort(lots)][: most // 2]]))


def choose_regions(
    collection: Collection, clusters: Indices, config: MontageConfig, progress: Progress
) -> tuple[Chosen, Chosen]:
    """(the regions of `clusters` that are shown, by slot and in the order of the sheet; the regions of text).

    Where distances are known, half of a cluster's are its nearest; the rest is drawn from all others.
    """
    slots_K = np.full(collection.info.object_classes + 1, -1)  # the last one is of the label -1
    slots_K[clusters] = np.arange(len(clusters))
    near = _Lowest(config.regions // 2, "distance", "lot")
    drawn, texts = _Lowest(config.regions, "lot"), _Lowest(config.texts, "lot")
    for number, shard in enumerate(progress.track(collection.shards, "choose regions")):
        found = collection.regions(number)
        lots_R = _lots(found, config.seed)
        slots_R = slots_K[found.sidecar.labels]
        shown = _candidates(found, number, slots_R, lots_R, np.flatnonzero(slots_R >= 0))
        near.offer(shown[np.isfinite(shown["distance"])])
        drawn.offer(shown)
        texts.offer(_candidates(found, number, np.zeros_like(slots_R), lots_R, np.flatnonzero(found.is_text)))
        shard.close()
    return _merged(near.kept(), drawn.kept(), config.regions), texts.kept()


class _Lowest:
    """Of each slot the `most` candidates that come first by some fields."""

    def __init__(self, most: int, *fields: str) -> None:
        self._most, self._fields = most, fields
        self._buffer: list[Chosen] = [np.zeros(0, CANDIDATE)]
        self._room = _BUFFERED

    def offer(self, candidates: Chosen) -> None:
        self._buffer.append(candidates)
        self._room -= len(candidates)
        if self._room < 0:
            self._room = max(_BUFFERED, len(self.kept()))

    def kept(self) -> Chosen:
        """By slot, then by the fields."""
        rows = np.concatenate(self._buffer)
        rows = rows[np.lexsort([*(rows[name] for name in reversed(self._fields)), rows["slot"]])]
        self._buffer = [rows[_rank(rows["slot"]) < self._most]]
        return self._buffer[0]


def _merged(near: Chosen, drawn: Chosen, most: int) -> Chosen:
    """The nearest, then what was drawn and is not among them, `most` of each slot."""
    near["near"] = True
    others = drawn[~np.isin(drawn["lot"], near["lot"])]
    rows = np.concatenate([near, others])
    rows = rows[np.argsort(rows["slot"], kind="stable")]
    return rows[_rank(rows["slot"]) < most]


def _rank(slots_N: Indices) -> Indices:
    """Of sorted slots: how many of the same slot come before."""
    places_N = np.arange(len(slots_N))
    first_N = np.r_[True, slots_N[1:] != slots_N[:-1]][: len(slots_N)]
    return places_N - np.maximum.accumulate(np.where(first_N, places_N, 0))


def _candidates(found: Regions, shard: int, slots_R: Indices, lots_R: NDArray[np.uint64], which: Indices) -> Chosen:
    rows = np.zeros(len(which), CANDIDATE)
    rows["slot"], rows["lot"], rows["distance"] = slots_R[which], lots_R[which], found.distances[which]
    rows["score"], rows["shard"], rows["picture"] = found.scores[which], shard, found.owners[which]
    rows["region"], rows["box"] = which, found.sidecar.boxes[which]
    return rows


def picture_lots(keys: Any, seed: int) -> NDArray[np.uint64]:
    """(S,) 64 bits of each key and the seed."""
    salt = seed.to_bytes(8, "little")
    digests = [hashlib.blake2b(key.encode(), digest_size=8, salt=salt).digest() for key in keys.to_pylist()]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _lots(found: Regions, seed: int) -> NDArray[np.uint64]:
    places_R = np.arange(len(found.owners)) - found.sidecar.regions_at[found.owners]
    return _scrambled(picture_lots(found.sidecar.keys, seed)[found.owners] + places_R.astype(np.uint64) * _GOLDEN)


def _scrambled(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: a bijection of 64 bits."""
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return values ^ (values >> np.uint64(31))
