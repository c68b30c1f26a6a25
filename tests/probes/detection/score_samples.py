"""Truths and predictions for the scoring tests, and the reference packages called as their own manuals say."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Json = dict[str, Any]

COCO_KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def small_truth(**annotation: Any) -> Json:
    """Two images of 40 x 30, categories 0 and 7 of one name; `annotation` changes the first one's fields."""
    first = {"id": 5, "image_id": 1, "category_id": 0, "bbox": [2, 3, 10, 8], "area": 80.0, "iscrowd": 0}
    first["segmentation"] = [[2, 3, 12, 3, 12, 11, 2, 11]]
    second = first | {"id": 6, "image_id": 2, "category_id": 7, "bbox": [20, 10, 15, 15], "area": 225.0}
    second["segmentation"] = [[20, 10, 35, 10, 35, 25, 20, 25]]
    images = [
        {"id": i, "width": 40, "height": 30, "neg_category_ids": [], "not_exhaustive_category_ids": []} for i in (1, 2)
    ]
    categories = [{"id": 0, "name": "cat", "frequency": "r"}, {"id": 7, "name": "cat", "frequency": "f"}]
    return {"images": images, "categories": categories, "annotations": [first | annotation, second]}


def small_predictions(**prediction: Any) -> list[Json]:
    """One for each instance, right; `prediction` changes the first one's fields."""
    first: Json = {"image_id": 1, "category_id": 0, "score": 0.9, "bbox": [2, 3, 10, 8]}
    second: Json = {"image_id": 2, "category_id": 7, "score": 0.8, "bbox": [20, 10, 15, 15]}
    for record in (first, second):
        x, y, w, h = record["bbox"]
        record["segmentation"] = code(box_mask(x, y, w, h))
    return [first | prediction, second]


def box_mask(x: float, y: float, w: float, h: float) -> NDArray[np.uint8]:
    pixels = np.zeros((30, 40), dtype=np.uint8)
    pixels[int(y) : int(y + h), int(x) : int(x + w)] = 1
    return pixels


def code(pixels_HW: NDArray[np.uint8]) -> Json:
    """COCO's compressed run lengths as they stand in JSON."""
    rle = mask.encode(np.asfortranarray(pixels_HW))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def imitate(truth: Json, *, masks: bool, seed: int = 0, clutter: int = 5) -> list[Json]:
    """A detector that misses some instances, finds others several times and askew, and sees what is not there."""
    rng = np.random.default_rng(seed)
    image_of = {image["id"]: image for image in truth["images"]}
    categories = [category["id"] for category in truth["categories"]]
    found = []
    for annotation in truth["annotations"]:
        image = image_of[annotation["image_id"]]
        for _ in range(rng.integers(0, 4)):
            right = rng.random() < 0.9
            record = {
                "image_id": image["id"],
                "category_id": annotation["category_id"] if right else int(rng.choice(categories)),
                "score": round(float(rng.random()), 2),
            }
            found.append(record | (_shifted(annotation, image, rng) if masks else _askew(annotation, rng)))
    for image in truth["images"]:
        for _ in range(clutter):
            x, y, w, h = rng.random(4) * [image["width"] * 0.7, image["height"] * 0.7, 150, 150] + [0, 0, 3, 3]
            record = {"image_id": image["id"], "category_id": int(rng.choice(categories)), "score": rng.random() / 2}
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            rle = mask.frPyObjects(outline, image["height"], image["width"])[0] if masks else None
            shape = {"segmentation": _text(rle)} if rle else {"bbox": [x, y, w, h]}
            found.append(record | shape)
    return [found[k] for k in rng.permutation(len(found))]


def _askew(annotation: Json, rng: np.random.Generator) -> Json:
    x, y, w, h = annotation["bbox"]
    s = 0.15 * rng.random()
    dx, dy, dw, dh = rng.normal(size=4) * s
    return {"bbox": [round(float(v), 2) for v in (x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh))]}


def _shifted(annotation: Json, image: Json, rng: np.random.Generator) -> Json:
    pixels = mask.decode(_rle(annotation["segmentation"], image))
    pixels = np.roll(pixels, rng.integers(-5, 6, size=2), axis=(0, 1))
    return {"segmentation": _text(mask.encode(np.asfortranarray(pixels)))}


def _rle(segmentation: Any, image: Json) -> Any:
    if isinstance(segmentation, list):
        return mask.merge(mask.frPyObjects(segmentation, image["height"], image["width"]))
    if isinstance(segmentation["counts"], list):
        return mask.frPyObjects(segmentation, image["height"], image["width"])
    return segmentation


def _text(rle: Any) -> Json:
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def federate(truth: Json, seed: int = 0) -> Json:
    """The same truth as LVIS would annotate it: categories looked for in vain, or not to the end; frequencies."""
    rng = np.random.default_rng(seed)
    truth = copy.deepcopy(truth)
    ids = [category["id"] for category in truth["categories"]]
    for image in truth["images"]:
        present = sorted({a["category_id"] for a in truth["annotations"] if a["image_id"] == image["id"]})
        absent = [id_ for id_ in ids if id_ not in present]
        image["neg_category_ids"] = rng.choice(absent, size=min(15, len(absent)), replace=False).tolist()
        image["not_exhaustive_category_ids"] = [
            id_ for id_ in [*present, *image["neg_category_ids"]] if rng.random() < 0.3
        ]
    for category in truth["categories"]:
        category["frequency"] = str(rng.choice(["r", "c", "f"]))
    return truth


def by_pycocotools(folder: Path, truth: Json, predictions: list[Json], iou: str) -> COCOeval:
    """pycocotools' own demo, from files."""
    gt, dt = folder / "gt.json", folder / "dt.json"
    gt.write_text(json.dumps(truth))
    dt.write_text(json.dumps(predictions))
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(str(gt))
        engine = COCOeval(api, api.loadRes(str(dt)), iou)
        engine.evaluate()
        engine.accumulate()
        engine.summarize()
    return engine


def per_class(precision_TRK: NDArray[np.float64]) -> list[float]:
    """As Detectron2 computes AP per category."""
    columns = [precision_TRK[:, :, k] for k in range(precision_TRK.shape[2])]
    return [float(column[column > -1].mean()) if (column > -1).any() else -1.0 for column in columns]
