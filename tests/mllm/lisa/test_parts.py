"""Parts of objects: their words as LISA says them, and every annotation a target of its own."""

from pathlib import Path

import numpy as np
import pytest
from lisa_tree import HEIGHT, SQUARE, TRIANGLE, WIDTH, annotation, instances, save_picture, write_json
from pycocotools import mask as rle

from mllm.lisa.parts import part_texts, read_parts
from mllm.lisa.pictures_writer import Refusals
from rice.errors import RiceError
from rice.progress import SilentProgress

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("dog:ear", ("dog ear", "the ear of the dog")),
        ("aeroplane:left wing", ("aeroplane left wing", "the left wing of the aeroplane")),
        ("mug_(cup):handle", ("mug handle", "the handle of the mug")),
        ("trash_can:body_(main)", ("trash can body", "the body of the trash can")),
        ("cellular_telephone", ("cellular telephone",)),
    ],
)
def test_a_part_has_the_words_that_lisa_gives_it(name: str, texts: tuple[str, ...]) -> None:
    assert part_texts(name) == texts


@pytest.mark.parametrize("name", ["a:b:c", ":ear", "dog:", " ", "_(x)"])
def test_a_category_without_words_is_refused(name: str) -> None:
    with pytest.raises(RiceError, match="expected a category"):
        part_texts(name)


def test_every_annotation_is_a_target_and_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    found = [
        annotation(1, 1, SQUARE, 1),
        annotation(2, 1, TRIANGLE, 1),
        annotation(3, 1, [], 2),
        annotation(4, 2, SQUARE, 2),
        annotation(5, 3, [], 2),
    ]
    images = {1: "train2017/a.jpg", 2: "train2017/gone.jpg", 3: "train2017/b.jpg", 4: "train2017/b2.jpg", 5: "../c.jpg"}
    path = write_json(tmp_path / "parts.json", instances(images, found, ["dog:ear", "mug_(cup)"]))
    for name in ("coco/train2017/a.jpg", "coco/train2017/b.jpg", "coco/train2017/b2.jpg", "c.jpg"):
        save_picture(tmp_path / name)
    refusals = Refusals()
    where = {"source": "paco", "images": "coco", "parts": ("train2017",)}
    (picture,) = read_parts(tmp_path, path, refusals=refusals, progress=SilentProgress(), **where)
    assert (picture.image, picture.height, picture.width) == ("coco/train2017/a.jpg", HEIGHT, WIDTH)
    assert [(t.id, t.texts) for t in picture.targets] == [(k, ("dog ear", "the ear of the dog")) for k in "12"]
    for target, polygons in zip(picture.targets, (SQUARE, TRIANGLE), strict=True):
        (code,) = target.masks
        mask = rle.decode({"size": [HEIGHT, WIDTH], "counts": code.encode()})
        np.testing.assert_array_equal(mask, rle.decode(rle.frPyObjects(polygons, HEIGHT, WIDTH))[..., 0])
    assert {reason: one["first"] for reason, one in refusals.as_json().items()} == {
        "its annotation has no segmentation": ["3", "5"],
        "missing picture file": ["2", "5"],
        "picture without annotations": ["4"],
    }
