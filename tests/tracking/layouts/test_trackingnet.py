"""TrackingNet as its devkit downloads it, in any number of parts."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rice.errors import RiceError
from tracking.layouts import find_benchmark, fingerprint, open_split

Tree = Callable[[Mapping[str, str]], Path]

FILES = {
    "TRAIN_0/anno/-1Y0OQNoMcc_0.txt": "0.0,148.0,104.0,196.0\n1.25,148.0,104.0,196.0\n",
    "TRAIN_0/frames/-1Y0OQNoMcc_0/0.jpg": "",
    "TRAIN_0/frames/-1Y0OQNoMcc_0/1.jpg": "",
    "TRAIN_11/anno/zzz_0.txt": "".join(f"{i},1,2,3\n" for i in range(11)),
    **{f"TRAIN_11/frames/zzz_0/{i}.jpg": "" for i in range(11)},
    "TRAIN_11/zips/zzz_0.zip": "",
    "TEST/anno/AbC_1.txt": "10,20,30,40\n",
    "TEST/frames/AbC_1/0.jpg": "",
    "TEST/frames/AbC_1/1.jpg": "",
    "TEST/frames/AbC_1/2.jpg": "",
}


def test_all_parts_are_read(tree: Tree) -> None:
    root = tree(FILES)
    first, second = open_split(root, "train")
    assert (first.benchmark, first.name, second.name) == ("trackingnet", "-1Y0OQNoMcc_0", "zzz_0")
    assert first.boxes.tolist() == [[0, 148, 104, 196], [1.25, 148, 104, 196]]
    assert (first.origin, first.absent, first.cover, first.size, first.withheld) == (0, None, None, None, False)
    assert second.frames.path(10) == root / "TRAIN_11/frames/zzz_0/10.jpg"  # type: ignore[union-attr]
    assert len(second) == 11


def test_test_has_the_first_box_only(tree: Tree) -> None:
    (sequence,) = open_split(tree(FILES), "test")
    assert sequence.withheld
    assert len(sequence) == 3
    assert sequence.boxes.tolist() == [[10, 20, 30, 40]]


def test_splits_are_those_there(tree: Tree) -> None:
    root = tree({name: text for name, text in FILES.items() if not name.startswith("TEST")})
    benchmark = find_benchmark(root)
    assert (benchmark.name, benchmark.splits(root), benchmark.role(root)) == (
        "trackingnet",
        ("train",),
        {"train": "train"},
    )
    with pytest.raises(RiceError, match="no split 'test' of trackingnet at .* Found: train"):
        open_split(root, "test")
    tree({name: text for name, text in FILES.items() if name.startswith("TEST")})
    assert benchmark.role(root) == {"train": "train", "test": "test"}


@pytest.mark.parametrize(
    ("split", "file", "text", "message"),
    [
        (
            "train",
            "TRAIN_0/anno/-1Y0OQNoMcc_0.txt",
            "1,2,3,4\n",
            "has 1 boxes, expected one for each of the 2 frames of",
        ),
        (
            "test",
            "TEST/anno/AbC_1.txt",
            "1,2,3,4\n" * 2,
            "has 2 boxes, expected one for each of the 3 frames of .* or the first",
        ),
        (
            "test",
            "TEST/anno/AbC_1.txt",
            "1 2 3 4\n",
            "line 1: expected 4 numbers separated by commas, got 4 separated by sp",
        ),
        ("test", "TEST/anno/AbC_1.txt", "1,2,0,0\n", "line 1: expected a box with an area"),
        ("test", "TEST/anno/AbC_1.txt", "", "is empty"),
    ],
)
def test_damaged_truth_is_named(tree: Tree, split: str, file: str, text: str, message: str) -> None:
    root = tree({**FILES, file: text})
    with pytest.raises(RiceError, match=f"{re.escape(str(root / file))} {message}"):
        open_split(root, split)


def test_frames_are_counted_from_zero(tree: Tree) -> None:
    root = tree(FILES)
    folder = root / "TEST/frames/AbC_1"
    (folder / "1.jpg").unlink()
    with pytest.raises(
        RiceError, match=re.escape(f"{folder}: expected 1.jpg, there is none; the last of 2 frames is 2.jpg")
    ):
        open_split(root, "test")
    (root / "TRAIN_11/frames/zzz_0/5.jpg").unlink()
    with pytest.raises(RiceError, match="zzz_0: expected 5.jpg, there is none; the last of 10 frames is 10.jpg"):
        open_split(root, "train")
    tree({"TEST/frames/AbC_1/1.jpg": ""})
    (folder / "0.jpg").unlink()
    with pytest.raises(RiceError, match=re.escape(f"{folder} counts from 1 (1.jpg), expected 0 (0.jpg)")):
        open_split(root, "test")
    for frame in folder.iterdir():
        frame.unlink()
    with pytest.raises(RiceError, match=re.escape(f"expected frames from 0.jpg on in {folder}, found no picture")):
        open_split(root, "test")
    folder.rmdir()
    with pytest.raises(RiceError, match=re.escape(f"cannot list the folder {folder}")):
        open_split(root, "test")
    with pytest.raises(RiceError, match=re.escape(f"cannot list the folder {folder}")):
        fingerprint(root, "test")


def test_a_video_is_in_one_part_only(tree: Tree) -> None:
    root = tree({**FILES, "TRAIN_3/anno/zzz_0.txt": "1,2,3,4\n"})
    message = f"{root / 'TRAIN_11/anno/zzz_0.txt'}: {root / 'TRAIN_3/anno/zzz_0.txt'} is called 'zzz_0' too"
    with pytest.raises(RiceError, match=re.escape(message)):
        open_split(root, "train")


def test_a_part_without_annotations_is_named(tree: Tree) -> None:
    root = tree({"TEST/anno/README": "", "TEST/frames/a/0.jpg": ""})
    with pytest.raises(RiceError, match=re.escape(f"expected VIDEO.txt in {root / 'TEST/anno'}, found none")):
        open_split(root, "test")
