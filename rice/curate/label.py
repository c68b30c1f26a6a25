"""Stage `label`: the annotations that RICE learns from, beside the pictures: OUT/shards/SHARD.parquet.

A region of an object has its cluster as label, a region of text its tokens. Beside the columns of every shard
(`rice.data.shards.SCHEMA`) stand `texts`, "" for objects, and `distances`, squared, to the cluster's centre, NaN for
text. New labels, of other clusters, rewrite these files alone.
"""

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rice.curate.cluster import LABELS, NO_LABEL
from rice.curate.decode import DecodeStage
from rice.curate.ocr import OcrStage
from rice.curate.pictures import kept
from rice.curate.propose import ProposeStage
from rice.curate.stage import SHARDS, Done, Stage, Work
from rice.curate.tables import Row, read_rows
from rice.data.coco_sample import by_area
from rice.data.shards import DATASET, Annotations, DatasetInfo, ShardInfo, sidecar_row, write_dataset, write_sidecar
from rice.errors import RiceError
from rice.files import make_folder, sha256_json, sha256_unchanged

EXTRA = (pa.field("texts", pa.list_(pa.string())), pa.field("distances", pa.list_(pa.float32())))
NOT_CLUSTERED, NO_TOKENS = "feature not finite or zero", "text without tokens"


@dataclass(frozen=True)
class LabelStage(Stage):
    """Clusters and tokens to annotations. clusters: what `rice curate cluster` wrote."""

    out: Path
    clusters: Path

    name: ClassVar[str] = "label"

    def settings(self) -> dict[str, Any]:
        """Nothing may be set."""
        return {}

    def inputs(self, shard: str) -> list[str]:
        """Pictures, regions, text, and the shard's clusters."""
        stages = (DecodeStage.name, ProposeStage.name, OcrStage.name)
        return [*(self.before(stage, shard).digest for stage in stages), self._labels_identity(shard)]

    def _labels_identity(self, shard: str) -> str:
        path = self._labels(shard)
        if not path.is_file():
            raise RiceError(f"{path} is not there; run rice curate cluster {self.out / 'embed'} --out {self.clusters}")
        return sha256_unchanged(path)

    def _labels(self, shard: str) -> Path:
        return self.clusters / LABELS / f"{shard}.parquet"

    def open(self, device: str) -> Work:
        """Nothing is loaded."""
        return self._label

    def _label(self, shard: str) -> Generator[None, None, Done]:
        counts, drops = Counter[str](), Counter[str]()
        rows = []
        for picture, objects, text in self._regions(shard):
            annotations, extra = _annotations(picture, objects, text, drops)
            place = {"offset": picture["offset"], "length": picture["length"]}
            rows.append(sidecar_row(annotations) | place | extra)
            counts["objects"] += sum(label != NO_LABEL for label in annotations.labels)
            counts["texts"] += sum(bool(ids) for ids in annotations.tokens)
            counts["pictures"] += 1
            counts["pictures without a region"] += not annotations.labels
            yield
        make_folder(self.out / SHARDS)
        (self.out / SHARDS / DATASET).unlink(missing_ok=True)  # until all labels have changed it is no data set
        write_sidecar(self.out / SHARDS, shard, rows, identity=sha256_json(self.inputs(shard)), extra=EXTRA)
        return Done(products=(self.out / SHARDS / f"{shard}.parquet",), counts=counts, drops=drops)

    def _regions(self, shard: str) -> Generator[tuple[Row, list[Row], list[Row]], None, None]:
        """Each picture with its objects and its lines of text."""
        proposed = read_rows(self.out / ProposeStage.name / f"{shard}.parquet")
        texts = read_rows(self.out / OcrStage.name / f"{shard}.parquet")
        table = pq.read_table(self._labels(shard))
        labels, distances = table["label"].to_pylist(), table["distance"].to_pylist()
        if len(labels) != sum(len(row["boxes"]) for row in proposed):
            raise RiceError(f"{self._labels(shard)} is not of these regions; cluster {self.out / 'embed'} anew")
        at = 0
        for picture, row, found in zip(kept(self.out, shard), proposed, texts, strict=True):
            own = slice(at, at := at + len(row["boxes"]))
            columns = (row["boxes"], row["scores"], labels[own], distances[own])
            objects = [
                dict(zip(("box", "score", "label", "distance"), r, strict=True)) for r in zip(*columns, strict=True)
            ]
            columns = (found["boxes"], found["scores"], found["texts"], found["tokens"])
            lines = [dict(zip(("box", "score", "text", "tokens"), r, strict=True)) for r in zip(*columns, strict=True)]
            yield picture, objects, lines


def _annotations(
    picture: Row, objects: Sequence[Row], lines: Sequence[Row], drops: Counter[str]
) -> tuple[Annotations, dict[str, Any]]:
    """Of one picture; and the columns beside."""
    clustered = [region for region in objects if region["label"] != NO_LABEL]
    spelt = [line for line in lines if line["tokens"]]
    drops[NOT_CLUSTERED] += len(objects) - len(clustered)
    drops[NO_TOKENS] += len(lines) - len(spelt)
    regions = [*clustered, *spelt]
    boxes_R4 = np.array([region["box"] for region in regions], dtype=np.uint16).reshape(-1, 4)
    edges_R2 = (boxes_R4[:, 2:] - boxes_R4[:, :2]).astype(np.int64)
    areas = (edges_R2[:, 0] * edges_R2[:, 1]).tolist()
    labels = [region["label"] for region in clustered]
    annotations = Annotations(
        key=picture["key"],
        suffix=picture["suffix"],
        width=picture["width"],
        height=picture["height"],
        boxes=boxes_R4,
        labels=labels + [NO_LABEL] * len(spelt),
        tokens=[[] for _ in clustered] + [line["tokens"] for line in spelt],
        scores=[region["score"] for region in regions],
        image_labels=by_area(zip(labels, areas[: len(labels)], strict=True)),
    )
    texts = [""] * len(clustered) + [line["text"] for line in spelt]
    distances = [region["distance"] for region in clustered] + [float("nan")] * len(spelt)
    return annotations, {"texts": texts, "distances": distances}


def publish(
    stage: LabelStage, shards: Sequence[str], classes: tuple[int, int], source: Mapping[str, Any]
) -> DatasetInfo:
    """Write dataset.json over all shards, which makes OUT/shards a data set to train on."""
    infos, digests = [], []
    for shard in shards:
        manifest = stage.manifest(shard)
        counts = manifest.counts
        digests.append(manifest.digest)
        tar = stage.out / SHARDS / f"{shard}.tar"
        regions = counts["objects"] + counts["texts"]
        infos.append(ShardInfo(name=shard, samples=counts["pictures"], regions=regions, tar_bytes=tar.stat().st_size))
    objects, words = classes
    said = {**source, "labels": sha256_json(digests)}
    info = DatasetInfo(object_classes=objects, ocr_classes=words, shards=tuple(infos), source=said)
    write_dataset(stage.out / SHARDS, info)
    return info
