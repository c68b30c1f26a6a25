"""What goes back to COCO's form is what stood in the file, odd inputs included, as pycocotools sees it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rice.data.coco import CocoSplit, open_split
from rice.data.coco_json import parse_coco
from rice.errors import RiceError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

H, W = 20, 30
BLOCK_HW = np.zeros((H, W), dtype=np.uint8, order="F")
BLOCK_HW[3:9, 4:15] = 1
CODE = rle.encode(BLOCK_HW)
RUNS = [4 * H + 3, *[6, H - 6] * 10, 6, (W - 14) * H - 9]
SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]


def write(root: Path, annotations: list[dict[str, Any]], categories: list[tuple[int, str]] = [(1, "cat")]) -> Path:  # noqa: B006
    document = {
        "images": [{"id": 4, "file_name": "a.png", "width": W, "height": H}],
        "categories": [{"id": id_, "name": name, "supercategory": ""} for id_, name in categories],
        "annotations": [
            {"id": i, "image_id": 4, "category_id": 1, "iscrowd": 0, "area": 9.5, "bbox": [1, 2, 3, 4]} | annotation
            for i, annotation in enumerate(annotations, start=1)
        ],
    }
    (root / "train").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (W, H)).save(root / "train" / "a.png")
    path = root / "annotations" / "instances_train.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def load(document: dict[str, Any]) -> COCO:
    dataset = COCO()
    dataset.dataset = json.loads(json.dumps(document))
    dataset.createIndex()
    return dataset


def check_same(split: CocoSplit, path: Path, *, masks: bool = True) -> None:
    """Ids, boxes, masks: as pycocotools reads the file itself."""
    ours, theirs = load(split.as_coco()), COCO(path)
    assert sorted(ours.anns) == sorted(theirs.anns)
    assert {i: c["name"] for i, c in ours.cats.items()} == {i: c["name"] for i, c in theirs.cats.items()}
    for id_, expected in theirs.anns.items():
        keys = ("image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
        assert {key: ours.anns[id_].get(key) for key in keys} == {key: expected.get(key) for key in keys}
        if masks and any(map(len, expected.get("segmentation", []))):
            np.testing.assert_array_equal(ours.annToMask(ours.anns[id_]), theirs.annToMask(expected))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "split", "path"),
    [
        ("coco", "train2017", "annotations/instances_train2017.json"),
        ("coco", "val2017", "annotations/instances_val2017.json"),
        ("facade", "valid", "valid/_annotations.coco.json"),
    ],
)
def test_real_files_come_back_to_the_last_digit(shared_data: Path, name: str, split: str, path: str) -> None:
    check_same(open_split(shared_data / name, split), shared_data / name / path, masks=name == "coco")


@pytest.mark.data
def test_lvis_comes_back_to_the_last_digit(shared_data: Path) -> None:
    path = shared_data / "lvis" / "lvis_v0.5_val_100.json"
    raw, parsed = json.loads(path.read_text()), parse_coco(path, Path())
    split = CocoSplit(None, parsed.images, parsed.categories, parsed.federated)  # type: ignore[arg-type]
    object.__setattr__(split, "files", type("Files", (), {"annotations": path})())
    ours = {annotation["id"]: annotation for annotation in split.as_coco()["annotations"]}
    for annotation in raw["annotations"]:
        assert ours[annotation["id"]] == annotation | {"iscrowd": 0}
    keys = ("id", "width", "height", "neg_category_ids", "not_exhaustive_category_ids")
    assert [{k: i[k] for k in keys} for i in split.as_coco()["images"]] == [
        {k: i[k] for k in keys} for i in raw["images"]
    ]


@given(st.lists(st.decimals(0, 5000, places=4), min_size=4, max_size=4))
def test_boxes_survive_the_way_to_corners_and_back(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[Any]
) -> None:
    box = [float(number) for number in numbers]
    root = tmp_path_factory.getbasetemp() / "boxes"
    write(root, [{"bbox": box}])
    assert open_split(root).as_coco()["annotations"][0]["bbox"] == box


ODD: list[tuple[str, list[dict[str, Any]]]] = [
    ("no annotations at all", []),
    ("one giant box", [{"bbox": [-3e4, -3e4, 65e3, 65e3], "area": 4.225e9}]),
    ("outside the image", [{"bbox": [100, 100, 5, 5]}, {"bbox": [-9, -9, 4, 4]}]),
    ("no area", [{"bbox": [3, 3, 0, 0], "area": 0, "segmentation": [[3.0, 3.0, 3.0, 3.0, 3.0, 3.0]]}]),
    ("a line", [{"bbox": [3, 3, 5, 0], "area": 0, "segmentation": [[3.0, 3.0, 8.0, 3.0, 5.0, 3.0]]}]),
    ("crowd only", [{"iscrowd": 1, "segmentation": {"size": [H, W], "counts": RUNS}}]),
    ("run lengths as text", [{"segmentation": {"size": [H, W], "counts": CODE["counts"].decode()}}]),
    ("run lengths as numbers", [{"segmentation": {"size": [H, W], "counts": RUNS}}]),
    ("polygons", [{"segmentation": [SQUARE, [x + 5 for x in SQUARE]]}]),
]


@pytest.mark.parametrize(("case", "annotations"), ODD, ids=[case for case, _ in ODD])
def test_odd_annotations_are_what_pycocotools_takes_them_for(
    tmp_path: Path, case: str, annotations: list[dict[str, Any]]
) -> None:
    path = write(tmp_path, annotations)
    split = open_split(tmp_path)
    check_same(split, path)
    reference = COCO(path)
    for annotation in split.images[0].annotations:
        if annotation.segmentation is not None:
            expected_HW = reference.annToMask(reference.anns[annotation.id]).astype(bool)
            np.testing.assert_array_equal(split.mask(annotation), expected_HW)
    if case.startswith("run lengths"):
        np.testing.assert_array_equal(split.mask(split.images[0].annotations[0]), BLOCK_HW.astype(bool))


@pytest.mark.parametrize(("case", "annotations"), ODD, ids=[case for case, _ in ODD])
def test_odd_annotations_can_be_judged(tmp_path: Path, case: str, annotations: list[dict[str, Any]]) -> None:
    """A perfect detector finds what counts; -1 is pycocotools' word for nothing to find."""
    write(tmp_path, annotations)
    truth = load(open_split(tmp_path).as_coco())
    kept = [a for a in truth.anns.values() if not a["iscrowd"]]
    found = [{key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in kept]
    judge = COCOeval(truth, truth.loadRes(found) if found else load(truth.dataset | {"annotations": []}), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[0] == pytest.approx({True: 1, False: -1}[bool(kept)] if case not in ("no area", "a line") else 0)


def test_gaps_in_category_ids_and_one_name_under_two_ids(tmp_path: Path) -> None:
    categories = [(900, "cat"), (1, "dog"), (17, "cat"), (0, "animals")]
    path = write(tmp_path, [{"category_id": id_} for id_ in (17, 900, 1)], categories)
    split = open_split(tmp_path)
    assert [(c.index, c.id, c.name) for c in split.categories] == [
        *((0, 0, "animals"), (1, 1, "dog")),
        *((2, 17, "cat"), (3, 900, "cat")),
    ]
    assert [a.category for a in split.images[0].annotations] == [2, 3, 1]
    check_same(split, path)


@pytest.mark.parametrize(("shapes", "expected"), [([], False), ([[SQUARE]], True), ([[SQUARE], []], False)])
def test_masks_are_there_where_every_instance_has_one(tmp_path: Path, shapes: list[Any], expected: bool) -> None:
    write(tmp_path, [{"segmentation": shape} for shape in shapes])
    assert open_split(tmp_path).has_masks == expected


def test_what_the_file_leaves_out_is_filled_in(tmp_path: Path) -> None:
    path = write(tmp_path, [{"bbox": [1, 2, 3, 4]}])
    document = json.loads(path.read_text())
    for key in ("area", "iscrowd"):
        del document["annotations"][0][key]
    path.write_text(json.dumps(document))
    (annotation,) = open_split(tmp_path).as_coco()["annotations"]
    assert (annotation["area"], annotation["iscrowd"]) == (12, 0)
    assert "segmentation" not in annotation


def test_the_document_is_the_callers_own(tmp_path: Path) -> None:
    write(tmp_path, [{"segmentation": {"size": [H, W], "counts": RUNS}}])
    split = open_split(tmp_path)
    split.as_coco()["annotations"][0]["segmentation"].clear()
    assert split.mask(split.images[0].annotations[0]).sum() == BLOCK_HW.sum()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_json_cut_in_the_middle_is_one_line(tmp_path: Path, share: float) -> None:
    path = write(tmp_path, [{"segmentation": [SQUARE]}] * 3)
    text = path.read_text()
    path.write_text(text[: int(len(text) * share)])
    with pytest.raises(RiceError, match="is not valid JSON") as caught:
        open_split(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.6])
def test_a_picture_cut_in_the_middle_is_named(tmp_path: Path, share: float) -> None:
    write(tmp_path, [])
    picture = tmp_path / "train" / "a.png"
    content = picture.read_bytes()
    picture.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RiceError, match=r"cannot read the image .*a\.png"):
        open_split(tmp_path).load_image(0)
