"""Photographs are captioned by what their names and annotations say, made small, and judged on real data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports.miniature.arms import ARMS
from reports.miniature.data import SPLIT
from reports.miniature.photographs import PhotographMiniature, few, read_photographs, write_photographs
from reports.miniature.settings import MiniatureConfig
from rice.cli import main
from rice.data.coco import open_split
from rice.progress import SilentProgress

QUIET = SilentProgress()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two named photographs, a wide and a high one, and three of COCO's layout."""
    root = tmp_path / "data"
    for place in ("photos", "coco/train2017", "coco/val2017", "coco/annotations", "bccd"):
        (root / place).mkdir(parents=True)
    _save(root / "photos" / "n2_great_white_shark.jpg", 90, 60)
    _save(root / "photos" / "n1_tench.jpg", 50, 200)
    boxes = {1: [3, 7, 3], 2: [], 3: [7]}
    for id_ in boxes:
        _save(root / "coco" / "train2017" / f"{id_}.jpg", 80, 40)
    images = [{"id": id_, "file_name": f"{id_}.jpg", "width": 80, "height": 40} for id_ in boxes]
    annotations = [
        {"id": 10 * id_ + k, "image_id": id_, "category_id": kind, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
        for id_, kinds in boxes.items()
        for k, kind in enumerate(kinds)
    ]
    categories = [{"id": 3, "name": "dog"}, {"id": 7, "name": "fire hydrant"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(document))
    return root


def _save(path: Path, width: int, height: int) -> None:
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)


def test_captions_are_the_label_or_each_annotated_category_once(data: Path) -> None:
    assert [(path.name, text) for path, text in read_photographs(data)] == [
        ("n1_tench.jpg", "a tench"),
        ("n2_great_white_shark.jpg", "a great white shark"),
        ("1.jpg", "a dog and a fire hydrant"),
        ("2.jpg", ""),
        ("3.jpg", "a fire hydrant"),
    ]


def test_photographs_are_as_small_as_the_miniature_and_keep_their_shape(data: Path, tmp_path: Path) -> None:
    split = open_split(write_photographs(tmp_path / "small", data, 32, QUIET), SPLIT)
    assert [(image.width, image.height) for image in split.images] == [(32, 128), (48, 32), *[(64, 32)] * 3]
    for index, image in enumerate(split.images):
        assert split.load_image(index).size == (image.width, image.height)


def test_a_missing_folder_is_one_line_before_anything_is_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "bccd").rmdir()
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", "mini", "--out", str(tmp_path / "out"), "--photographs", str(data)])
    said = capsys.readouterr().err.strip()
    assert "expected photos/, coco/ (2017's layout) and bccd/ in it, found no bccd" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_same_arms_and_probes_but_for_those_without_real_data(data: Path, tmp_path: Path) -> None:
    config = MiniatureConfig()
    real = PhotographMiniature(config=few(config), out=tmp_path, data=data, progress=QUIET, at_once=1)
    assert [arm for arm in ARMS if arm not in real.arms] == [arm for arm in ARMS if arm.name == "oracle"]
    generated = {probe["probe"]: probe for probe in config.probes}
    for probe in real.probes():
        assert probe | {"data": None} == generated[probe["probe"]] | {"data": None}
        assert set(probe["data"]) <= real.datasets().keys()
    assert few(replace(config, updates=1)).updates == 1
