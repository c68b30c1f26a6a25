"""The reader agrees with pycocotools on real files, and refuses damaged ones in one line that names file and id."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from rice.data.coco import IGNORE, CocoSplit, SplitFiles, find_splits, fingerprint, open_split, role
from rice.data.coco_json import parse_coco
from rice.errors import RiceError

REAL = [
    ("coco", "train2017", "annotations/instances_train2017.json", 128, 939, 10, 80),
    ("coco", "val2017", "annotations/instances_val2017.json", 100, 712, 5, 80),
    ("facade", "valid", "valid/_annotations.coco.json", 32, 1250, 0, 11),
]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]
DOCUMENT: dict[str, Any] = {
    "info": {},
    "images": [
        {"id": 7, "file_name": "a.png", "width": 30, "height": 20},
        {"id": 3, "file_name": "sub/b.png", "width": 16, "height": 24},
    ],
    "categories": [{"id": 90, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [2, 2, 10, 10], "area": 100, "segmentation": [SQUARE]},
        {
            "id": 2,
            "image_id": 7,
            "category_id": 2,
            "bbox": [0, 0, 30, 20],
            "iscrowd": 1,
            "area": 600,
            "segmentation": {"size": [20, 30], "counts": [0, 600]},
        },
        {"id": 3, "image_id": 3, "category_id": 2, "bbox": [1.5, 2, 3, 0], "area": 0, "segmentation": [[]]},
    ],
}


def write(root: Path, document: Any, *, layout: str = "coco") -> Path:
    """A dataset of one split, `train`; returns the annotation file."""
    folder = root / "train"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20), (200, 30, 30)).save(folder / "a.png")
    Image.new("L", (16, 24), 90).save(folder / "sub" / "b.png")
    path = root / "annotations" / "instances_train.json" if layout == "coco" else folder / "_annotations.coco.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.fixture
def document() -> dict[str, Any]:
    return copy.deepcopy(DOCUMENT)


@pytest.mark.data
@pytest.mark.parametrize(("name", "split", "path", "images", "annotations", "crowd", "categories"), REAL)
def test_real_files_hold_what_pycocotools_finds(
    shared_data: Path, name: str, split: str, path: str, images: int, annotations: int, crowd: int, categories: int
) -> None:
    ours, reference = open_split(shared_data / name, split), COCO(shared_data / name / path)
    found = [annotation for image in ours.images for annotation in image.annotations]
    assert (len(ours.images), len(found), len(ours.categories)) == (images, annotations, categories)
    assert sum(annotation.iscrowd for annotation in found) == crowd
    assert [category.id for category in ours.categories] == sorted(reference.cats)
    for annotation in found:
        expected = reference.anns[annotation.id]
        assert ours.categories[annotation.category].id == expected["category_id"]
        assert ours.images[annotation.image].id == expected["image_id"]
        x0, y0, x1, y1 = annotation.box
        np.testing.assert_allclose([x0, y0, x1 - x0, y1 - y0], expected["bbox"], atol=1e-9)
        assert annotation.area == expected["area"]


@pytest.mark.data
@pytest.mark.parametrize(("name", "split", "path"), [row[:3] for row in REAL])
def test_real_masks_are_those_of_pycocotools(shared_data: Path, name: str, split: str, path: str) -> None:
    ours, reference = open_split(shared_data / name, split), COCO(shared_data / name / path)
    for image in ours.images[:: 1 if name == "coco" else 8]:
        for annotation in image.annotations:
            expected_HW = reference.annToMask(reference.anns[annotation.id]).astype(bool)
            np.testing.assert_array_equal(ours.mask(annotation), expected_HW, err_msg=f"annotation {annotation.id}")


@pytest.mark.data
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_semantic_maps_are_those_of_a_slow_painter(shared_data: Path, split: str) -> None:
    ours = open_split(shared_data / "coco", split)
    reference = COCO(shared_data / "coco" / "annotations" / f"instances_{split}.json")
    crowded = [i for i, image in enumerate(ours.images) if any(a.iscrowd for a in image.annotations)]
    for index in sorted({*crowded, *range(0, len(ours.images), 5)}):
        image = ours.images[index]
        expected_HW = np.zeros((image.height, image.width), dtype=np.int64)
        records = reference.imgToAnns[image.id]
        masks = [reference.annToMask(record).astype(bool) for record in records]
        for crowd in (1, 0):
            chosen = [k for k, record in enumerate(records) if record["iscrowd"] == crowd]
            for k in sorted(chosen, key=lambda k: -masks[k].sum()):
                value = IGNORE if crowd else sorted(reference.cats).index(records[k]["category_id"]) + 1
                expected_HW[masks[k]] = value
        np.testing.assert_array_equal(ours.semantic_map(index), expected_HW)


@pytest.mark.data
def test_real_pictures_have_their_annotated_size(shared_data: Path) -> None:
    for name, split, *_ in REAL:
        ours = open_split(shared_data / name, split)
        for index in range(0, len(ours.images), 16):
            picture, image = ours.load_image(index), ours.images[index]
            assert (picture.mode, picture.size) == ("RGB", (image.width, image.height))


@pytest.mark.data
def test_a_name_used_by_two_ids_stays_two_categories(shared_data: Path) -> None:
    names = [category.name for category in open_split(shared_data / "facade").categories]
    assert len(names) == 11
    assert len(set(names)) == 10


@pytest.mark.data
def test_lvis_files_parse(shared_data: Path) -> None:
    parsed = parse_coco(shared_data / "lvis" / "lvis_v0.5_val_100.json", Path("images"))
    assert (len(parsed.images), sum(len(i.annotations) for i in parsed.images), len(parsed.categories)) == (
        *(100, 977),
        1230,
    )


@pytest.mark.data
def test_real_roles(shared_data: Path) -> None:
    assert role(find_splits(shared_data / "coco")) == ("train2017", "val2017")
    with pytest.raises(RiceError, match="expected a train split and a test or val split, found valid"):
        role(find_splits(shared_data / "facade"))


@pytest.mark.data
def test_a_damaged_photo_is_named(shared_data: Path, tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, document)
    damaged = next(path for path in (shared_data / "broken").rglob("*.jp*g"))
    shutil.copy(damaged, tmp_path / "train" / "a.png")
    with pytest.raises(RiceError, match=r"cannot read the image .*train/a\.png"):
        open_split(tmp_path).load_image(0)


@pytest.mark.parametrize("layout", ["coco", "roboflow"])
def test_indices_are_contiguous_and_keep_order(tmp_path: Path, document: dict[str, Any], layout: str) -> None:
    write(tmp_path, document, layout=layout)
    split = open_split(tmp_path)
    assert [(c.index, c.id, c.name, c.supercategory) for c in split.categories] == [
        (0, 2, "dog", ""),
        (1, 90, "cat", "animal"),
    ]
    assert [[a.id for a in image.annotations] for image in split.images] == [[1, 2], [3]]
    assert split.images[1].annotations[0].box == (1.5, 2, 4.5, 2)
    assert split.load_image(1).mode == "RGB"


def test_crowds_are_ignored_where_no_instance_lies(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, document)
    split = open_split(tmp_path)
    values_HW = split.semantic_map(0)
    assert values_HW.dtype == np.uint16
    expected_HW = np.where(split.mask(split.images[0].annotations[0]), 2, IGNORE)
    np.testing.assert_array_equal(values_HW, expected_HW)
    assert not split.semantic_map(1).any()


def test_lvis_v1_names_its_files_by_address(tmp_path: Path, document: dict[str, Any]) -> None:
    document["images"] = [
        {"id": 7, "coco_url": "http://images.cocodataset.org/train/a.png", "width": 30, "height": 20},
    ]
    document["annotations"] = document["annotations"][:1]
    path = write(tmp_path, document)
    path.rename(path.with_name("lvis_v1_train.json"))
    assert open_split(tmp_path, "lvis_v1_train").images[0].path == tmp_path / "train" / "a.png"


def change(*keys: Any, to: Any) -> Any:
    def apply(document: dict[str, Any]) -> None:
        target: Any = document
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = to

    return apply


BROKEN = [
    (change("images", to=None), "expected a list as 'images'"),
    (change("annotations", to={}), "expected a list as 'annotations'"),
    (change("images", 0, to=5), "expected an object at position 0 of 'images'"),
    (change("images", 0, "file_name", to=5), "image 7: expected text as file_name, got 5"),
    (change("images", 0, "file_name", to="gone.png"), r"image 7: no file 'gone.png' in .*train \(1 of 2"),
    (change("images", 0, "file_name", to="../a.png"), r"image 7: expected a file name inside .*'\.\./a\.png'"),
    (change("images", 0, "file_name", to="/etc/passwd"), "image 7: expected a file name inside"),
    (change("images", 0, "file_name", to="C:\\a.png"), "image 7: expected a file name inside"),
    (change("images", 0, "file_name", to="a\0.png"), "image 7: expected a file name inside"),
    (change("images", 0, "file_name", to="\ud800.png"), "image 7: no file"),
    (change("images", 0, "file_name", to="x" * 5000), "image 7: no file"),
    (change("images", 0, "width", to=0), "image 7: expected a width and a height of 1 to"),
    (change("images", 0, "height", to=10**9), "image 7: expected a width and a height of 1 to"),
    (change("images", 0, "width", to="30"), "image 7: expected an integer as width, got '30'"),
    (change("images", 1, "id", to=7), "image 7: expected ids that are used once"),
    (change("categories", 0, "id", to=2), "category 2: expected ids that are used once"),
    (change("categories", 0, "name", to=None), "category 90: expected text as name"),
    (change("annotations", 1, "id", to=1), "annotation 1: expected ids that are used once"),
    (change("annotations", 1, "id", to=True), "annotation True: expected an integer as id"),
    (change("annotations", 0, "image_id", to=8), "annotation 1: unknown image_id 8"),
    (change("annotations", 0, "category_id", to=1), "annotation 1: unknown category_id 1"),
    (change("annotations", 0, "bbox", to=[1, 2, 3]), "annotation 1: expected .x, y, width, height. as bbox"),
    (change("annotations", 0, "bbox", 0, to=float("nan")), "annotation 1: expected finite numbers in bbox, got nan"),
    (change("annotations", 0, "bbox", 2, to=float("inf")), "annotation 1: expected finite numbers in bbox, got inf"),
    (change("annotations", 0, "bbox", 2, to=10**400), "annotation 1: expected finite numbers in bbox"),
    (change("annotations", 0, "bbox", 2, to=-1), "annotation 1: expected a bbox with sides of at least 0"),
    (change("annotations", 0, "bbox", 2, to="3"), "annotation 1: expected finite numbers in bbox, got '3'"),
    (change("annotations", 0, "iscrowd", to=2), "annotation 1: expected 0 or 1 as iscrowd"),
    (change("annotations", 0, "area", to=float("nan")), "annotation 1: expected finite numbers in area"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_damage_is_refused_in_one_line_that_names_file_and_id(
    tmp_path: Path, document: dict[str, Any], damage: Any, message: str
) -> None:
    damage(document)
    path = write(tmp_path, document)
    with pytest.raises(RiceError, match=message) as caught:
        open_split(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", "[" * 100_000, '{"images": 1e}'])
def test_what_is_not_a_coco_document_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RiceError) as caught:
        open_split(tmp_path)
    assert str(path) in str(caught.value)


def test_a_damaged_segmentation_names_its_annotation(tmp_path: Path, document: dict[str, Any]) -> None:
    document["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6, 7]]
    document["annotations"][2]["segmentation"] = None
    write(tmp_path, document)
    split = open_split(tmp_path)
    with pytest.raises(RiceError, match=r"instances_train\.json: annotation 1: expected a polygon with an even"):
        split.semantic_map(0)
    with pytest.raises(RiceError, match="annotation 3: expected polygons or run lengths as segmentation, got None"):
        split.semantic_map(1)


def test_a_segmentation_of_another_kind_is_kept_as_it_is_and_refused_where_a_mask_is_asked_for(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    document["annotations"][0]["segmentation"] = 7
    write(tmp_path, document)
    split = open_split(tmp_path)
    assert [a["segmentation"] for a in split.as_coco()["annotations"] if a["id"] == 1] == [7]
    with pytest.raises(RiceError, match="annotation 1: expected polygons or run lengths as segmentation, got 7"):
        split.mask(split.images[0].annotations[0])


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, document)
    picture = tmp_path / "train" / "a.png"
    picture.rename(tmp_path / "train" / "real.png")
    picture.symlink_to(tmp_path / "train" / "real.png")
    assert open_split(tmp_path).load_image(0).size == (30, 20)
    (tmp_path / "train" / "real.png").rename(tmp_path / "outside.png")
    picture.unlink()
    picture.symlink_to(tmp_path / "outside.png")
    with pytest.raises(RiceError, match=r"image 7: 'a\.png' is a link that leaves"):
        open_split(tmp_path)


def test_another_size_than_annotated_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path, document)
    Image.new("RGB", (60, 40)).save(tmp_path / "train" / "a.png")
    with pytest.raises(RiceError, match=r"a\.png has 60x40 pixels, .*instances_train\.json says 30x20"):
        open_split(tmp_path).load_image(0)


@pytest.mark.parametrize(("stored", "rotated"), [((30, 20), False), ((20, 30), True)])
def test_exif_rotates_only_where_the_sizes_call_for_it(
    tmp_path: Path, document: dict[str, Any], stored: tuple[int, int], rotated: bool
) -> None:
    document["images"][0]["file_name"] = "a.jpg"
    write(tmp_path, document)
    picture = Image.new("RGB", stored, (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, stored[0], stored[1] // 2))  # upper half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the upper half becomes the right one
    picture.save(tmp_path / "train" / "a.jpg", exif=exif, quality=95)
    pixels = np.asarray(open_split(tmp_path).load_image(0)).mean(axis=-1)
    assert pixels.shape == (20, 30)
    right_is_white = pixels[:, 20:].mean() > 200 and pixels[:, :10].mean() < 50
    assert right_is_white == rotated


def test_the_fingerprint_follows_annotations_names_and_sizes(tmp_path: Path, document: dict[str, Any]) -> None:
    path = write(tmp_path, document)
    files = find_splits(tmp_path)["train"]
    seen = [fingerprint(files)]
    assert open_split(tmp_path).fingerprint() == seen[0]
    copied = Path(shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-copy"))
    assert fingerprint(find_splits(copied)["train"]) == seen[0]
    document["annotations"].pop()
    path.write_text(json.dumps(document))
    seen.append(fingerprint(files))
    (tmp_path / "train" / "a.png").rename(tmp_path / "train" / "c.png")
    seen.append(fingerprint(files))
    with (tmp_path / "train" / "c.png").open("ab") as file:
        file.write(b"\0")
    seen.append(fingerprint(files))
    assert len(set(seen)) == 4


def test_splits_are_found_and_named_in_errors(tmp_path: Path, document: dict[str, Any]) -> None:
    with pytest.raises(RiceError, match="expected a dataset folder"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(RiceError, match="no dataset in COCO's layout"):
        find_splits(tmp_path)
    write(tmp_path, document)
    shutil.copy(tmp_path / "annotations" / "instances_train.json", tmp_path / "annotations" / "instances_val.json")
    assert list(find_splits(tmp_path)) == ["train", "val"]
    with pytest.raises(RiceError, match="expected the name of a split .* one of train, val"):
        open_split(tmp_path)
    with pytest.raises(RiceError, match=r"no split 'vla'.* Did you mean val\? Found: train, val"):
        open_split(tmp_path, "vla")
    with pytest.raises(RiceError, match="cannot list the image folder"):
        open_split(tmp_path, "val")


@pytest.mark.parametrize(
    ("annotated", "bare", "expected"),
    [
        (["train", "test", "valid"], [], ("train", "test")),
        (["train", "valid"], ["test"], ("train", "valid")),
        (["train2017", "val2017"], [], ("train2017", "val2017")),
        (["train2017", "lvis_v1_train", "val2017", "lvis_v1_val"], [], ("train2017", "val2017")),
        (["lvis_v1_train", "lvis_v1_val"], [], ("lvis_v1_train", "lvis_v1_val")),
    ],
)
def test_the_test_split_is_used_where_it_has_annotations(
    tmp_path: Path, annotated: list[str], bare: list[str], expected: tuple[str, str]
) -> None:
    splits = {}
    for name in (*annotated, *bare):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"annotations": [{}] if name in annotated else []}))
        splits[name] = SplitFiles(name, path, tmp_path)
    assert role(splits) == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def mutate(data: st.DataObject, value: Any) -> Any:
    """`value` with one place replaced, removed or doubled."""
    children = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not children or data.draw(st.integers(0, 3)) == 0:
        return data.draw(values)
    changed, key = copy.copy(value), data.draw(st.sampled_from(children))
    action = data.draw(st.sampled_from(["descend"] * 6 + ["remove", "double"]))
    if action == "descend":
        changed[key] = mutate(data, value[key])
    elif action == "remove":
        del changed[key]
    elif isinstance(changed, list):
        changed.append(value[key])
    return changed


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_document_is_a_split_or_an_error_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mutated = DOCUMENT
    for _ in range(data.draw(st.integers(1, 3))):
        mutated = mutate(data, mutated)
    root = tmp_path_factory.getbasetemp() / "mutated"
    write(root, json.dumps(mutated))
    message = None
    try:
        use(open_split(root))
    except RiceError as error:
        message = str(error)
    if message is not None:
        assert "\n" not in message
        assert os.fspath(root) in message


def use(split: CocoSplit) -> None:
    for index, image in enumerate(split.images):
        assert split.load_image(index).size == (image.width, image.height)
        assert split.semantic_map(index).shape == (image.height, image.width)
        for annotation in image.annotations:
            assert np.isfinite(annotation.box).all()
            assert 0 <= annotation.category < len(split.categories)
