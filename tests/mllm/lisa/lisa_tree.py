"""A small data root as LISA has it: every set, with pictures of noise."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 20, 30
SQUARE = [[5.0, 4.0, 15.0, 4.0, 15.0, 12.0, 5.0, 12.0]]
TRIANGLE = [[2.0, 2.0, 25.0, 3.0, 10.0, 18.0]]
TRAIN2014 = "refer_seg/images/mscoco/images/train2014"


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def save_picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def save_map(path: Path, values_HW: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values_HW, dtype=np.uint8)).save(path)
    return path


def referent(number: int, image: int, annotation: Any, split: str, *sentences: str, **more: Any) -> dict[str, Any]:
    return {
        "ref_id": number,
        "image_id": image,
        "ann_id": annotation,
        "split": split,
        "category_id": 1,
        "file_name": f"COCO_train2014_{image:012}_{number}.jpg",
        "sent_ids": list(range(len(sentences))),
        "sentences": [
            {"sent_id": k, "sent": one, "raw": one, "tokens": one.split()} for k, one in enumerate(sentences)
        ],
        **more,
    }


def annotation(number: int, image: int, segmentation: Any, category: int = 1) -> dict[str, Any]:
    box = [0, 0, 10, 10]
    more = {"bbox": box, "area": 100, "iscrowd": 0, "segmentation": segmentation}
    return {"id": number, "image_id": image, "category_id": category, **more}


def instances(images: dict[int, str], annotations: list[dict[str, Any]], categories: list[str]) -> dict[str, Any]:
    return {
        "images": [{"id": k, "file_name": name, "height": HEIGHT, "width": WIDTH} for k, name in images.items()],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(categories)],
    }


def write_refer(root: Path, name: str, file: str, referents: list[Any], annotations: list[dict[str, Any]]) -> Path:
    """Pictures 1, 2 and 3 are named in instances.json; 3 has no file."""
    folder = root / "refer_seg" / name
    images = {number: f"COCO_train2014_{number:012}.jpg" for number in (1, 2, 3)}
    for number in (1, 2):
        save_picture(root / TRAIN2014 / images[number])
    write_json(folder / "instances.json", instances(images, annotations, ["dog"]))
    if file.endswith(".p"):
        (folder / file).write_bytes(pickle.dumps(referents, 2))
    else:
        write_json(folder / file, referents)
    return folder


def write_tree(root: Path) -> Path:
    """All sets, one picture or two each."""
    found = [annotation(10, 1, SQUARE), annotation(11, 1, TRIANGLE), annotation(20, 2, SQUARE)]
    refs = [
        referent(1, 1, 10, "train", "the square", "left one"),
        referent(2, 1, 11, "train", "the triangle"),
        referent(3, 2, 20, "testA", "a square"),
    ]
    write_refer(root, "refcoco", "refs(unc).p", refs, found)
    write_refer(root, "refcocog", "refs(google).p", [refs[0] | {"split": "val"}], found)
    none = [referent(1, 1, [10, 11], "train", "both"), referent(2, 2, [-1], "val", "the cat", no_target=True)]
    write_refer(root, "grefcoco", "grefs(unc).json", none, found)
    _write_semantic(root)
    _write_parts(root)
    _write_reason(root)
    items = [{"file_name": "val2017/000000000007.jpg", "image_id": 7, "expression": "a box", "empty": False}]
    items[0] |= {"box_xyxy": [2, 3, 12, 9], "annotation_id": None}
    write_json(root / "expressions.json", items)
    save_picture(root / "coco/val2017/000000000007.jpg")
    write_json(root / "coco/annotations/instances_val2017.json", instances({7: "000000000007.jpg"}, [], ["dog"]))
    return root


def _write_semantic(root: Path) -> None:
    halves_HW = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    halves_HW[:, : WIDTH // 2] = 2
    save_map(root / "ade20k/annotations/training/ADE_train_1.png", halves_HW)
    save_picture(root / "ade20k/images/training/ADE_train_1.jpg")
    table = "Idx\tRatio\tTrain\tVal\tName\n1\t0.2\t9\t1\twall\n2\t0.1\t9\t1\tbuilding, edifice\n"
    (root / "ade20k/objectInfo150.txt").write_text(table)
    save_map(root / "cocostuff/train2017/000000000009.png", np.where(halves_HW, 0, 255))
    save_picture(root / "coco/train2017/000000000009.jpg")
    save_map(root / "mapillary/training/v2.0/labels/one.png", halves_HW)
    save_picture(root / "mapillary/training/images/one.jpg")
    labels = [{"name": f"object--{name}", "readable": name} for name in ("Bird", "Curb", "Curb Cut")]
    write_json(root / "mapillary/config_v2.0.json", {"labels": labels})


def _write_parts(root: Path) -> None:
    part = root / "vlpart/pascal_part"
    save_picture(part / "VOCdevkit/VOC2010/JPEGImages/2008_000001.jpg")
    found = [annotation(1, 1, SQUARE, 2), annotation(2, 1, TRIANGLE, 1)]
    write_json(part / "train.json", instances({1: "2008_000001.jpg"}, found, ["dog:ear", "dog:left eye"]))
    paco = instances({9: "train2017/000000000009.jpg"}, [annotation(1, 9, SQUARE)], ["trash_can:lid", "mug_(cup)"])
    write_json(root / "vlpart/paco/annotations/paco_lvis_v1_train.json", paco)


def _write_reason(root: Path) -> None:
    folder = root / "reason_seg/ReasonSeg"
    shape = {"label": "target", "points": [[3, 3], [20, 3], [20, 15], [3, 15]]}
    for split in ("train", "val"):
        save_picture(folder / split / "7_1.jpg")
        text = {"text": ["what could bite?"], "is_sentence": True, "shapes": [shape]}
        write_json(folder / split / "7_1.json", text)
    write_json(folder / "explanatory/train.json", [{"image": "7_1.jpg", "query": "?", "outputs": "The dog could."}])
