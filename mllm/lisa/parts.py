"""Sets of parts of objects in COCO's layout: Pascal-Part and PACO-LVIS.

    ROOT/vlpart/pascal_part/train.json, VOCdevkit/VOC2010/JPEGImages             categories "dog:ear"
    ROOT/vlpart/paco/annotations/paco_lvis_v1_train.json, ROOT/coco/train2017    "mug_(cup):handle", "mug_(cup)"

As in LISA, a target is one annotation: one part of one object, also where the picture has several of the kind.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mllm.lisa.pictures import Picture, Target
from mllm.lisa.pictures_writer import Refusals, UnusableError, clean, files_in, runs_of
from rice.data.coco_json import CocoAnnotation, CocoImage, parse_coco
from rice.errors import RiceError
from rice.progress import Progress


def part_texts(name: str) -> tuple[str, ...]:
    """Words for a category: "dog:ear" -> "dog ear", "the ear of the dog"; "mug_(cup)" -> "mug".

    What LVIS adds in brackets is cut, and its underscores become spaces. Errors: RiceError for a name without words.
    """
    words = [clean(piece.split("_(")[0].replace("_", " ")) for piece in name.split(":")]
    if len(words) > 2 or not all(words):
        raise RiceError(f"expected a category such as 'dog' or 'dog:ear', got {name!r}; get a whole copy of the set")
    if len(words) == 1:
        return (str(words[0]),)
    thing, part = words
    return (f"{thing} {part}", f"the {part} of the {thing}")


def read_parts(
    root: Path,
    annotations: Path,
    *,
    source: str,
    images: str,
    parts: Sequence[str] = ("",),
    refusals: Refusals,
    progress: Progress,
) -> Iterator[Picture]:
    """The pictures of a file in its order, every annotation one target.

    images: folder relative to the root that the file names start from; parts: its folders that hold pictures.
    What cannot be used is counted in `refusals`.
    Errors: RiceError, as `parse_coco` and `part_texts`.
    """
    coco = parse_coco(annotations, root / images)
    texts = [part_texts(category.name) for category in coco.categories]
    present = files_in(root / images, parts)
    for image in progress.track(coco.images, f"reading {source}"):
        if image.file_name not in present:
            refusals.add("missing picture file", image.id)
            continue
        found = (_target(annotation, image, texts[annotation.category], refusals) for annotation in image.annotations)
        targets = tuple(target for target in found if target)
        if targets:
            name = f"{images}/{image.file_name}"
            yield Picture(str(image.id), source, name, image.height, image.width, None, targets)
        elif not image.annotations:
            refusals.add("picture without annotations", image.id)


def _target(annotation: CocoAnnotation, image: CocoImage, texts: tuple[str, ...], refusals: Refusals) -> Target | None:
    try:
        code = runs_of(annotation.segmentation, image.height, image.width)
    except UnusableError as error:
        refusals.add(str(error), annotation.id)
        return None
    return Target(str(annotation.id), texts, masks=(code,))
