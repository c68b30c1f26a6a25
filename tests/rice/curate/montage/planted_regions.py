"""Pictures whose regions have the colour of their cluster, as shards that curation would write."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rice.data.shards import DatasetInfo, Sample, write_dataset, write_shard

WIDTH, HEIGHT = 160, 120
TEXT = "Größe 漢字 <script>window.hacked = 1</script>\u202e"


@dataclass
class Picture:
    """labels: -1 for text. Each region is a rectangle of its own size, filled with `colour(label)`."""

    key: str
    labels: list[int]
    boxes: list[list[int]] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    image: bytes = b""


def colour(label: int) -> tuple[int, int, int]:
    """Far from every other's, for some ninety clusters, and from the grey between them."""
    return 40 + label % 9 * 26, 40 + label // 9 % 9 * 26, 250 if label >= 0 else 0


def pictures(count: int, clusters: int, seed: int = 0) -> list[Picture]:
    """Six regions each, of clusters of unequal sizes; one in twelve is text."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        labels = np.minimum(rng.geometric(min(2 / clusters, 1), 6) - 1, clusters - 1)
        labels[rng.random(6) < 1 / 12] = -1
        made.append(paint(Picture(f"picture-{number:04d}", labels.tolist()), rng))
    return made


def paint(picture: Picture, rng: np.random.Generator) -> Picture:
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for slot, label in enumerate(picture.labels):
        left, top = slot % 3 * 52 + int(rng.integers(0, 8)), slot // 3 * 60 + int(rng.integers(0, 8))
        width, height = rng.integers(9, 44, 2).tolist()
        pixels[top : top + height, left : left + width] = colour(label)
        picture.boxes.append([left, top, left + width, top + height])
        picture.distances.append(float("nan") if label < 0 else float(np.float32(rng.random())))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    picture.image = buffer.getvalue()
    return picture


def write(
    folder: Path, shards: Sequence[Sequence[Picture]], clusters: int, *, extra: bool = True, names: tuple[str, ...] = ()
) -> Path:
    """extra: with texts and distances."""
    folder.mkdir(parents=True, exist_ok=True)
    infos = []
    for number, shard in enumerate(shards):
        name = f"part-{number:06d}"
        infos.append(write_shard(folder, name, [sample(picture) for picture in shard]))
        if extra:
            path = folder / f"{name}.parquet"
            texts = [[TEXT if label < 0 else "" for label in picture.labels] for picture in shard]
            columns = {
                "texts": pa.array(texts, pa.list_(pa.string())),
                "distances": pa.array([picture.distances for picture in shard], pa.list_(pa.float32())),
            }
            table = pq.read_table(path)
            for column, values in columns.items():
                table = table.append_column(column, values)
            pq.write_table(table, path)
    write_dataset(folder, DatasetInfo(object_classes=clusters, ocr_classes=9, shards=tuple(infos), classes=names))
    return folder


def sample(picture: Picture) -> Sample:
    return Sample(
        key=picture.key,
        image=picture.image,
        suffix="png",
        width=WIDTH,
        height=HEIGHT,
        boxes=np.array(picture.boxes, np.uint16).reshape(-1, 4),
        labels=picture.labels,
        tokens=[[1, 2] if label < 0 else [] for label in picture.labels],
        scores=[0.5 + slot / 16 for slot in range(len(picture.labels))],
    )
