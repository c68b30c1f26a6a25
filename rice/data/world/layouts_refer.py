"""The world in the layout of REFER's sets (refCOCO, gRefCOCO), in the tree that LISA is trained from.

write_refer   refer_seg/images/mscoco/images/train2014/ with the pictures of both splits, as REFER has them
              refer_seg/refcoco/{instances.json, refs(unc).p}: one object each, REFER's pickle
              refer_seg/grefcoco/{instances.json, grefs(unc).json}: also two objects, and none: `no_target`, ann_id [-1]
              pretrain.json, instruct.json: LLaVA's JSON about the pictures of train, which are named from the top

Segmentations are lists of compressed run lengths, which are exact; REFER's own code reads them (refCLEF has such).
"""

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rice.data.world.draws import Part
from rice.data.world.expressions import Expression, expressions
from rice.data.world.layouts import coco_annotation, coco_categories, coco_document, picture_suffix, save_picture
from rice.data.world.layouts_llava import caption_row, conversation_rows, write_training_rows
from rice.data.world.scene import Image_HW3, Scene
from rice.files import atomic_write, read_json, write_json

ROOT = "refer_seg"
PICTURES = f"{ROOT}/images/mscoco/images/train2014"

_ABSENT = -1
_PROTOCOL = 2
"""Of the pickle: Python 2, which REFER was written for, can read it."""

_Record = dict[str, Any]


def write_refer(folder: Path, split: str, scenes: Iterable[Scene], seed: int) -> None:
    """Write scenes as `train` or `val`; `seed` draws the expressions. A split that is there already stays.

    Both splits share their files: those of the first are read, and written again with the second.
    """
    part = Part.TRAIN if split == "train" else Part.TEST
    images, annotations, referents = _written(folder)
    captions, conversations = [], []
    for index, scene in enumerate(scenes):
        image = _save(folder, len(images) + 1, scene.image)
        things = [_annotation(scene, place, image["id"], len(annotations)) for place in range(len(scene.objects))]
        images.append(image)
        annotations += things
        referents += _referents(expressions(scene, part, seed, index), image, things, split)
        if part is Part.TRAIN:
            name = f"{PICTURES}/{image['file_name']}"
            captions.append(caption_row(name, scene, seed, index, sides=True))
            conversations += conversation_rows(name, scene, seed, index)
    _write(folder, images, annotations, referents)
    if part is Part.TRAIN:
        write_training_rows(folder, captions, conversations)


def _written(folder: Path) -> tuple[list[_Record], list[_Record], list[_Record]]:
    """Images, annotations and referents of earlier splits. gRefCOCO's file has all referents: no pickle is read."""
    place = folder / ROOT / "grefcoco"
    if not place.is_dir():
        return [], [], []
    instances = read_json(place / "instances.json")
    return instances["images"], instances["annotations"], read_json(place / "grefs(unc).json")


def _save(folder: Path, id_: int, image_HW3: Image_HW3) -> _Record:
    """COCO's record of the picture."""
    height, width, _ = image_HW3.shape
    name = f"COCO_train2014_{id_:012d}{picture_suffix(image_HW3)}"
    path = folder / PICTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(path, image_HW3)
    return {"id": id_, "file_name": name, "width": width, "height": height}


def _annotation(scene: Scene, place: int, image_id: int, before: int) -> _Record:
    annotation = coco_annotation(scene.objects[place], image_id)
    return annotation | {"id": before + place + 1, "segmentation": [annotation["segmentation"]]}


def _referents(said: Sequence[Expression], image: _Record, things: Sequence[_Record], split: str) -> list[_Record]:
    """gRefCOCO's records: one for all sentences about the same objects, and one for each that nothing fits."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for expression in said:
        groups.setdefault(expression.objects or (expression.text,), []).append(expression.text)
    records = []
    for key, texts in groups.items():
        named = [things[place] for place in key if isinstance(place, int)]
        records.append(
            {
                "image_id": image["id"],
                "file_name": image["file_name"],
                "split": split,
                "ann_id": [thing["id"] for thing in named] or [_ABSENT],
                "category_id": [thing["category_id"] for thing in named] or [_ABSENT],
                "no_target": not named,
                "sentences": [{"tokens": text.split(), "raw": text, "sent": text} for text in texts],
            }
        )
    return records


def _write(folder: Path, images: list[_Record], annotations: list[_Record], referents: list[_Record]) -> None:
    instances = coco_document("referring expressions", coco_categories(), images, annotations)
    numbered = _numbered(referents)
    for name in ("refcoco", "grefcoco"):
        write_json(folder / ROOT / name / "instances.json", instances)
    write_json(folder / ROOT / "grefcoco" / "grefs(unc).json", numbered)
    singles = [_single(record) for record in numbered if len(record["ann_id"]) == 1 and not record["no_target"]]
    with atomic_write(folder / ROOT / "refcoco" / "refs(unc).p", "wb") as file:
        pickle.dump(singles, file, protocol=_PROTOCOL)


def _numbered(referents: Iterable[_Record]) -> list[_Record]:
    """With ids of referents and sentences, from 1."""
    numbered, count = [], 0
    for ref_id, record in enumerate(referents, start=1):
        sentences = [
            sentence | {"sent_id": sent_id} for sent_id, sentence in enumerate(record["sentences"], start=count + 1)
        ]
        count += len(sentences)
        sent_ids = [sentence["sent_id"] for sentence in sentences]
        numbered.append(record | {"ref_id": ref_id, "sentences": sentences, "sent_ids": sent_ids})
    return numbered


def _single(record: _Record) -> _Record:
    """refCOCO's record of a referent with one object. Its file name has the annotation's id in it."""
    (ann_id,), (category_id,) = record["ann_id"], record["category_id"]
    picture = Path(record["file_name"])
    single = {key: value for key, value in record.items() if key != "no_target"}
    name = f"{picture.stem}_{ann_id}{picture.suffix}"
    return single | {"ann_id": ann_id, "category_id": category_id, "file_name": name}
