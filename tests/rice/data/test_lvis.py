"""LVIS' own fields are read as they stand in the file, and what is not LVIS is refused in one line."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rice.data.coco import find_splits, open_split, role
from rice.data.coco_json import parse_coco
from rice.errors import RiceError

DOCUMENT: dict[str, Any] = {
    "images": [
        {
            "id": number,
            "coco_url": f"http://images.cocodataset.org/train2017/{number}.png",
            "width": 8,
            "height": 6,
            "neg_category_ids": [30, 10],
            "not_exhaustive_category_ids": [],
        }
        for number in (5, 2)
    ],
    "categories": [
        {"id": 30, "name": "cat", "frequency": "f", "image_count": 2, "instance_count": 9},
        {"id": 10, "name": "ant", "frequency": "r", "image_count": 1, "instance_count": 1},
        {"id": 20, "name": "bee", "frequency": "c", "image_count": 0, "instance_count": 0},
    ],
    "annotations": [{"id": 1, "image_id": 5, "category_id": 20, "bbox": [1, 1, 2, 3], "area": 6}],
}


@pytest.fixture
def document() -> dict[str, Any]:
    return copy.deepcopy(DOCUMENT)


def write(root: Path, document: dict[str, Any]) -> Path:
    for number in (5, 2):
        picture = root / "train2017" / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(picture)
    path = root / "annotations" / "lvis_v1_train.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_lists_become_contiguous_indices_and_go_back_to_ids(tmp_path: Path, document: dict[str, Any]) -> None:
    document["images"][0] |= {"neg_category_ids": [30, 10], "not_exhaustive_category_ids": [20]}
    document["images"][1]["neg_category_ids"] = []
    write(tmp_path, document)
    split = open_split(tmp_path)
    assert split.federated
    assert [(c.id, c.frequency, c.image_count) for c in split.categories] == [(10, "r", 1), (20, "c", 0), (30, "f", 2)]
    assert [(image.negative, image.not_exhaustive) for image in split.images] == [((2, 0), (1,)), ((), ())]
    assert split.images[0].path == tmp_path / "train2017" / "5.png"
    written = split.as_coco()
    keys = ("id", "neg_category_ids", "not_exhaustive_category_ids")
    assert [[i[k] for k in keys] for i in written["images"]] == [[i[k] for k in keys] for i in document["images"]]
    frequencies = {category["id"]: category["frequency"] for category in document["categories"]}
    assert {category["id"]: category["frequency"] for category in written["categories"]} == frequencies


def test_coco_is_not_federated(tmp_path: Path, document: dict[str, Any]) -> None:
    for image in document["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    document["categories"] = [{"id": id_, "name": name} for id_, name in ((10, "ant"), (20, "bee"))]
    write(tmp_path, document)
    split = open_split(tmp_path)
    assert not split.federated
    assert (split.categories[0].frequency, split.categories[0].image_count) == (None, None)
    assert set(split.as_coco()["images"][0]) == {"id", "file_name", "width", "height"}
    assert set(split.as_coco()["categories"][0]) == {"id", "name", "supercategory"}


def test_names_of_coco_2014_give_way_to_the_address(tmp_path: Path, document: dict[str, Any]) -> None:
    document["images"][0]["file_name"] = "COCO_train2014_5.png"
    document["images"][1]["file_name"] = "train2017/2.png"
    write(tmp_path, document)
    assert [image.file_name for image in open_split(tmp_path).images] == ["train2017/5.png", "train2017/2.png"]


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("images", "neg_category_ids", [7], "image 5: unknown category id 7 in neg_category_ids"),
        ("images", "neg_category_ids", [True], "image 5: unknown category id True in neg_category_ids"),
        ("images", "neg_category_ids", [[10]], r"image 5: unknown category id \[10\] in neg_category_ids"),
        ("images", "neg_category_ids", None, "image 5: expected a list of category ids as neg_category_ids"),
        ("images", "not_exhaustive_category_ids", 10, "image 5: expected a list .*not_exhaustive_category_ids.*got 10"),
        ("categories", "frequency", "often", "category 30: expected one of r, c, f as frequency, got 'often'"),
        ("categories", "frequency", ["r"], "category 30: expected one of r, c, f as frequency"),
        ("categories", "image_count", "2", "category 30: expected an integer as image_count, got '2'"),
    ],
)
def test_damage_is_one_line_that_names_file_and_id(
    tmp_path: Path, document: dict[str, Any], part: str, key: str, value: Any, message: str
) -> None:
    document[part][0][key] = value
    path = write(tmp_path, document)
    with pytest.raises(RiceError, match=message) as caught:
        open_split(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_without_the_lists_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    del document["images"][1]["neg_category_ids"]
    write(tmp_path, document)
    with pytest.raises(RiceError, match="image 2: expected a list of category ids as neg_category_ids"):
        open_split(tmp_path)


def test_train_and_val_are_told_by_their_names(tmp_path: Path, document: dict[str, Any]) -> None:
    path = write(tmp_path, document)
    path.with_name("lvis_v1_val.json").write_text(path.read_text())
    assert role(find_splits(tmp_path)) == ("lvis_v1_train", "lvis_v1_val")


@pytest.mark.data
def test_the_real_file_is_read_as_it_stands(shared_data: Path) -> None:
    path = shared_data / "lvis" / "lvis_v0.5_val_100.json"
    raw, parsed = json.loads(path.read_text()), parse_coco(path, Path("coco"))
    assert parsed.federated
    ids = [category.id for category in parsed.categories]
    for image, expected in zip(parsed.images, raw["images"], strict=True):
        assert [ids[index] for index in image.negative] == expected["neg_category_ids"]
        assert [ids[index] for index in image.not_exhaustive] == expected["not_exhaustive_category_ids"]
        assert image.path == Path("coco", "val2017", f"{image.id:012d}.jpg")
    expected_counts = Counter(category["frequency"] for category in raw["categories"])
    assert Counter(category.frequency for category in parsed.categories) == expected_counts


@pytest.mark.data
def test_the_real_categories_of_v1_are_grouped_by_their_counts(shared_data: Path, tmp_path: Path) -> None:
    table = json.loads((shared_data / "lvis" / "lvis_v1_train_cat_info.json").read_text())
    path = tmp_path / "lvis_v1_train.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": table}))
    categories = parse_coco(path, tmp_path).categories
    assert Counter(category.frequency for category in categories) == {"r": 337, "c": 461, "f": 405}
    for category in categories:
        count = category.image_count
        assert count is not None
        assert category.frequency == ("r" if count <= 10 else "c" if count <= 100 else "f")
