"""The world in real benchmarks' on-disk layouts, so that the loaders that read the real sets are the ones that run.

write_coco          COCO 2017: annotations/instances_{split}.json, {split}/
write_image_folder  ImageNet's: {split}/{category}/, one object a picture
write_clips         YouTube-VOS': {split}/JPEGImages/, {split}/Annotations/, {split}/meta.json; also {split}/videos/

Layouts of other detection sets: rice.data.world.layouts_detection. Of tracking: rice.data.world.layouts_tracking. Of
text: rice.data.world.layouts_text. Of what is written about pictures: rice.data.world.layouts_llava, layouts_refer.
"""

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rice.data.drawing import distinct_colour
from rice.data.segmentation import encode_mask
from rice.data.video import write_video
from rice.data.world.actors import CATEGORIES
from rice.data.world.clip import Clip
from rice.data.world.scene import Image_HW3, Scene, SceneObject
from rice.files import write_json

_LARGEST_PNG = 512
"""Longer edges are stored as JPEG: noise does not compress."""
_FPS = Fraction(12)


def write_coco(folder: Path, split: str, scenes: Iterable[Scene], names: Sequence[str] = CATEGORIES) -> None:
    """Write scenes as one split of a COCO dataset. Ids count from 1; segmentations are compressed run lengths.

    names: what the objects' categories are indices of.
    """
    images, things = write_pictures(folder, split, scenes)
    annotations = [thing for image in images for thing in things[image["id"]]]
    document = coco_document(split, coco_categories(names), images, annotations)
    write_json(folder / "annotations" / f"instances_{split}.json", document)


def write_pictures(
    folder: Path, split: str, scenes: Iterable[Scene]
) -> tuple[list[dict[str, Any]], dict[int, list[dict[str, Any]]]]:
    """Write the pictures into {split}/; COCO's records of the images, and those of the instances by image id."""
    images: list[dict[str, Any]] = []
    things: dict[int, list[dict[str, Any]]] = {}
    (folder / split).mkdir(parents=True, exist_ok=True)
    for id_, scene in enumerate(scenes, start=1):
        height, width, _ = scene.image.shape
        name = f"{id_:06d}{picture_suffix(scene.image)}"
        save_picture(folder / split / name, scene.image)
        images.append({"id": id_, "file_name": name, "width": width, "height": height})
        things[id_] = [coco_annotation(thing, id_) for thing in scene.objects]
    return images, things


def coco_document(
    description: str,
    categories: list[dict[str, Any]],
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
) -> dict[str, Any]:
    """COCO's instances file; annotations get their ids, from 1, here."""
    return {
        "info": {"description": f"RICE suite, generated world, {description}"},
        "licenses": [],
        "categories": categories,
        "images": images,
        "annotations": [annotation | {"id": id_} for id_, annotation in enumerate(annotations, start=1)],
    }


def coco_categories(names: Sequence[str] = CATEGORIES) -> list[dict[str, Any]]:
    """COCO's category table: ids from 1 in the order of `names`, the last word (a shape) as supercategory."""
    return [{"id": index + 1, "name": name, "supercategory": name.split()[-1]} for index, name in enumerate(names)]


def coco_annotation(thing: SceneObject, image_id: int) -> dict[str, Any]:
    """One instance; its segmentation as compressed run lengths, which are exact."""
    left, top, right, bottom = thing.box
    return {
        "image_id": image_id,
        "category_id": thing.category + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(np.count_nonzero(thing.mask)),
        "iscrowd": 0,
        "segmentation": encode_mask(thing.mask),
    }


def write_image_folder(
    folder: Path, split: str, crops: Iterable[tuple[Scene, int]], names: Sequence[str] = CATEGORIES
) -> None:
    """Write one picture per (scene, index into `names`), in a folder for each category that occurs."""
    for index, (scene, category) in enumerate(crops):
        path = folder / split / names[category].replace(" ", "_")
        path.mkdir(parents=True, exist_ok=True)
        save_picture(path / f"{index:06d}{picture_suffix(scene.image)}", scene.image)


def write_clips(folder: Path, split: str, clips: Iterable[Clip]) -> None:
    """Write clips as one split of YouTube-VOS. Pixel value and object id: identity + 1.

    meta.json also has, for each object and in the order of its `frames`, `boxes` (xyxy, whole pixels, right and
    bottom excluded) and `visibility` (share of its pixels that is seen).
    """
    videos = {}
    for index, clip in enumerate(clips):
        name = f"{index:05d}"
        videos[name] = {"objects": _write_clip(folder / split, name, clip)}
        write_video(folder / split / "videos" / f"{name}.mp4", (scene.image for scene in clip), _FPS)
    write_json(folder / split / "meta.json", {"videos": videos})


def _write_clip(folder: Path, name: str, clip: Clip) -> dict[str, Any]:
    pictures, masks = folder / "JPEGImages" / name, folder / "Annotations" / name
    pictures.mkdir(parents=True)
    masks.mkdir(parents=True)
    objects: dict[str, Any] = {}
    for index, scene in enumerate(clip):
        frame = f"{index:05d}"
        save_picture(pictures / f"{frame}.jpg", scene.image)
        _save_identities(masks / f"{frame}.png", scene)
        for thing in scene.objects:
            empty = {"category": CATEGORIES[thing.category], "frames": [], "boxes": [], "visibility": []}
            entry = objects.setdefault(str(thing.identity + 1), empty)
            entry["frames"].append(frame)
            entry["boxes"].append(thing.box)
            entry["visibility"].append(round(thing.visibility, 4))
    return objects


def _save_identities(path: Path, scene: Scene) -> None:
    """As YouTube-VOS and DAVIS: palette PNG, 0 = background."""
    identities_HW = np.zeros(scene.image.shape[:2], dtype=np.uint8)
    for thing in scene.objects:
        identities_HW[thing.mask] = thing.identity + 1
    picture = Image.fromarray(identities_HW)
    colours = [(0, 0, 0), *map(distinct_colour, range(1, 256))]
    picture.putpalette(bytes(channel for colour in colours for channel in colour))
    picture.save(path)


def picture_suffix(image_HW3: Image_HW3) -> str:
    """Of the file that holds the picture."""
    return ".png" if max(image_HW3.shape) <= _LARGEST_PNG else ".jpg"


def save_picture(path: Path, image_HW3: Image_HW3) -> None:
    """As PNG or as a good JPEG, by the suffix of `path`."""
    png = path.suffix == ".png"
    options: dict[str, Any] = {"compress_level": 1} if png else {"quality": 95, "subsampling": 0}
    content = io.BytesIO()  # to a file on a full disk Pillow writes half a JPEG, and says nothing
    Image.fromarray(image_HW3).save(content, "PNG" if png else "JPEG", **options)
    path.write_bytes(content.getvalue())
