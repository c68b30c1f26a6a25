"""A prepared folder gives back the pictures that were written, and masks that agree with pycocotools."""

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lisa_tree import HEIGHT, WIDTH, save_map, save_picture
from PIL import Image
from pycocotools import mask as rle

from mllm.lisa.pictures import ABOUT, PICTURES_PER_GROUP, TABLE, Picture, Pictures, Target
from mllm.lisa.pictures_writer import Refusals, clean, files_in, write_pictures
from rice.errors import RiceError
from rice.files import UnsafePathError, write_json

TEXT = st.text(st.characters(codec="utf-8"))
TARGETS = st.builds(
    Target,
    TEXT,
    st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    sentence=st.booleans(),
    masks=st.lists(TEXT, max_size=3).map(tuple),
    value=st.none() | st.integers(0, 65_535),
    ignore=st.none() | TEXT,
    explanation=st.none() | TEXT,
)
A_PICTURE = st.builds(
    Picture,
    TEXT,
    TEXT,
    TEXT,
    st.integers(1, 65_535),
    st.integers(1, 65_535),
    st.none() | TEXT,
    st.lists(TARGETS, min_size=1, max_size=3).map(tuple),
)


def write(
    folder: Path, pictures: list[Picture], root: Path | None = None, folders: tuple[str, ...] = ("im",)
) -> Pictures:
    about = {"name": "set", "split": "train", "root": str(root or folder), "folders": list(folders)}
    write_pictures(folder, about, pictures, Refusals())
    return Pictures(folder)


def picture(*targets: Target, label_map: str | None = None, image: str = "im/a.jpg") -> Picture:
    return Picture("a", "set", image, HEIGHT, WIDTH, label_map, targets)


def code(mask_HW: Any) -> str:
    return str(rle.encode(np.asfortranarray(mask_HW, dtype=np.uint8))["counts"].decode())


def random_mask(seed: int) -> Any:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.3


@given(
    few=st.lists(A_PICTURE, min_size=1, max_size=3),
    count=st.sampled_from([1, PICTURES_PER_GROUP - 1, PICTURES_PER_GROUP, PICTURES_PER_GROUP + 1, 1500]),
    data=st.data(),
)
@settings(max_examples=25)
def test_pictures_come_back_as_they_were_written(
    few: list[Picture], count: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = [few[i % len(few)] for i in range(count)]
    pictures = write(tmp_path_factory.getbasetemp() / "pictures", expected)
    assert len(pictures) == count
    assert list(pictures) == expected
    place = data.draw(st.integers(-count, count - 1))
    assert pictures[place] == expected[place]
    assert pictures[-2:] == expected[-2:]


def numbered(count: int) -> list[Picture]:
    target = Target("t", ("text",), masks=(code(random_mask(0)),))
    return [Picture(str(i), "set", f"im/{i}.jpg", HEIGHT, WIDTH, None, (target,)) for i in range(count)]


def _id_of(pictures: Pictures, place: int) -> str:
    return pictures[place].id


def test_a_pickled_and_a_forked_copy_read_the_same(tmp_path: Path) -> None:
    pictures = write(tmp_path, numbered(100))
    assert pickle.loads(pickle.dumps(pictures))[77] == pictures[77]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(_id_of, [(pictures, k) for k in (3, 50, 99)]) == ["3", "50", "99"]


def test_the_fingerprint_tells_targets_apart(tmp_path: Path) -> None:
    one, two = (Target("t", (text,), masks=(code(random_mask(0)),)) for text in ("left", "right"))
    first = write(tmp_path / "a", [picture(one)]).fingerprint()
    assert write(tmp_path / "b", [picture(one)]).fingerprint() == first
    assert write(tmp_path / "c", [picture(two)]).fingerprint() != first


def test_a_mask_is_the_union_of_its_parts_without_what_does_not_count(tmp_path: Path) -> None:
    a, b, ignored = (random_mask(seed) for seed in (1, 2, 3))
    target = Target("t", ("x",), masks=(code(a), code(b)), ignore=code(ignored))
    pictures = write(tmp_path, [picture(target)])
    found = pictures.mask(pictures[0], target)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.where(ignored, 255, a | b))


def test_a_value_is_taken_from_the_label_map_and_nothing_is_there_where_there_is_no_target(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH))
    save_map(tmp_path / "maps/a.png", values)
    of_value, absent = Target("v", ("x",), value=3), Target("n", ("y",))
    shown = picture(of_value, absent, label_map="maps/a.png")
    pictures = write(tmp_path / "out", [shown], tmp_path, ("im", "maps"))
    np.testing.assert_array_equal(pictures.mask(shown, of_value), values == 3)
    assert absent.absent
    assert not of_value.absent
    assert not pictures.mask(shown, absent).any()


@pytest.mark.parametrize("kind", ["damaged", "other size", "several channels", "none"])
def test_a_label_map_that_cannot_be_used_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "im/a.png"
    save_map(path, np.zeros((3, 3)))
    if kind == "damaged":
        path.write_bytes(b"no picture")
    if kind == "several channels":
        save_picture(path)
    target = Target("v", ("x",), value=3)
    shown = picture(target, label_map=None if kind == "none" else "im/a.png")
    pictures = write(tmp_path / "out", [shown], tmp_path)
    with pytest.raises(RiceError, match="a\\.png|no label map"):
        pictures.mask(shown, target)


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    target = Target("t7", ("x",), masks=("garbage~",))
    pictures = write(tmp_path, [picture(target)])
    with pytest.raises(RiceError, match="'t7' of set"):
        pictures.mask(pictures[0], target)


def test_a_picture_is_turned_only_where_its_size_calls_for_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    stored = Image.fromarray(np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(WIDTH, HEIGHT, 3))
    (tmp_path / "im").mkdir()
    stored.save(tmp_path / "im/a.png", exif=exif)
    target = Target("t", ("x",))
    upright = Picture("a", "set", "im/a.png", HEIGHT, WIDTH, None, (target,))
    as_stored = Picture("b", "set", "im/a.png", WIDTH, HEIGHT, None, (target,))
    other = Picture("c", "set", "im/a.png", WIDTH, WIDTH, None, (target,))
    pictures = write(tmp_path / "out", [upright, as_stored, other], tmp_path)
    np.testing.assert_array_equal(pictures.open_image(as_stored), stored)
    np.testing.assert_array_equal(pictures.open_image(upright), np.rot90(np.asarray(stored), -1))
    with pytest.raises(RiceError, match="expected 30x30"):
        pictures.open_image(other)


def test_the_picture_folder_may_be_a_link_and_what_lies_in_it_may_not_lead_out(tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk"
    save_picture(elsewhere / "a.jpg")
    secret = save_picture(tmp_path / "secret.jpg")
    (elsewhere / "out.jpg").symlink_to(secret)
    (elsewhere / "in.jpg").symlink_to(elsewhere / "a.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/im").symlink_to(elsewhere)
    assert files_in(tmp_path / "root/im") == {"a.jpg", "in.jpg"}
    assert files_in(tmp_path / "root", ("im", "absent")) == {"im/a.jpg", "im/in.jpg"}
    target = Target("t", ("x",))
    pictures = write(tmp_path / "prepared", [picture(target)], tmp_path / "root")
    assert pictures.open_image(pictures[0]).size == (WIDTH, HEIGHT)
    for name in ("im/out.jpg", "im/../../secret.jpg", "other/a.jpg", "/etc/passwd"):
        with pytest.raises(UnsafePathError):
            pictures.open_image(picture(target, image=name))


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected a folder of prepared pictures"):
        Pictures(tmp_path)
    pictures = write(tmp_path, numbered(3))
    write_json(tmp_path / ABOUT, {**pictures.about, "counts": {"pictures": 4}})
    with pytest.raises(RiceError, match="is not the one that"):
        Pictures(tmp_path)
    write_json(tmp_path / ABOUT, {**pictures.about, "format": 0})
    with pytest.raises(RiceError, match="another version"):
        Pictures(tmp_path)
    write_json(tmp_path / ABOUT, pictures.about)
    (tmp_path / TABLE).write_bytes(b"")
    with pytest.raises(RiceError, match="cannot read"):
        Pictures(tmp_path)


def test_a_writer_that_is_killed_leaves_no_folder_that_looks_whole(tmp_path: Path) -> None:
    write(tmp_path, numbered(3))

    def half() -> Any:
        yield from numbered(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pictures(tmp_path, {"name": "set", "split": "train", "root": "", "folders": []}, half(), Refusals())
    with pytest.raises(RiceError, match="expected a folder of prepared pictures"):
        Pictures(tmp_path)


def test_refusals_are_counted_and_the_first_ones_named() -> None:
    refusals = Refusals()
    for k in range(30):
        refusals.add("no mask", k)
    refusals.add("empty text", "half \udce9")
    assert refusals.as_json()["no mask"] == {"count": 30, "first": [str(k) for k in range(20)]}
    assert refusals.lines() == ["no mask: 30 (0, 1, 2, ...)", "empty text: 1 (half \\udce9)"]


@given(words=st.text())
def test_a_clean_text_has_single_spaces_and_can_be_written(words: str) -> None:
    found = clean(words)
    if found is not None:
        assert found == " ".join(words.split())
        found.encode()
    assert clean(f"\ud800{words}") is None
    assert clean(" \n\t ") is None
    assert clean(7) is None
