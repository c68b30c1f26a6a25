"""What the page says, as data for its script:

totals     [name, number]; dropped: [reason, number]
clusters   [number, name, size, mean squared distance or null, [sheet, its width and height], [region, ...]]; regions:
           [picture, x1, y1, x2, y2, squared distance or null, score, is of the nearest, is damaged]
histogram  [least size, largest size, clusters]
texts      [file or "", width, height, text, score, picture]
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rice.curate.montage.choose import Choice, Indices
from rice.curate.montage.config import MontageConfig
from rice.curate.montage.regions import Collection
from rice.curate.montage.sheets import TextCrop, places, sheet_name, sheet_size

_BINS = 24


def page_data(
    collection: Collection,
    choice: Choice,
    config: MontageConfig,
    keys: Sequence[str],
    damaged: Sequence[bool],
    texts: Sequence[TextCrop],
    dropped: Mapping[str, int],
) -> dict[str, Any]:
    """See the module. keys, damaged: of the shown regions' pictures."""
    counts = choice.counts
    totals = {
        "pictures": counts.pictures,
        "regions": counts.regions,
        "in clusters": int(counts.sizes.sum()),
        "of text": counts.texts,
        "clusters": collection.info.object_classes,
        "empty clusters": int((counts.sizes == 0).sum()),
    }
    return {
        "title": "Classes of regions" if collection.info.classes else "Clusters of regions",
        "kind": "class" if collection.info.classes else "cluster",
        "totals": list(totals.items()),
        "dropped": sorted(dropped.items()),
        "settings": asdict(config),
        "measured": bool(counts.measured.any()),
        "clusters": _clusters(collection, choice, config.tile, keys, damaged),
        "histogram": histogram(counts.sizes),
        "texts": [[crop.file, *crop.size, crop.text, _short(crop.score), crop.key] for crop in texts],
    }


def histogram(sizes_K: Indices) -> list[list[int]]:
    """How many clusters have how many regions: bins that grow, without the empty clusters."""
    sizes = sizes_K[sizes_K > 0]
    if not len(sizes):
        return []
    edges = np.unique(np.geomspace(sizes.min(), sizes.max() + 1, _BINS + 1).round().astype(np.int64))
    found, _ = np.histogram(sizes, edges)
    return [[int(a), int(b) - 1, int(n)] for a, b, n in zip(edges[:-1], edges[1:], found, strict=True)]


def _clusters(
    collection: Collection, choice: Choice, tile: int, keys: Sequence[str], damaged: Sequence[bool]
) -> list[list[Any]]:
    counts, shown = choice.counts, []
    for cluster, which in zip(choice.clusters.tolist(), choice.slices(), strict=True):
        rows = choice.regions[which]
        near = int(rows["near"].sum())
        measured = int(counts.measured[cluster])
        numbered = zip(range(which.start, which.stop), rows, places(near, len(rows) - near, tile), strict=True)
        regions = [
            [
                *place,
                keys[n],
                *row["box"].tolist(),
                *(_short(row[name]) for name in ("distance", "score")),
                bool(row["near"]),
                damaged[n],
            ]
            for n, row, place in numbered
        ]
        shown.append(
            [
                cluster,
                collection.class_name(cluster),
                int(counts.sizes[cluster]),
                _short(counts.sums[cluster] / measured) if measured else None,
                [sheet_name(cluster), *sheet_size(near, len(rows) - near, tile)],
                regions,
            ]
        )
    return shown


def _short(value: float) -> float | None:
    """Five digits, whatever order sums were formed in. None for NaN."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
