"""What the stages found is what training reads: each region with its own label or tokens, nothing lost uncounted."""

from collections import Counter
from pathlib import Path

import numpy as np
import pile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rice.curate import ocr, propose
from rice.curate.config import CheckConfig, EngineConfig
from rice.curate.engine import Engine
from rice.curate.label import LabelStage, publish
from rice.curate.sources import find_sources
from rice.curate.stage import totals
from rice.curate.take import take_pictures
from rice.data.shard_reader import Shard, read_dataset
from rice.errors import RiceError
from rice.progress import SilentProgress

NAME = "in-000000"
WHERE = EngineConfig(workers=1, device="cpu")


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("label")
    pile.write_files(root / "in", {f"{k}.jpg": pile.jpeg(k) for k in range(3)})
    with Engine(WHERE, 1) as engine:
        take_pictures(find_sources([root / "in"], 10), root / "out", CheckConfig(min_edge=10), engine, SilentProgress())
    return root / "out"


boxes = st.tuples(st.integers(0, 70), st.integers(0, 54), st.integers(1, 10), st.integers(1, 10)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
objects = st.lists(st.tuples(boxes, st.integers(-1, 6)), max_size=4)
lines = st.lists(st.tuples(boxes, st.text(max_size=5), st.lists(st.integers(0, 99), max_size=3)), max_size=3)
pictures = st.lists(st.tuples(objects, lines), min_size=3, max_size=3)


def write(out: Path, found: list[tuple[list, list]]) -> None:
    """As the stages before would."""
    proposed = [{"key": str(k), "boxes": [b for b, _ in o], "scores": [0.5] * len(o)} for k, (o, _) in enumerate(found)]
    read = [
        {
            "key": str(k),
            "boxes": [box for box, _, _ in own],
            "scores": [0.9] * len(own),
            "texts": [text for _, text, _ in own],
            "tokens": [tokens for _, _, tokens in own],
        }
        for k, (_, own) in enumerate(found)
    ]
    labels = [label for o, _ in found for _, label in o]
    distances = np.arange(len(labels), dtype=np.float32)
    tables = {
        f"propose/{NAME}.parquet": pa.Table.from_pylist(proposed, schema=propose.SCHEMA),
        f"ocr/{NAME}.parquet": pa.Table.from_pylist(read, schema=ocr.SCHEMA),
        f"clusters/labels/{NAME}.parquet": pa.table({"label": pa.array(labels, pa.int32()), "distance": distances}),
    }
    for name, table in tables.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out / name)
        if not name.startswith("clusters"):
            pile.finish(out, name.partition("/")[0], NAME, out / name)


def label(out: Path) -> Shard:
    stage = LabelStage(out, out / "clusters")
    with Engine(WHERE, 1) as engine:
        engine.run(stage, {NAME: 3}, SilentProgress())
    publish(stage, [NAME], (7, 100), {"kind": "curation"})
    location, info = read_dataset(out / "shards")
    return Shard(location, info.shards[0], info.object_classes, info.ocr_classes)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=pictures)
def test_training_reads_every_region_with_its_label_or_its_tokens(taken: Path, found: list[tuple[list, list]]) -> None:
    write(taken, found)
    shard = label(taken)
    table = pq.read_table(taken / "shards" / f"{NAME}.parquet")
    distance = 0
    for row, (own, text) in enumerate(found):
        record = shard.sidecar.record(row)
        clustered = [(box, number) for box, number in own if number != -1]
        spelt = [(box, words, ids) for box, words, ids in text if ids]
        assert record.boxes.tolist() == [box for box, *_ in [*clustered, *spelt]]
        assert record.labels.tolist() == [number for _, number in clustered] + [-1] * len(spelt)
        assert [ids.tolist() for ids in record.tokens] == [[]] * len(clustered) + [ids for _, _, ids in spelt]
        assert table["texts"][row].as_py() == [""] * len(clustered) + [words for _, words, _ in spelt]
        areas: Counter[int] = Counter()
        for (x0, y0, x1, y1), number in clustered:
            areas[number] += (x1 - x0) * (y1 - y0)
        assert record.image_labels.tolist() == sorted(areas, key=lambda k: (-areas[k], k))
        numbers = [distance + k for k, (_, number) in enumerate(own) if number != -1]
        assert table["distances"][row].as_py()[: len(numbers)] == numbers
        distance += len(own)
    counts, drops, _ = totals(taken, "label", [NAME])
    regions = sum(len(own) + len(text) for own, text in found)
    assert counts["objects"] + counts["texts"] + sum(drops.values()) == regions
    assert counts["pictures"] == 3


def test_new_labels_leave_the_pictures_alone(taken: Path) -> None:
    box = [1, 1, 9, 9]
    write(taken, [([(box, 1)], []), ([(box, 2)], []), ([], [])])
    first = label(taken).sidecar.labels.tolist()
    tar = (taken / "shards" / f"{NAME}.tar").stat()
    write(taken, [([(box, 4)], []), ([(box, 2)], []), ([], [])])
    second = label(taken).sidecar.labels.tolist()
    assert (first, second) == ([1, 2], [4, 2])
    after = (taken / "shards" / f"{NAME}.tar").stat()
    assert (tar.st_ino, tar.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_clusters_of_other_regions_are_refused(taken: Path) -> None:
    write(taken, [([([1, 1, 9, 9], 1)], []), ([], []), ([], [])])
    pq.write_table(
        pa.table({"label": pa.array([1, 2], pa.int32()), "distance": [0.0, 0.0]}),
        taken / "clusters" / "labels" / f"{NAME}.parquet",
    )
    with pytest.raises(RiceError, match="is not of these regions"):
        label(taken)


def test_without_clusters_it_is_said_what_to_run(taken: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="run rice curate cluster"), Engine(WHERE, 1) as engine:
        engine.run(LabelStage(taken, tmp_path / "none"), {NAME: 3}, SilentProgress())
