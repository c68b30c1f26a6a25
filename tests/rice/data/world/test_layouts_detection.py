"""LVIS, Roboflow and VOC worlds hold the scenes' own records, and LVIS' lists never contradict them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rice.cli import main
from rice.data.coco import find_splits, open_split, role
from rice.data.world import CATEGORIES, Part, WorldConfig, materialise
from rice.data.world.config import scenes
from rice.data.world.layouts_detection import frequency
from rice.data.world.scene import SceneConfig, draw_scene
from rice.errors import RiceError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools


def config(layout: Any, train: int = 6, test: int = 4) -> WorldConfig:
    return WorldConfig(size=64, train=train, test=test, seed=3, layout=layout, objects=(5, 9))


@pytest.fixture(scope="module")
def lvis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(config("lvis", 60, 30), tmp_path_factory.mktemp("world") / "lvis")


@pytest.mark.parametrize(("split", "part"), [("train", Part.TRAIN), ("val", Part.TEST)])
def test_lvis_says_nothing_that_the_scenes_do_not(lvis: Path, split: str, part: Part) -> None:
    dataset = COCO(lvis / "annotations" / f"lvis_v1_{split}.json")
    unknown = 0
    for image_id, scene in enumerate(scenes(config("lvis", 60, 30), part), start=1):
        image, annotations = dataset.imgs[image_id], dataset.imgToAnns[image_id]
        there = Counter(thing.category + 1 for thing in scene.objects)
        shown = Counter(annotation["category_id"] for annotation in annotations)
        assert not there.keys() & set(image["neg_category_ids"])
        assert shown <= there
        assert {id_ for id_ in shown if shown[id_] < there[id_]} == set(image["not_exhaustive_category_ids"])
        unknown += len(there.keys() - shown.keys())
        masks = [thing.mask for thing in scene.objects]
        for annotation in annotations:
            assert any(np.array_equal(dataset.annToMask(annotation), mask) for mask in masks)
        picture = np.asarray(Image.open(lvis.joinpath(*image["coco_url"].split("/")[-2:])))
        np.testing.assert_array_equal(picture, scene.image)
    assert unknown
    assert any(image["not_exhaustive_category_ids"] for image in dataset.imgs.values())
    assert any(image["neg_category_ids"] for image in dataset.imgs.values())
    assert sorted(dataset.anns) == list(range(1, len(dataset.anns) + 1))


def test_lvis_counts_are_those_of_train_and_all_groups_occur(lvis: Path) -> None:
    train, val = (json.loads((lvis / "annotations" / f"lvis_v1_{s}.json").read_text()) for s in ("train", "val"))
    pairs = {(a["category_id"], a["image_id"]) for a in train["annotations"]}
    on_images = Counter(category for category, _ in pairs)
    instances = Counter(a["category_id"] for a in train["annotations"])
    for category in train["categories"]:
        assert category["image_count"] == on_images[category["id"]]
        assert category["instance_count"] == instances[category["id"]]
    assert set(Counter(c["frequency"] for c in train["categories"])) == {"r", "c", "f"}
    assert val["categories"] == train["categories"]
    rare = {c["id"] for c in train["categories"] if c["frequency"] == "r"}
    assert any(a["category_id"] in rare for a in val["annotations"])


def test_lvis_reads_back_as_federated(lvis: Path) -> None:
    assert role(find_splits(lvis)) == ("lvis_v1_train", "lvis_v1_val")
    split = open_split(lvis, "lvis_v1_val")
    assert split.federated
    assert [c.name for c in split.categories] == list(CATEGORIES)
    assert split.load_image(0).size == (64, 64)
    assert not any(a.iscrowd for image in split.images for a in image.annotations)


@pytest.mark.parametrize(("count", "expected"), [(0, "r"), (10, "r"), (11, "c"), (100, "c"), (101, "f")])
def test_large_worlds_have_the_bounds_of_lvis(count: int, expected: str) -> None:
    assert frequency(count, 1_000) == frequency(count, 100_170) == expected


@pytest.mark.parametrize(("images", "rare", "common"), [(500, 5, 50), (100, 1, 10), (7, 1, 2)])
def test_small_worlds_have_them_in_proportion(images: int, rare: int, common: int) -> None:
    groups = [frequency(count, images) for count in (rare, rare + 1, common, common + 1)]
    assert groups == ["r", "c", "c", "f"]


def test_roboflow_has_its_names_its_placeholder_and_a_valid_split_of_its_own(tmp_path: Path) -> None:
    root = materialise(config("roboflow"), tmp_path / "world")
    assert sorted(path.name for path in root.iterdir()) == ["test", "train", "valid", "world.json"]
    assert role(find_splits(root)) == ("train", "test")
    drawn = SceneConfig(height=64, width=64, objects=(5, 9))
    expected = {
        "train": [draw_scene(drawn, Part.TRAIN, 3, index) for index in range(6)],
        "valid": [draw_scene(drawn, Part.TRAIN, 3, index) for index in (6, 7)],
        "test": [draw_scene(drawn, Part.TEST, 3, index) for index in range(4)],
    }
    for name, records in expected.items():
        document = json.loads((root / name / "_annotations.coco.json").read_text())
        assert document["categories"][0] == {"id": 0, "name": "shapes", "supercategory": "none"}
        assert {category["supercategory"] for category in document["categories"][1:]} == {"shapes"}
        split = open_split(root, name)
        for index, (image, scene) in enumerate(zip(split.images, records, strict=True)):
            assert image.path.parent == root / name
            assert [a.box for a in image.annotations] == [thing.box for thing in scene.objects]
            names = [split.categories[a.category].name for a in image.annotations]
            assert names == [CATEGORIES[thing.category] for thing in scene.objects]
            np.testing.assert_array_equal(np.asarray(split.load_image(index)), scene.image)


def test_voc_counts_pixels_from_one(tmp_path: Path) -> None:
    root = materialise(config("voc"), tmp_path / "world")
    assert role(find_splits(root)) == ("train", "test")
    for name, part in (("train", Part.TRAIN), ("test", Part.TEST)):
        names = (root / "ImageSets" / "Main" / f"{name}.txt").read_text().split()
        split = open_split(root, name)
        for index, scene in enumerate(scenes(config("voc"), part)):
            tree = ElementTree.parse(root / "Annotations" / f"{names[index]}.xml")
            for element, thing in zip(tree.iter("object"), scene.objects, strict=True):
                rows, columns = np.nonzero(thing.mask)
                corners = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
                pixels = [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
                assert corners == [str(pixel) for pixel in pixels]
                assert element.findtext("name") == CATEGORIES[thing.category]
            annotations = split.images[index].annotations
            assert [a.box for a in annotations] == [thing.box for thing in scene.objects]
            assert [a.iscrowd for a in annotations] == [thing.visibility < 0.5 for thing in scene.objects]
            assert np.abs(np.asarray(split.load_image(index)).astype(int) - scene.image).mean() < 6


def test_the_layout_belongs_to_scenes_and_to_the_fingerprint() -> None:
    prints = {WorldConfig(layout=layout).fingerprint() for layout in ("coco", "lvis", "roboflow", "voc")}
    assert len(prints) == 4
    # As it was before worlds had layouts: what is cached under it stays.
    assert WorldConfig().fingerprint() == "192254e7ae917105145c13640d62a7d60da5e006d0e9d7b477097820544e1bb7"
    with pytest.raises(RiceError, match="expected kind scenes for layout voc, got crops"):
        WorldConfig(kind="crops", layout="voc")
    with pytest.raises(RiceError, match="expected a layout of a world out of coco, lvis, .*, tnl2k, got 'yolo'"):
        WorldConfig(layout="yolo")  # type: ignore[arg-type]


@pytest.mark.parametrize(("layout", "test"), [("lvis", "val"), ("roboflow", "test"), ("voc", "test")])
def test_the_command_says_where_things_are(
    layout: str, test: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--layout", layout, "--size", "64", "--train", "2", "--test", "1"]
    main(["world", "scenes", "--out", str(tmp_path / "out"), *flags])
    assert f"2 scenes in train, 1 in {test}, 64 px" in capsys.readouterr().out
    assert role(find_splits(tmp_path / "out"))
    with pytest.raises(SystemExit):
        main(["world", "clips", "--out", str(tmp_path / "no"), *flags])
    assert f"expected kind scenes for layout {layout}, got clips" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
