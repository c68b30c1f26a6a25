"""TNL2K, whose frames follow no rule, and whose absent frames are boxes of zeros."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rice.errors import RiceError
from tracking.layouts import find_benchmark, fingerprint, open_split

Tree = Callable[[Mapping[str, str]], Path]

CLIP = {
    "groundtruth.txt": "633,320,20,23\n0,0,0,0\n393,142,8,0\n",
    "language.txt": "the man in black",
    "imgs/img_2.png": "",
    "imgs/img_10.png": "",
    "imgs/img_1.png": "",
}


def clip(folder: str, **changes: str) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in {**CLIP, **changes}.items()}


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("", "test"),
        ("test/", "test"),
        ("train/", "train"),
        ("TNL2K_test_subset/", "test"),
        ("TNL2K_train_subset/", "train"),
    ],
)
def test_clips_are_found_where_they_unpack(tree: Tree, folder: str, split: str) -> None:
    root = tree(clip(f"{folder}Sord_video_Q01_done"))
    benchmark = find_benchmark(root)
    assert (benchmark.name, benchmark.splits(root), benchmark.role(root)) == ("tnl2k", (split,), {split: split})
    (sequence,) = open_split(root, split)
    assert (sequence.benchmark, sequence.name, sequence.origin) == ("tnl2k", "Sord_video_Q01_done", 0)
    assert sequence.boxes.tolist() == [[633, 320, 20, 23], [0, 0, 0, 0], [393, 142, 8, 0]]


def test_frames_are_in_natural_order(tree: Tree) -> None:
    (sequence,) = open_split(tree(clip("a")), "test")
    frames = sequence.frames
    assert [frames.path(i).name for i in range(3)] == ["img_1.png", "img_2.png", "img_10.png"]  # type: ignore[union-attr]
    assert frames.names == ("img_1.png", "img_2.png", "img_10.png")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("names", "pattern", "first"),
    [
        (["099.jpg", "100.jpg", "101.jpg"], "%03d.jpg", 99),
        (["a%b_7.jpg", "a%b_8.jpg", "a%b_9.jpg"], "a%%b_%01d.jpg", 7),
        (["9 x.png", "10 x.png", "11 x.png"], "%01d x.png", 9),
        (["1.jpg", "02.jpg", "3.jpg"], None, None),
        (["1.jpg", "2.png", "3.jpg"], None, None),
        (["a.jpg", "b.jpg", "c.jpg"], None, None),
    ],
)
def test_names_that_follow_a_number_are_not_kept(
    tree: Tree, names: list[str], pattern: str | None, first: int | None
) -> None:
    files = {name: text for name, text in clip("a").items() if "/imgs/" not in name}
    (sequence,) = open_split(tree({**files, **{f"a/imgs/{name}": "" for name in names}}), "test")
    frames = sequence.frames
    assert [frames.path(i).name for i in range(3)] == names  # type: ignore[union-attr]
    if pattern is None:
        assert frames.names == tuple(names)  # type: ignore[union-attr]
    else:
        assert (frames.names, frames.pattern, frames.first) == ((), pattern, first)  # type: ignore[union-attr]


def test_zeros_say_that_the_target_is_away_where_no_file_does(tree: Tree) -> None:
    (sequence,) = open_split(tree(clip("a")), "test")
    assert sequence.absent is not None
    assert sequence.absent.tolist() == [False, True, False]


@pytest.mark.parametrize("file", ["test/a/absent.txt", "absent/a.txt", "test/absent/a.txt", "annos/absent/a.txt"])
def test_flags_of_a_file_come_first(tree: Tree, file: str) -> None:
    root = tree({**clip("test/a"), file: "0 \n0 \n1 \n"})
    (sequence,) = open_split(root, "test")
    assert sequence.absent is not None
    assert sequence.absent.tolist() == [False, False, True]
    before = fingerprint(root, "test")
    assert fingerprint(tree({file: "0 \n1 \n1 \n"}), "test") != before


def test_the_known_flag_too_many_is_cut_and_no_other(tree: Tree) -> None:
    root = tree({**clip("advSamp_monitor_bikeyellow"), "absent/advSamp_monitor_bikeyellow.txt": "0\n1\n0\n0\n"})
    (sequence,) = open_split(root, "test")
    assert sequence.absent is not None
    assert sequence.absent.tolist() == [False, True, False]
    root = tree({"absent/advSamp_monitor_bikeyellow.txt": "0\n1\n0\n1\n"})
    with pytest.raises(RiceError, match="advSamp_monitor_bikeyellow.txt has 4 values, expected one for each of the 3"):
        open_split(root, "test")
    root = tree({**clip("a"), "absent/a.txt": "0\n1\n0\n0\n"})
    with pytest.raises(
        RiceError, match=re.escape(f"{root / 'absent/a.txt'} has 4 values, expected one for each of the 3")
    ):
        open_split(root, "test")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "a/groundtruth.txt",
            "1,2,3,4\n" * 4,
            " has 4 boxes, expected one for each of the 3 frames of .*revised_annotations",
        ),
        ("a/groundtruth.txt", "1 2 3 4\n" * 3, " line 1: expected 4 numbers separated by commas"),
        ("a/groundtruth.txt", "0,0,0,0\n" * 3, " line 1: expected a box with an area"),
        ("a/absent.txt", "0\n1\n3\n", " line 3: expected 0 or 1, got '3'"),
    ],
)
def test_damage_is_named(tree: Tree, file: str, text: str, message: str) -> None:
    root = tree({**clip("a"), file: text})
    with pytest.raises(RiceError, match=f"{re.escape(str(root / file))}{message}"):
        open_split(root, "test")


def test_missing_files_are_named(tree: Tree) -> None:
    root = tree({**clip("a"), **clip("b")})
    (root / "b/groundtruth.txt").unlink()
    with pytest.raises(RiceError, match=re.escape(f"cannot read {root / 'b/groundtruth.txt'}")):
        open_split(root, "test")
    for frame in (root / "a/imgs").iterdir():
        frame.unlink()
    with pytest.raises(RiceError, match=re.escape(f"in {root / 'a/imgs'}, found none")):
        open_split(root, "test")


def test_a_name_is_one_clip(tree: Tree) -> None:
    root = tree({**clip("test/a"), **clip("TNL2K_test_subset/a")})
    with pytest.raises(RiceError, match=r"test_subset.a.groundtruth.txt: .* is called 'a' too"):
        open_split(root, "test")
