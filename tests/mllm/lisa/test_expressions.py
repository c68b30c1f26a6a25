"""Expressions beside COCO: masks of annotations, boxes that are filled, and things that are not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lisa_tree import HEIGHT, SQUARE, WIDTH, annotation, instances, save_picture, write_json
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mllm.lisa.expressions import read_items
from mllm.lisa.pictures import Pictures
from mllm.lisa.sets import find_sets, prepare
from rice.errors import RiceError
from rice.files import read_json
from rice.progress import SilentProgress

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools


def item(name: str, **more: Any) -> dict[str, Any]:
    entry = {"file_name": name, "image_id": 1, "expression": "a box", "box_xyxy": None, "empty": True}
    return {**entry, "annotation_id": None, **more}


def write(root: Path, items: list[Any]) -> None:
    for name in ("a", "b"):
        save_picture(root / f"coco/val2017/{name}.jpg")
    found = [annotation(5, 1, SQUARE), annotation(6, 1, [])]
    write_json(root / "coco/annotations/instances_val2017.json", instances({1: "a.jpg"}, found, ["dog"]))
    write_json(root / "expressions.json", items)


def prepared(root: Path) -> Pictures:
    (found,) = find_sets(root)
    assert (found.full_name, found.kind) == ("expressions_val", "refer")
    return prepare(found, root / "prepared", SilentProgress())


def test_the_mask_is_the_annotations_or_the_filled_box_or_nothing(tmp_path: Path) -> None:
    items = [
        item("val2017/a.jpg", box_xyxy=[1, 1, 9, 9], annotation_id=5, empty=False),
        item("val2017/b.jpg", image_id=None, box_xyxy=[2, 3, 12.0, 9], empty=False),
        item("val2017/a.jpg", expression="the  cat"),
    ]
    write(tmp_path, items)
    pictures = prepared(tmp_path)
    assert [(p.image, [(t.id, t.texts) for t in p.targets]) for p in pictures] == [
        ("coco/val2017/a.jpg", [("0", ("a box",)), ("2", ("the cat",))]),
        ("coco/val2017/b.jpg", [("1", ("a box",))]),
    ]
    a, b = pictures
    polygon = rle.decode(rle.frPyObjects(SQUARE, HEIGHT, WIDTH))[..., 0]
    np.testing.assert_array_equal(pictures.mask(a, a.targets[0]), polygon)
    box = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    box[3:9, 2:12] = 1
    np.testing.assert_array_equal(pictures.mask(b, b.targets[0]), box)
    assert a.targets[1].absent


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    box = {"box_xyxy": [1, 1, 9, 9], "empty": False}
    items = [
        item("val2017/a.jpg"),
        item("val2017/gone.jpg"),
        item("val2017/a.jpg", expression=" "),
        item("val2017/a.jpg", **box, annotation_id=99),
        item("val2017/a.jpg", **box, annotation_id=6),
        item("val2017/b.jpg", **box | {"box_xyxy": [4, 4, 4, 9]}),
    ]
    write(tmp_path, items)
    pictures = prepared(tmp_path)
    assert [[t.id for t in p.targets] for p in pictures] == [["0"]]
    assert {reason: found["first"] for reason, found in pictures.about["refused"].items()} == {
        "missing picture file": ["1"],
        "empty text": ["2"],
        "its annotation is not one of its picture's": ["3"],
        "its annotation has no segmentation": ["4"],
        "its mask has no pixel": ["5"],
    }


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        item("../secret.jpg"),
        item("a.jpg"),
        item("val2017/x/a.jpg"),
        item("val2017/"),
        item("val2017/a.jpg", empty=False),
        item("val2017/a.jpg", empty=1),
        item("val2017/a.jpg", box_xyxy=[1, 2, 3, 4]),
        item("val2017/a.jpg", box_xyxy=[1, 2, 3], empty=False),
        item("val2017/a.jpg", box_xyxy=[1, 2, 3, float("nan")], empty=False),
        item("val2017/a.jpg", annotation_id="5", empty=False),
    ],
)
def test_an_item_of_another_layout_ends_in_one_line(entry: Any, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match=r"expressions\.json: ") as caught:
        read_items(write_json(tmp_path / "expressions.json", [entry]))
    assert "\n" not in str(caught.value)


@pytest.mark.data
def test_all_of_the_real_ones_are_read_five_of_them_about_what_is_not_there(shared_data: Path, tmp_path: Path) -> None:
    for root in (shared_data, shared_data / "refcoco"):
        (found,) = (one for one in find_sets(root) if one.name == "expressions")
        pictures = prepare(found, tmp_path / "prepared", SilentProgress())
        targets = [(picture, target) for picture in pictures for target in picture.targets]
        assert pictures.about["refused"] == {}
        assert len(targets) == 25
        assert sum(target.absent for _, target in targets) == 5
    coco = COCO(str(shared_data / "coco/annotations/instances_val2017.json"))
    items = read_json(shared_data / "refcoco/expressions.json")
    for picture, target in targets:
        mask, entry = pictures.mask(picture, target), items[int(target.id)]
        assert pictures.open_image(picture).size == mask.shape[::-1]
        assert target.texts == (entry["expression"],)
        if entry["annotation_id"] is not None:
            np.testing.assert_array_equal(mask, coco.annToMask(coco.loadAnns(entry["annotation_id"])[0]))
        elif entry["empty"]:
            assert not mask.any()
        else:
            x0, y0, x1, y1 = (round(value) for value in entry["box_xyxy"])
            inside = mask[y0:y1, x0:x1]
            assert inside.all()
            assert mask.sum() <= (y1 - y0 + 1) * (x1 - x0 + 1)
