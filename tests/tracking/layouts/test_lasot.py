"""LaSOT as its archives unpack: boxes lose the one that MATLAB counts from; absence comes from two files."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from rice.errors import RiceError
from tracking.layouts import find_benchmark, open_split

Tree = Callable[[Mapping[str, str]], Path]

ONE = {
    "groundtruth.txt": "367,101,41,16\n1,1,41,16\n0,-2,0,0\n",
    "full_occlusion.txt": "0,1,0\n",
    "out_of_view.txt": "0,0,1",
    "nlp.txt": "white airplane landing on ground\n",
    "img/00000001.jpg": "",
    "img/00000002.jpg": "",
    "img/00000003.jpg": "",
}
OTHER = {
    "groundtruth.txt": "5,6,7,8\n",
    "full_occlusion.txt": "0\n",
    "out_of_view.txt": "0\n",
    "img/00000001.jpg": "",
}
FILES = {
    "testing_set.txt": "airplane-1",
    **{f"airplane/airplane-1/{name}": text for name, text in ONE.items()},
    **{f"airplane/airplane-2/{name}": text for name, text in OTHER.items()},
    **{f"bear/bear-10/{name}": text for name, text in OTHER.items()},
    **{f"bear/bear-9/{name}": text for name, text in OTHER.items()},
}


def test_boxes_count_from_zero_and_either_file_makes_absent(tree: Tree) -> None:
    root = tree(FILES)
    (sequence,) = open_split(root, "test")
    assert (sequence.benchmark, sequence.name, sequence.origin) == ("lasot", "airplane-1", 1)
    assert sequence.boxes.tolist() == [[366, 100, 41, 16], [0, 0, 41, 16], [-1, -3, 0, 0]]
    assert sequence.absent is not None
    assert sequence.absent.tolist() == [False, True, True]
    assert sequence.visible.tolist() == [True, False, False]
    assert sequence.frames.path(0) == root / "airplane/airplane-1/img/00000001.jpg"  # type: ignore[union-attr]


def test_all_that_does_not_test_trains(tree: Tree) -> None:
    assert [s.name for s in open_split(tree(FILES), "train")] == ["airplane-2", "bear-9", "bear-10"]


def test_a_list_of_training_sequences_is_followed(tree: Tree) -> None:
    root = tree({**FILES, "training_set.txt": "bear-10\nairplane-2\n"})
    assert [s.name for s in open_split(root, "train")] == ["bear-10", "airplane-2"]


def test_flat_folders_are_read_too(tree: Tree) -> None:
    root = tree({re.sub("^(airplane|bear)/", "", name): text for name, text in FILES.items()})
    assert find_benchmark(root).name == "lasot"
    assert [s.name for s in open_split(root, "test")] == ["airplane-1"]
    assert [s.name for s in open_split(root, "train")] == ["airplane-2", "bear-9", "bear-10"]


def test_splits_are_those_that_have_sequences(tree: Tree) -> None:
    root = tree(FILES)
    benchmark = find_benchmark(root)
    assert (benchmark.name, benchmark.splits(root)) == ("lasot", ("train", "test"))
    assert benchmark.role(root) == {"train": "train", "test": "test"}
    tree({"testing_set.txt": "airplane-1\nairplane-2\nbear-9\nbear-10\n"})
    assert benchmark.role(root) == {"test": "test"}
    with pytest.raises(RiceError, match=r"no split 'train' of lasot at .* Found: test"):
        open_split(root, "train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_without_the_list_its_source_is_named(tree: Tree, split: str) -> None:
    root = tree({name: text for name, text in FILES.items() if name != "testing_set.txt"})
    assert find_benchmark(root).splits(root) == ("train", "test")
    message = (
        f"expected {root / 'testing_set.txt'}, which names the test sequences, found none; .*LaSOT_Evaluation_Toolkit"
    )
    with pytest.raises(RiceError, match=message):
        open_split(root, split)


def test_a_training_list_alone_is_enough_to_train(tree: Tree) -> None:
    root = tree({name: text for name, text in FILES.items() if name != "testing_set.txt"})
    (root / "training_set.txt").write_text("bear-9\n")
    assert find_benchmark(root).role(root) == {"train": "train"}
    assert [s.name for s in open_split(root, "train")] == ["bear-9"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "groundtruth.txt",
            "1,2,3,4\n1,2,3,4\n",
            "groundtruth.txt has 2 boxes, expected one for each of the 3 frames of",
        ),
        ("groundtruth.txt", "9,9,9,9\n", "groundtruth.txt has 1 boxes, expected one for each of the 3 frames of"),
        (
            "groundtruth.txt",
            "1\t2\t3\t4\n" * 3,
            "groundtruth.txt line 1: expected 4 numbers separated by commas, got 4 sep",
        ),
        ("groundtruth.txt", "1 2 3 4\n" * 3, "got 4 separated by spaces"),
        ("groundtruth.txt", "3,4,0,5\n" * 3, "groundtruth.txt line 1: expected a box with an area .*, got 3, 4, 0, 5"),
        ("full_occlusion.txt", "0,1\n", "full_occlusion.txt has 2 values, expected one for each of the 3 frames of"),
        ("out_of_view.txt", "0,1,2\n", "out_of_view.txt line 1: value 3: expected 0 or 1, got '2'"),
        ("out_of_view.txt", "", "out_of_view.txt is empty"),
        ("img/00000000.jpg", "", "img counts from 0 .00000000.jpg., expected 1 .00000001.jpg."),
        ("img/00000007.jpg", "", "img: expected 00000004.jpg, there is none; the last of 4 frames is 00000007.jpg"),
    ],
)
def test_damage_is_named(tree: Tree, file: str, text: str, message: str) -> None:
    root = tree({**FILES, f"airplane/airplane-1/{file}": text})
    with pytest.raises(RiceError, match=f"{re.escape(str(root / 'airplane/airplane-1'))}.*{message}"):
        open_split(root, "test")


@pytest.mark.parametrize("file", ["groundtruth.txt", "full_occlusion.txt", "out_of_view.txt"])
def test_missing_files_are_named(tree: Tree, file: str) -> None:
    root = tree(FILES)
    path = root / "airplane/airplane-1" / file
    path.unlink()
    with pytest.raises(RiceError, match=re.escape(f"cannot read {path}")):
        open_split(root, "test")


def test_a_first_box_is_outside_by_its_own_counting(tree: Tree) -> None:
    root = tree(FILES)
    Image.new("RGB", (367, 101)).save(root / "airplane/airplane-1/img/00000001.jpg")
    assert len(open_split(root, "test")) == 1
    Image.new("RGB", (366, 101)).save(root / "airplane/airplane-1/img/00000001.jpg")
    message = "groundtruth.txt line 1: the first box 367, 101, 41, 16 lies wholly outside .*does the file count from 0"
    with pytest.raises(RiceError, match=message):
        open_split(root, "test")


def test_lists_and_folders_must_agree(tree: Tree) -> None:
    root = tree({**FILES, "testing_set.txt": "airplane-1\nairplane-3\n"})
    with pytest.raises(RiceError, match="testing_set.txt line 2: there is no folder of the sequence 'airplane-3'"):
        open_split(root, "test")
    tree({"testing_set.txt": "../airplane-1\n"})
    with pytest.raises(RiceError, match="testing_set.txt line 1: expected a file name inside"):
        open_split(root, "test")
    tree({"testing_set.txt": "airplane-1\n", "airplane-1/groundtruth.txt": "1,2,3,4\n"})
    with pytest.raises(RiceError, match="airplane-1: the sequence is also at .*airplane-1; remove one of the two"):
        open_split(root, "test")
