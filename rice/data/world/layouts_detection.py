"""The world in the layouts of the detection sets beside COCO.

write_lvis       LVIS v1: annotations/lvis_v1_{split}.json, {split}/
write_roboflow   Roboflow's COCO export: {split}/_annotations.coco.json with the images beside it
write_voc        Pascal VOC: ImageSets/Main/{split}.txt, Annotations/, JPEGImages/
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rice.data.world.actors import CATEGORIES
from rice.data.world.draws import Dice
from rice.data.world.layouts import coco_categories, coco_document, save_picture, write_pictures
from rice.data.world.scene import Scene, SceneObject
from rice.files import read_json, write_json

FEDERATION = 3
"""First entry of a stream's key, beside those of rice.data.world.scene."""

_TIERS = ("f", "c", "r")
"""How often categories 0, 1, 2, 3, ... are to be annotated, in turns; the counts decide what they are."""

_EVENLY = 0.8
_NEGATIVES = 0.3
_PARTIALS = 0.5
_DIFFICULT = 0.5


def frequency(image_count: int, images: int) -> str:
    """LVIS' "r", "c" or "f" of a category on `image_count` of `images` training images.

    LVIS: on at most 10 images, at most 100, more. A world of fewer than 1,000 images has these bounds in proportion
    (1 % and 10 % of its images), but not below 1 and 2.
    """
    rare, common = max(1, min(10, images // 100)), max(2, min(100, images // 10))
    return "r" if image_count <= rare else "c" if image_count <= common else "f"


def write_lvis(folder: Path, split: str, scenes: Iterable[Scene], seed: int) -> None:
    """Write scenes as one split of LVIS, federated as LVIS is; `seed` draws who was asked about what.

    Of each scene some categories are known: those that are there are annotated, and of those that are not some are
    negative. All others may be there without an annotation. Of some categories with several instances only a part is
    annotated: these are not exhaustive. Two thirds of the categories are annotated seldom in `train`, which makes
    them common and rare; other splits take over the counts of `train` where it is there, and annotate all evenly, so
    that rare categories can be judged.
    """
    images, things = write_pictures(folder, split, scenes)
    training = folder / "annotations" / "lvis_v1_train.json"
    table = read_json(training)["categories"] if split != "train" and training.is_file() else None
    chances = _chances(len(images)) if table is None else dict.fromkeys(range(1, len(CATEGORIES) + 1), _EVENLY)
    annotations: list[dict[str, Any]] = []
    for image in images:
        dice = Dice(FEDERATION, seed, zlib.crc32(split.encode()), image["id"])
        image["coco_url"] = f"world://{split}/{image.pop('file_name')}"  # LVIS v1 has no other name for the file
        annotations += _federate(dice, image, things[image["id"]], chances)
    categories = table or _lvis_categories(annotations, len(images))
    document = coco_document(f"{split}, federated", categories, images, annotations)
    write_json(folder / "annotations" / f"lvis_v1_{split}.json", document)


def _chances(images: int) -> dict[int, float]:
    """How likely a category that is on an image gets annotated, by category id. Each is on every fifth image."""
    aims = {"f": 0.9, "c": min(0.25, 250 / images), "r": min(0.03, 25 / images)}
    return {index + 1: aims[_TIERS[index % len(_TIERS)]] for index in range(len(CATEGORIES))}


def _federate(
    dice: Dice, image: dict[str, Any], things: list[dict[str, Any]], chances: Mapping[int, float]
) -> list[dict[str, Any]]:
    """The annotations that are kept; adds LVIS' two lists to the image."""
    kept: list[dict[str, Any]] = []
    negative, partial = [], []
    for id_, chance in chances.items():
        there = [thing for thing in things if thing["category_id"] == id_]
        if not there:
            negative += [id_] if dice.chance(_NEGATIVES) else []
        elif dice.chance(chance):
            if len(there) > 1 and dice.chance(_PARTIALS):
                partial.append(id_)
                there = there[: dice.integer(1, len(there) - 1)]
            kept += there
    image |= {"neg_category_ids": negative, "not_exhaustive_category_ids": partial}
    return [{key: value for key, value in thing.items() if key != "iscrowd"} for thing in kept]  # LVIS has no crowds


def _lvis_categories(annotations: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    instances = Counter(annotation["category_id"] for annotation in annotations)
    pairs = {(annotation["category_id"], annotation["image_id"]) for annotation in annotations}
    on_images = Counter(category_id for category_id, _ in pairs)
    return [
        category
        | {
            "synonyms": [category["name"]],
            "image_count": on_images[category["id"]],
            "instance_count": instances[category["id"]],
            "frequency": frequency(on_images[category["id"]], images),
        }
        for category in coco_categories()
    ]


def write_roboflow(folder: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Write scenes as one split (train, valid, test) of a Roboflow export.

    As in theirs, category 0 is a placeholder, the group of all others, that no annotation has.
    """
    images, things = write_pictures(folder, split, scenes)
    annotations = [thing for image in images for thing in things[image["id"]]]
    placeholder = {"id": 0, "name": "shapes", "supercategory": "none"}
    categories = [category | {"supercategory": "shapes"} for category in coco_categories()]
    document = coco_document(split, [placeholder, *categories], images, annotations)
    write_json(folder / split / "_annotations.coco.json", document)


def write_voc(folder: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Write scenes as one split of Pascal VOC: boxes, no masks, all pictures as JPEG.

    Objects of which less than half is seen are `difficult`.
    """
    pictures, xml, lists = (folder / part for part in ("JPEGImages", "Annotations", "ImageSets/Main"))
    for path in (pictures, xml, lists):
        path.mkdir(parents=True, exist_ok=True)
    names = []
    for number, scene in enumerate(scenes, start=1):
        names.append(f"{split}_{number:06d}")
        save_picture(pictures / f"{names[-1]}.jpg", scene.image)
        _voc_tree(scene, f"{names[-1]}.jpg").write(xml / f"{names[-1]}.xml", encoding="unicode")
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _voc_tree(scene: Scene, file_name: str) -> "ElementTree.ElementTree[ElementTree.Element]":
    root = ElementTree.Element("annotation")
    height, width, depth = scene.image.shape
    _fill(root, {"folder": "JPEGImages", "filename": file_name})
    _fill(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": depth})
    _fill(root, {"segmented": 0})
    for thing in scene.objects:
        _voc_object(ElementTree.SubElement(root, "object"), thing)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _voc_object(element: ElementTree.Element, thing: SceneObject) -> None:
    """Pixels count from 1, the last one included."""
    left, top, right, bottom = thing.box
    flags = {"truncated": int(thing.visibility < 1), "difficult": int(thing.visibility < _DIFFICULT)}
    _fill(element, {"name": CATEGORIES[thing.category], "pose": "Unspecified", **flags})
    box = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
    _fill(ElementTree.SubElement(element, "bndbox"), box)


def _fill(element: ElementTree.Element, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        ElementTree.SubElement(element, key).text = str(value)
