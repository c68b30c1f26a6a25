"""REFER's files as targets: masks as pycocotools has them, and whatever cannot be used is counted by its reason."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lisa_tree import HEIGHT, SQUARE, TRAIN2014, TRIANGLE, WIDTH, annotation, referent, write_refer
from pycocotools import mask as rle

from mllm.lisa.pictures import Picture, Pictures
from mllm.lisa.pictures_writer import Refusals, write_pictures
from mllm.lisa.refer import read_refer, read_referents
from rice.errors import RiceError
from rice.progress import SilentProgress

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools


def read(folder: Path, file: str, split: str) -> tuple[list[Picture], dict[str, Any]]:
    root, refusals = folder.parents[1], Refusals()
    where = {"root": root, "source": folder.name, "images": TRAIN2014}
    found = read_refer(
        folder / file, folder / "instances.json", split, refusals=refusals, progress=SilentProgress(), **where
    )
    return list(found), refusals.as_json()


def drawn(*polygons: list[list[float]]) -> Any:
    """The union, by pycocotools."""
    return rle.decode(rle.frPyObjects([p for part in polygons for p in part], HEIGHT, WIDTH)).any(axis=2)


def masks(folder: Path, pictures: list[Picture]) -> dict[str, Any]:
    """Target -> its mask, through a prepared folder."""
    about = {"name": "x", "split": "y", "root": str(folder.parents[1]), "folders": [TRAIN2014]}
    write_pictures(folder / "prepared", about, pictures, Refusals())
    kept = Pictures(folder / "prepared")
    return {target.id: kept.mask(picture, target) for picture in kept for target in picture.targets}


def test_referents_of_a_split_become_targets_of_their_pictures(tmp_path: Path) -> None:
    refs = [
        referent(7, 1, 10, "train", "the  square", "Left one"),
        referent(8, 2, 20, "train", "a square"),
        referent(9, 1, 11, "train", "the triangle"),
        referent(5, 1, 11, "val", "not now"),
    ]
    found = [annotation(10, 1, SQUARE), annotation(11, 1, TRIANGLE), annotation(20, 2, SQUARE)]
    folder = write_refer(tmp_path, "refcoco", "refs(unc).p", refs, found)
    pictures, refused = read(folder, "refs(unc).p", "train")
    assert refused == {}
    assert [(p.id, [(t.id, t.texts) for t in p.targets]) for p in pictures] == [
        ("1", [("7", ("the square", "Left one")), ("9", ("the triangle",))]),
        ("2", [("8", ("a square",))]),
    ]
    assert pictures[0].image == f"{TRAIN2014}/COCO_train2014_000000000001.jpg"
    for id_, mask in masks(folder, pictures).items():
        np.testing.assert_array_equal(mask, drawn(TRIANGLE if id_ == "9" else SQUARE))


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_of_any_protocol_and_json_give_the_same(protocol: int, tmp_path: Path) -> None:
    refs = [referent(7, 1, 10, "train", "the square"), referent(8, 2, 20, "val", "ein Hügel")]
    (tmp_path / "refs.p").write_bytes(pickle.dumps(refs, protocol))
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    assert read_referents(tmp_path / "refs.p") == read_referents(tmp_path / "refs.json")


def test_test_splits_are_refers(tmp_path: Path) -> None:
    splits = ["train", "testA", "testB", "testAB", "testBC", "test", "val"]
    refs = [referent(k, 1, 10, split, split) for k, split in enumerate(splits)]
    folder = write_refer(tmp_path, "refclef", "refs(unc).p", refs, [annotation(10, 1, SQUARE)])

    def texts(split: str) -> list[str]:
        pictures, _ = read(folder, "refs(unc).p", split)
        return [text for picture in pictures for target in picture.targets for text in target.texts]

    assert texts("testA") == ["testA", "testAB"]
    assert texts("testB") == ["testB", "testAB", "testBC"]
    assert texts("test") == ["testA", "testB", "testAB", "testBC", "test"]
    assert texts("val") == ["val"]


def test_several_annotations_are_a_union_and_minus_one_is_no_target(tmp_path: Path) -> None:
    refs = [
        referent(1, 1, [10, 11], "val", "both", no_target=False),
        referent(2, 1, [-1], "val", "the cat", no_target=True),
        referent(3, 2, [-1], "val", "a cat"),
    ]
    found = [annotation(10, 1, SQUARE), annotation(11, 1, TRIANGLE)]
    folder = write_refer(tmp_path, "grefcoco", "grefs(unc).json", refs, found)
    pictures, refused = read(folder, "grefs(unc).json", "val")
    assert refused == {}
    assert {t.id: t.absent for p in pictures for t in p.targets} == {"1": False, "2": True, "3": True}
    found_masks = masks(folder, pictures)
    np.testing.assert_array_equal(found_masks["1"], drawn(SQUARE, TRIANGLE))
    assert not found_masks["2"].any()


def test_run_lengths_of_either_form_and_lists_of_them_are_read(tmp_path: Path) -> None:
    a, b = drawn(SQUARE), drawn(TRIANGLE)
    text_a, text_b = (rle.encode(np.asfortranarray(m, dtype=np.uint8)) for m in (a, b))
    text_a, text_b = ({**one, "counts": one["counts"].decode()} for one in (text_a, text_b))
    flat = a.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    numbers = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, flat.size]).tolist()}
    found = [annotation(10, 1, numbers), annotation(11, 1, [text_a, text_b]), annotation(12, 1, text_b)]
    refs = [referent(k, 1, k, "train", "x") for k in (10, 11, 12)]
    folder = write_refer(tmp_path, "refclef", "refs(unc).p", refs, found)
    pictures, refused = read(folder, "refs(unc).p", "train")
    assert refused == {}
    for id_, mask in masks(folder, pictures).items():
        np.testing.assert_array_equal(mask, {"10": a, "11": a | b, "12": b}[id_])


def test_what_cannot_be_used_is_counted_by_reason_and_the_rest_stays(tmp_path: Path) -> None:
    refs = [
        referent(1, 1, 10, "train", "fine", " \n", "fine too"),
        referent(2, 1, 11, "train", "nothing drawn"),
        referent(3, 1, 12, "train", "damaged"),
        referent(4, 1, 13, "train", "a line"),
        referent(5, 1, 99, "train", "unknown annotation"),
        referent(6, 1, 20, "train", "on another picture"),
        referent(7, 3, 30, "train", "no file"),
        referent(8, 4, 10, "train", "unknown picture"),
        referent(9, 1, 10, "train", ""),
        referent(10, 1, 10, "train"),
        referent(11, 1, [10, 11], "train", "half of it is not drawn"),
        referent(12, 1, 10, "train", "half a character \ud800"),
        referent(1, 1, 10, "train", "the id of the first one"),
        referent(13, 1, [10], "train", "there and not there", no_target=True),
        referent(14, 1, [-1], "train", "not there and there", no_target=False),
    ]
    found = [
        annotation(10, 1, SQUARE),
        annotation(11, 1, []),
        annotation(12, 1, [[1.0, 2.0, 3.0]]),
        annotation(13, 1, [[1.0, 2.0, 3.0, 2.0]]),
        annotation(20, 2, SQUARE),
        annotation(30, 3, SQUARE),
    ]
    folder = write_refer(tmp_path, "refcoco", "grefs(unc).json", refs, found)
    pictures, refused = read(folder, "grefs(unc).json", "train")
    assert [(t.id, t.texts) for p in pictures for t in p.targets] == [("1", ("fine", "fine too"))]
    assert {reason: found["first"] for reason, found in refused.items()} == {
        "empty text": ["1", "9", "10", "12"],
        "its annotation has no segmentation": ["2", "11"],
        "its id is used twice": ["1"],
        "its no_target says another thing than its ann_id": ["13", "14"],
        "its segmentation is damaged": ["3"],
        "its mask has no pixel": ["4"],
        "its annotation is not in instances.json": ["5"],
        "its annotation is one of another picture": ["6"],
        "missing picture file": ["7"],
        "its picture is not in instances.json": ["8"],
    }


BROKEN: dict[str, Any] = {
    "expected a list of referents": {},
    "expected an object at position 0": ["text"],
    "as ref_id": [referent("one", 1, 1, "train", "x")],
    "as image_id": [referent(1, True, 1, "train", "x")],
    "as ann_id": [referent(1, 1, "10", "train", "x")],
    r"\[-1\] alone": [referent(1, 1, [-1, 10], "train", "x")],
    "as ann_id, got \\[\\]": [referent(1, 1, [], "train", "x")],
    "as split": [referent(1, 1, 10, None, "x")],
    "as sentences": [{**referent(1, 1, 10, "train"), "sentences": ["x"]}],
    "at most 1000 sentences": [{**referent(1, 1, 10, "train"), "sentences": [{}] * 1001}],
    "an integer as image_id": [referent(1, 2**70, 10, "train", "x")],
}


@pytest.mark.parametrize("message", BROKEN)
def test_another_layout_ends_in_one_line_that_names_the_file(message: str, tmp_path: Path) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps(BROKEN[message], 2))
    with pytest.raises(RiceError, match=message) as caught:
        read_referents(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from(["ref_id", "image_id", "ann_id", "split", "sentences", "no_target"]), value=ANYTHING)
@settings(max_examples=200)
def test_a_referent_with_anything_in_it_is_read_or_ends_in_one_line(
    key: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "refs(unc).p"
    path.write_bytes(pickle.dumps([{**referent(1, 1, 10, "train", "x"), key: value}], 4))
    said = ""
    try:
        read_referents(path)
    except RiceError as error:
        said = str(error)
    assert "\n" not in said
