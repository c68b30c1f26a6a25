"""Pascal VOC's files hold what torchvision and the standard library find in them; damage is one line with a name."""

import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import VOCDetection

from rice.data.coco import find_splits, fingerprint, open_split, role
from rice.errors import RiceError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

Object = tuple[str, tuple[Any, Any, Any, Any], Any]


def xml(objects: list[Object] = [], size: tuple[Any, Any] = (30, 20), filename: str = "a.jpg") -> str:  # noqa: B006
    parts = [f"<filename>{escape(filename)}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"]
    for name, box, difficult in objects:
        corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
        parts.append(f"<object><name>{escape(name)}</name>{flag}<bndbox>{corners}</bndbox></object>")
    return f"<annotation>{''.join(parts)}</annotation>"


def write(
    root: Path, documents: dict[str, str], lists: dict[str, list[str]] | None = None, suffix: str = ".jpg"
) -> Path:
    """A dataset with lists, or a Roboflow export of the split `train`."""
    pictures, annotations = (root / n for n in (("JPEGImages", "Annotations") if lists else ("train", "train")))
    for name, text in documents.items():
        for folder in (pictures, annotations):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (annotations / f"{name}.xml").write_text(text, encoding="utf-8")
        Image.new("RGB", (30, 20), (9, 90, 200)).save(pictures / f"{name}{suffix}")
    for split, names in (lists or {}).items():
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    return root


ONE: Object = ("cat", (1, 1, 30, 20), 0)


def test_a_box_over_all_pixels_is_the_image(tmp_path: Path) -> None:
    write(tmp_path, {"a": xml([ONE, ("cat", (0, 0, 30, 20), None), ("dog", (5, 7, 5, 7), 1)])}, {"train": ["a"]})
    split = open_split(tmp_path)
    (image,) = split.images
    whole, from_zero, pixel = image.annotations
    assert whole.box == from_zero.box == (0, 0, 30, 20)
    assert (pixel.box, pixel.area) == ((4, 6, 5, 7), 1)
    assert [a.iscrowd for a in image.annotations] == [False, False, True]
    assert [(c.index, c.id, c.name) for c in split.categories] == [(0, 1, "cat"), (1, 2, "dog")]
    assert split.load_image(0).size == (30, 20)


def test_boxes_outside_the_image_are_kept(tmp_path: Path) -> None:
    write(tmp_path, {"a": xml([("cat", (-4, 2, 99, 30.5), None)])}, {"train": ["a"]})
    assert open_split(tmp_path).images[0].annotations[0].box == (-5, 1, 99, 30.5)


def test_all_splits_share_their_classes(tmp_path: Path) -> None:
    documents = {name: xml([(thing, (1, 1, 9, 9), 0)]) for name, thing in (("1", "b"), ("2", "a"), ("3", "c"))}
    write(tmp_path / "lists", documents, {"train": ["2"], "test": ["3", "1"]})
    write(tmp_path / "export", documents)
    for name, moved in (("valid", "1"), ("test", "3")):
        (tmp_path / "export" / name).mkdir()
        for path in (tmp_path / "export" / "train").glob(f"{moved}.*"):
            shutil.move(path, tmp_path / "export" / name)
    for root in (tmp_path / "lists", tmp_path / "export"):
        splits = find_splits(root)
        assert role(splits) == ("train", "test")
        for split in splits:
            assert [category.name for category in open_split(root, split).categories] == ["a", "b", "c"]
    test = open_split(tmp_path / "lists", "test")
    assert [(image.id, image.file_name) for image in test.images] == [(1, "3.jpg"), (2, "1.jpg")]
    assert [image.annotations[0].id for image in test.images] == [1, 2]


def test_lists_of_one_class_are_no_splits_and_unannotated_tests_do_not_judge(tmp_path: Path) -> None:
    lists = {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c"]}
    write(tmp_path, {"a": xml([ONE]), "b": xml()}, lists)
    (tmp_path / "ImageSets" / "Main" / "cat_train.txt").write_text("a  1\nb -1\n")
    splits = find_splits(tmp_path)
    assert list(splits) == ["test", "train", "trainval", "val"]
    assert role(splits) == ("train", "val")
    with pytest.raises(RiceError, match=r"test\.txt: image 'c': no c\.xml in .*Annotations"):
        open_split(tmp_path, "test")


@pytest.mark.parametrize("listed", ["a", "a.png", " a "])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".JPEG"])
def test_a_picture_is_found_whatever_its_suffix(tmp_path: Path, listed: str, suffix: str) -> None:
    write(tmp_path, {"a": xml([ONE], filename="other.bmp")}, {"train": [listed]}, suffix)
    assert open_split(tmp_path).images[0].path.name == f"a{suffix}"


def test_dots_and_folders_in_names(tmp_path: Path) -> None:
    name = "cam/photo_jpg.rf.0123"
    write(tmp_path, {name: xml([ONE])}, {"train": [name]})
    assert open_split(tmp_path).images[0].file_name == f"{name}.jpg"


def test_two_pictures_of_one_name_are_told_apart_by_the_stated_suffix(tmp_path: Path) -> None:
    write(tmp_path, {"a": xml(filename="whatever.png")}, {"train": ["a"]})
    Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages" / "a.png")
    assert open_split(tmp_path).images[0].file_name == "a.png"
    (tmp_path / "Annotations" / "a.xml").write_text(xml(filename="a"))
    with pytest.raises(RiceError, match=r"a\.xml: expected one picture .* found 2: a\.jpg, a\.png"):
        open_split(tmp_path)


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]><annotation>&y;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><object>&x;</object></annotation>'

DAMAGED = [
    (BOMB, "expected XML without a DOCTYPE"),
    (OUTSIDE, "expected XML without a DOCTYPE"),
    ("<annotation>&x;</annotation>", "not valid XML: undefined entity"),
    ("", "not valid XML: no element found"),
    (xml([ONE])[:-30], "not valid XML"),
    ("<svg/>", "expected a Pascal VOC annotation, got <'svg'>"),
    ('<?xml version="1.0" encoding="no-such"?><annotation/>', "not valid XML: unknown encoding"),
    ("<annotation/>", "size: expected finite numbers, got None"),
    (xml(size=(0, 0)), "expected a width and a height of 1 to 65535 pixels, got 0 x 0"),
    (xml(size=(30.5, 20)), "expected a width and a height"),
    (xml(size=(10**9, 20)), "expected a width and a height"),
    (xml(size=("wide", 20)), "size: expected finite numbers, got 'wide'"),
    (xml([("cat", ("nan", 1, 2, 3), 0)]), "object 1: bndbox: expected finite numbers, got 'nan'"),
    (xml([ONE, ("cat", (1, 1, 1e300, 3), 0)]), "object 2: bndbox: expected finite numbers, got '1e\\+300'"),
    (xml([("cat", (5, 1, 4, 3), 0)]), "object 1: bndbox: expected xmin <= xmax and ymin <= ymax, got 5, 1, 4, 3"),
    (xml([("cat", (1, 1, 4, 3), 2)]), "object 1: expected 0 or 1 as difficult, got '2'"),
    (xml([(" ", (1, 1, 4, 3), 0)]), "object 1: expected a name"),
    (xml([ONE]).replace("bndbox", "robndbox"), "object 1: bndbox: expected finite numbers, got None"),
]


@pytest.mark.parametrize(("text", "message"), DAMAGED)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, {"a": text}, {"train": ["a"]})
    with pytest.raises(RiceError, match=message) as caught:
        open_split(tmp_path)
    assert str(tmp_path / "Annotations" / "a.xml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_doctype_is_refused_in_any_encoding(tmp_path: Path) -> None:
    write(tmp_path, {"a": ""}, {"train": ["a"]})
    (tmp_path / "Annotations" / "a.xml").write_bytes(BOMB.encode("utf-16"))
    with pytest.raises(RiceError, match="expected XML without a DOCTYPE"):
        open_split(tmp_path)


def test_missing_pictures_sizes_and_doubles_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"a": xml([ONE], size=(20, 30)), "b": xml()}, {"train": ["a", "b"], "double": ["b", "b"]})
    with pytest.raises(RiceError, match=r"a\.jpg has 30x20 pixels, .*Annotations/a\.xml says 20x30"):
        open_split(tmp_path, "train").load_image(0)
    with pytest.raises(RiceError, match=r"double\.txt: image 'b': expected names that are listed once"):
        open_split(tmp_path, "double")
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(RiceError, match=r"b\.xml: expected one picture of this name in .*JPEGImages, found none"):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("listed", ["../secret", "/etc/passwd", "..", "a\0b", "x" * 5000])
def test_a_list_cannot_lead_out_of_the_folder(tmp_path: Path, listed: str) -> None:
    write(tmp_path / "data", {"a": xml()}, {"train": [listed]})
    (tmp_path / "data" / "secret.xml").write_text(xml())
    with pytest.raises(RiceError, match=r"train\.txt: image .*: no .*\.xml in"):
        open_split(tmp_path / "data")


def test_the_fingerprint_follows_every_file(tmp_path: Path) -> None:
    write(tmp_path, {"a": xml([ONE]), "b": xml()}, {"train": ["a"], "test": ["b"]})
    files = find_splits(tmp_path)["train"]
    seen = [fingerprint(files)]
    assert open_split(tmp_path, "train").fingerprint() == seen[0]
    (tmp_path / "Annotations" / "b.xml").write_text(xml([("new", (1, 1, 2, 2), 0)]))  # one more class, for train too
    seen.append(fingerprint(files))
    files.annotations.write_text("a\nb\n")
    seen.append(fingerprint(files))
    with (tmp_path / "JPEGImages" / "a.jpg").open("ab") as file:
        file.write(b"\0")
    seen.append(fingerprint(files))
    assert len(set(seen)) == 4


def test_folders_without_lists_or_pictures_are_no_dataset(tmp_path: Path) -> None:
    write(tmp_path, {"a": xml()}, {"train": ["a"]})
    shutil.rmtree(tmp_path / "ImageSets")
    with pytest.raises(RiceError, match="no dataset in COCO's layout .* or in Pascal VOC's: ImageSets/Main"):
        find_splits(tmp_path)


whole = st.integers(1, 30)
things = st.tuples(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Cc", "Zs"]), min_size=1),
    st.tuples(whole, whole, whole, whole).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
    ),
    st.sampled_from([0, 1, None]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(things, max_size=4))
def test_any_annotation_reads_back_as_pixels_that_it_covers(
    tmp_path_factory: pytest.TempPathFactory, objects: list[Object]
) -> None:
    root = write(tmp_path_factory.mktemp("voc"), {"a": xml(objects)}, {"train": ["a"]})
    split = open_split(root)
    found = split.images[0].annotations
    assert [split.categories[a.category].name for a in found] == [name.strip() for name, _, _ in objects]
    for annotation, (_, (xmin, ymin, xmax, ymax), difficult) in zip(found, objects, strict=True):
        covered_HW = np.zeros((40, 40), dtype=bool)
        covered_HW[[[y - 1] for y in range(ymin, ymax + 1)], [x - 1 for x in range(xmin, xmax + 1)]] = True
        x0, y0, x1, y1 = map(int, annotation.box)
        assert covered_HW[y0:y1, x0:x1].all()
        assert covered_HW.sum() == annotation.area
        assert annotation.iscrowd == (difficult == 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_text_is_a_split_or_an_error_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = xml([ONE, ("dog", (2, 3, 8, 9), 1)])
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    damaged = text[:start] + data.draw(st.text(max_size=6)) + text[end:]
    root = tmp_path_factory.getbasetemp() / "damaged-voc"
    write(root, {"a": ""}, {"train": ["a"]})
    (root / "Annotations" / "a.xml").write_bytes(damaged.encode(errors="surrogatepass"))
    message = None
    try:
        split = open_split(root)
    except RiceError as error:
        message = str(error)
    if message is None:
        assert all(np.isfinite(a.box).all() for a in split.images[0].annotations)
    else:
        assert "\n" not in message
        assert str(root) in message


@pytest.mark.data
def test_real_boxes_are_those_of_the_standard_library_and_torchvision(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "bccd"
    assert role(find_splits(root)) == ("train", "test")
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2012").symlink_to(root)
    total = 0
    for name, images in (("train", 205), ("val", 87), ("test", 72)):
        split = open_split(root, name)
        assert [c.name for c in split.categories] == ["Platelets", "RBC", "WBC"]
        stems = (root / "ImageSets" / "Main" / f"{name}.txt").read_text().split()
        assert [image.path.stem for image in split.images] == stems
        assert len(stems) == images
        for image in split.images:
            tree = ElementTree.parse(root / "Annotations" / f"{image.path.stem}.xml")
            boxes = [
                [float(o.findtext(f"bndbox/{k}", "")) for k in ("xmin", "ymin", "xmax", "ymax")]
                for o in tree.iter("object")
            ]
            got = [[a.box[0] + 1, a.box[1] + 1, a.box[2], a.box[3]] for a in image.annotations]
            assert got == boxes
            assert all(a.area >= 1 for a in image.annotations)  # two boxes of this set cover one pixel only
            total += len(got)
        if name != "test":
            reference = VOCDetection(str(tmp_path), year="2012", image_set=name)
            for index in (0, images - 1):
                picture, target = reference[index]
                assert split.load_image(index).tobytes() == picture.convert("RGB").tobytes()
                named = [split.categories[a.category].name for a in split.images[index].annotations]
                assert [o["name"] for o in target["annotation"]["object"]] == named
    assert total == 4888


@pytest.mark.data
def test_pycocotools_reads_a_real_split(shared_data: Path) -> None:
    split = open_split(shared_data / "bccd", "test")
    reference = COCO()
    reference.dataset = split.as_coco()
    reference.createIndex()
    assert sorted(reference.imgs) == list(range(1, 73))
    assert sorted(reference.anns) == list(range(1, sum(len(i.annotations) for i in split.images) + 1))
    for image in split.images:
        for annotation, expected in zip(image.annotations, reference.imgToAnns[image.id], strict=True):
            x, y, w, h = expected["bbox"]
            assert annotation.box == (x, y, x + w, y + h)
            assert reference.cats[expected["category_id"]]["name"] == split.categories[annotation.category].name
