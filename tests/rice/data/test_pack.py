"""`rice pack` keeps what COCO's file says, resumes where it was killed, and mixes nothing up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rice.cli import main
from rice.data.coco import open_split
from rice.data.pack import PackConfig, pack_split
from rice.data.shard_reader import Record, Shard, read_dataset
from rice.data.shards import DatasetInfo
from rice.errors import RiceError
from rice.progress import SilentProgress

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "cow"}]
PICTURES = {11: (60, 40), 12: (50, 80), 13: (30, 30), 14: (64, 64), 15: (20, 90)}


def annotation(
    id_: int, image: int, category: int, box: list[float], area: float = 1, crowd: int = 0
) -> dict[str, Any]:
    return {"id": id_, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}


ANNOTATIONS = [
    annotation(1, 11, 7, [2.4, 3.5, 10.2, 20], area=90),
    annotation(2, 11, 3, [-5, -5, 30, 30], area=300),
    annotation(3, 11, 7, [50, 30, 40, 40], area=250),
    annotation(4, 11, 9, [0, 0, 60, 40], area=900, crowd=1),
    annotation(5, 12, 9, [70, 10, 10, 10], area=100),  # outside the picture
    annotation(6, 12, 3, [10, 10, 0, 10], area=0),
    annotation(7, 14, 3, [10, 10, 40, 3], area=120),
    annotation(8, 14, 9, [10, 10, 40, 44], area=120),
]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    images = []
    for id_, (width, height) in PICTURES.items():
        name = f"{id_}.{'jpg' if id_ % 2 else 'png'}"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / "train" / name)
        images.append({"id": id_, "file_name": name, "width": width, "height": height})
    document = {"images": images, "categories": CATEGORIES, "annotations": ANNOTATIONS}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(document))
    return root


def packed(coco: Path, out: Path, **settings: Any) -> tuple[DatasetInfo, int]:
    config = PackConfig(**{"samples_per_shard": 2} | settings)
    return pack_split(open_split(coco, None), out, config, SilentProgress())


def records(out: Path) -> dict[str, Record]:
    return {record.key: record for record, _ in contents(out)}


def contents(out: Path) -> list[tuple[Record, bytes]]:
    location, info = read_dataset(out)
    shards = [Shard(location, shard, info.object_classes, info.ocr_classes) for shard in info.shards]
    return [(s.sidecar.record(row), s.images([row])[0]) for s in shards for row in range(s.info.samples)]


def write_captions(coco: Path, *rows: tuple[object, object]) -> None:
    annotations = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(rows)]
    (coco / "annotations" / "captions_train.json").write_text(json.dumps({"annotations": annotations}))


def test_captions_beside_the_annotations_go_with_their_pictures(coco: Path, tmp_path: Path) -> None:
    write_captions(coco, (14, "two of them"), (11, "a dog"), (14, "grün"), (99, "of no picture"))
    packed(coco, tmp_path / "out")
    location, info = read_dataset(tmp_path / "out")
    shards = [Shard(location, one, info.object_classes, info.ocr_classes, captions=True) for one in info.shards]
    found = {r.key: r.captions for s in shards for r in (s.sidecar.record(row) for row in range(s.info.samples))}
    assert {int(key): texts for key, texts in found.items() if texts} == {11: ("a dog",), 14: ("two of them", "grün")}
    write_captions(coco, (11, "another"))
    with pytest.raises(RiceError, match="other data or settings"):
        packed(coco, tmp_path / "out")


@pytest.mark.parametrize("row", [("11", "a dog"), (11, None), (True, "a dog")])
def test_a_caption_that_is_none_is_named(coco: Path, tmp_path: Path, row: tuple[object, object]) -> None:
    write_captions(coco, (11, "fine"), row)
    with pytest.raises(RiceError, match=r"captions_train\.json: expected image_id and caption in record 1"):
        packed(coco, tmp_path / "out")


def test_boxes_are_clipped_and_rounded_outwards_and_crowds_dropped(coco: Path, tmp_path: Path) -> None:
    info, damaged = packed(coco, tmp_path / "out")
    found = records(tmp_path / "out")
    assert damaged == 0
    assert info.classes == ("cat", "dog", "cow")
    assert [shard.samples for shard in info.shards] == [2, 2, 1]
    first = found["000000000011"]
    assert first.boxes.tolist() == [[2, 3, 13, 24], [0, 0, 25, 25], [50, 30, 60, 40]]
    assert first.labels.tolist() == [1, 0, 1]
    assert first.image_labels.tolist() == [1, 0]  # dogs cover 340, the cat 300
    assert found["000000000012"].labels.tolist() == found["000000000013"].labels.tolist() == []
    assert found["000000000014"].image_labels.tolist() == [0, 2]  # equal areas: by class


def test_small_regions_are_left_out(coco: Path, tmp_path: Path) -> None:
    packed(coco, tmp_path / "out", min_edge=4)
    assert records(tmp_path / "out")["000000000014"].labels.tolist() == [2]


def test_pictures_are_copied_byte_by_byte(coco: Path, tmp_path: Path) -> None:
    packed(coco, tmp_path / "out")
    stored = {record.key: image for record, image in contents(tmp_path / "out")}
    for path in (coco / "train").iterdir():
        assert stored[f"{int(path.stem):012d}"] == path.read_bytes()


def test_shrunk_pictures_keep_their_boxes_in_place(coco: Path, tmp_path: Path) -> None:
    packed(coco, tmp_path / "out", short_edge=32)
    for record, image in contents(tmp_path / "out"):
        width, height = PICTURES[int(record.key)]
        scale = min(32 / min(width, height), 1)
        (tmp_path / "picture").write_bytes(image)
        size = Image.open(tmp_path / "picture").size
        assert size == (record.width, record.height) == (round(width * scale), round(height * scale))
    boxes = records(tmp_path / "out")["000000000011"].boxes.tolist()  # 60 x 40 became 48 x 32
    assert boxes == [[1, 2, 11, 20], [0, 0, 20, 20], [40, 24, 48, 32]]


def test_packing_again_changes_nothing(coco: Path, tmp_path: Path) -> None:
    once = packed(coco, tmp_path / "out")
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("train-*")}
    assert packed(coco, tmp_path / "out") == once
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("train-*")} == stamps


def test_a_lost_half_of_a_shard_is_written_anew(coco: Path, tmp_path: Path) -> None:
    packed(coco, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("train-*")}
    (tmp_path / "out" / "train-000001.parquet").unlink()
    (tmp_path / "out" / "train-000002.tar").write_bytes(b"half")
    packed(coco, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("train-*")} == before


@pytest.mark.parametrize("again", [False, True])
def test_damaged_pictures_are_quarantined_with_the_reason(coco: Path, tmp_path: Path, again: bool) -> None:
    (coco / "train" / "13.jpg").write_bytes(b"nothing")
    Image.new("RGB", (9, 9)).save(coco / "train" / "14.png")
    for _ in range(1 + again):
        info, damaged = packed(coco, tmp_path / "out")
    assert damaged == 2
    assert [shard.samples for shard in info.shards] == [2, 1]
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [row["picture"] for row in rows] == ["13.jpg", "14.png"]
    assert rows[1]["reason"] == "expected 64x64 pixels, got 9x9"


def test_no_readable_picture_is_an_error(coco: Path, tmp_path: Path) -> None:
    for path in (coco / "train").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(RiceError, match=r"none of 5 can be read: 11\.jpg: "):
        packed(coco, tmp_path / "out")


def test_other_settings_or_data_do_not_mix_with_what_is_there(coco: Path, tmp_path: Path) -> None:
    packed(coco, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(RiceError, match="other data or settings"):
        packed(coco, tmp_path / "out", min_edge=4)
    (coco / "train" / "11.jpg").write_bytes((coco / "train" / "11.jpg").read_bytes() + b"\0")
    with pytest.raises(RiceError, match="other data or settings"):
        packed(coco, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_folder_of_other_things_takes_no_shards(coco: Path, tmp_path: Path) -> None:
    before = sorted(coco.rglob("*"))
    with pytest.raises(RiceError, match="holds something else.*choose an empty folder"):
        packed(coco, coco)
    assert sorted(coco.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    packed(coco, tmp_path / "empty")
    assert read_dataset(tmp_path / "empty")[1].shards


def test_foreign_shards_are_not_overwritten(coco: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train-000000.tar").write_bytes(b"mine")
    with pytest.raises(RiceError, match=r"something else, and no dataset\.json"):
        packed(coco, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train-000000.tar"]


@pytest.mark.parametrize("setting", ["samples_per_shard", "min_edge", "short_edge"])
def test_a_wrong_setting_is_named(setting: str) -> None:
    with pytest.raises(RiceError, match=rf"--{setting.replace('_', '-')} of at least 1, got 0"):
        PackConfig(**{setting: 0})


@pytest.mark.slow
def test_a_killed_command_resumes_to_the_same_shards(coco: Path, tmp_path: Path) -> None:
    for number in range(16, 400):
        shutil.copy(coco / "train" / "11.jpg", coco / "train" / f"{number}.jpg")
    path = coco / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    document["images"] += [{"id": n, "file_name": f"{n}.jpg", "width": 60, "height": 40} for n in range(16, 400)]
    path.write_text(json.dumps(document))
    packed(coco, tmp_path / "whole")
    command = [sys.executable, "-m", "rice.cli", "pack", str(coco), "--out", str(tmp_path / "out")]
    command += ["--samples-per-shard", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(RiceError, match="lists no shards"):
        read_dataset(tmp_path / "out")
    subprocess.run(command, check=True, capture_output=True)
    names = {p.name for p in (tmp_path / "whole").iterdir()}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.data
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_annotations_are_those_that_pycocotools_reads(
    shared_data: Path, tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["pack", str(shared_data / "coco"), "--split", split, "--out", str(tmp_path), "--samples-per-shard", "50"])
    reference = COCO(shared_data / "coco" / "annotations" / f"instances_{split}.json")
    order = sorted(reference.cats)
    found = records(tmp_path)
    assert sorted(map(int, found)) == sorted(reference.imgs)
    for key, record in found.items():
        annotations = reference.imgToAnns[int(key)]
        single = [a for a in annotations if not a["iscrowd"] and a["bbox"][2] > 0 and a["bbox"][3] > 0]
        assert [order[label] for label in record.labels] == [a["category_id"] for a in single]
        for box, (x, y, width, height) in zip(record.boxes.astype(float), (a["bbox"] for a in single), strict=True):
            assert np.abs(box - [x, y, x + width, y + height]).max() < 1 + 1e-9
    assert f"{len(found)} pictures with {sum(len(r.labels) for r in found.values())} regions" in capsys.readouterr().out
