"""Clips of one's own, as pictures or videos; what the others' marks do not claim."""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from probes.protocol import NotThisLayoutError
from rice.data.video import write_video
from rice.errors import RiceError
from tracking.layouts import BENCHMARKS, find_benchmark, fingerprint, open_split

Tree = Callable[[Mapping[str, str]], Path]


@pytest.mark.parametrize("inside", ["", "img/", "imgs/"])
@pytest.mark.parametrize("delimiter", [",", "\t", " "])
def test_clips_hold_pictures_and_truth(tree: Tree, inside: str, delimiter: str) -> None:
    files = {f"dog/{inside}{number}.JPG": "" for number in (9, 10, 11)}
    root = tree(
        {**files, "dog/groundtruth.txt": "1,2,3,4\n5,6,7,8\n0,0,0,0".replace(",", delimiter), "notes/a.txt": ""}
    )
    benchmark = find_benchmark(root)
    assert (benchmark.name, benchmark.splits(root), benchmark.role(root)) == ("folder", ("test",), {"test": "test"})
    (sequence,) = open_split(root, "test")
    assert (sequence.benchmark, sequence.name, sequence.absent, sequence.origin) == ("folder", "dog", None, 0)
    assert sequence.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]]
    assert [sequence.frames.path(i).name for i in range(3)] == ["9.JPG", "10.JPG", "11.JPG"]  # type: ignore[union-attr]
    (alone,) = open_split(root / "dog", "test")
    assert alone.name == "dog"
    assert alone.boxes.tolist() == sequence.boxes.tolist()


def test_the_first_box_is_enough(tree: Tree) -> None:
    (sequence,) = open_split(tree({"groundtruth.txt": "1,2,5,2,5,6,1,6\n", "a.png": "", "b.png": ""}), "test")
    assert sequence.withheld
    assert sequence.boxes.tolist() == [[1, 2, 4, 4]]


@pytest.mark.parametrize("folder", ["", "own/"])
def test_videos_have_the_name_of_their_truth(tree: Tree, folder: str) -> None:
    root = tree({f"{folder}walk.txt": "1 2 3 4\n", f"{folder}other.txt": "no box"})
    frames = [np.full((16, 24, 3), level, dtype=np.uint8) for level in (0, 100, 200)]
    write_video(root / folder / "walk.mp4", frames, Fraction(5))
    (root / folder / "talk.mp4").touch()
    (sequence,) = open_split(root, "test")
    assert (sequence.name, len(sequence), sequence.withheld) == ("walk", 3, True)
    assert [round(float(image.mean()) / 100) for image in sequence.frames.stream()] == [0, 1, 2]
    before = fingerprint(root, "test")
    (root / folder / "walk.txt").write_text("1 2 3 4\n" * 2)
    assert fingerprint(root, "test") != before
    own = root / folder
    message = f"{own / 'walk.txt'} has 2 boxes, expected one for each of the 3 frames of {own / 'walk.mp4'}"
    with pytest.raises(RiceError, match=re.escape(message)):
        open_split(root, "test")
    (root / folder / "walk.txt").write_text("24 2 3 4\n")
    with pytest.raises(RiceError, match="line 1: the first box 24, 2, 3, 4 lies wholly outside its frame of 24 x 16"):
        open_split(root, "test")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"groundtruth.txt": "1,2,3,4\n1,2,3,4\n"},
            "groundtruth.txt has 2 boxes, expected .* 3 frames of .* or the first only",
        ),
        ({"groundtruth.txt": "1,2,3\n"}, "groundtruth.txt line 1: expected 4 or 8 numbers"),
        (
            {"groundtruth.txt": "1,1,1,5,1,9,1,2\n"},
            "groundtruth.txt line 1: expected a box with an area .* got 1, 1, 0, 8",
        ),
        ({"groundtruth.txt": "\n"}, "groundtruth.txt is empty"),
        ({"imgs/1.jpg": ""}, " has img and imgs; keep the frames in one"),
    ],
)
def test_damage_is_named(tree: Tree, files: dict[str, str], message: str) -> None:
    whole = {"groundtruth.txt": "1,2,3,4\n", "img/1.jpg": "", "img/2.jpg": "", "img/3.jpg": ""}
    root = tree({f"a/{name}": text for name, text in {**whole, **files}.items()})
    with pytest.raises(RiceError, match=f"{re.escape(str(root / 'a'))}.?{message}"):
        open_split(root, "test")


def test_a_clip_without_pictures_is_named(tree: Tree) -> None:
    root = tree({"a/groundtruth.txt": "1,2,3,4\n"})
    with pytest.raises(RiceError, match=re.escape(f"in {root / 'a'}, found none")):
        open_split(root, "test")


def test_a_name_is_one_clip(tree: Tree) -> None:
    root = tree({"a/groundtruth.txt": "1,2,3,4\n", "a/1.png": "", "a.txt": "1,2,3,4\n", "a.mp4": ""})
    with pytest.raises(RiceError, match="groundtruth.txt: .*a.txt is called 'a' too"):
        open_split(root, "test")


def test_unknown_splits_and_benchmarks_are_told_those_there(tree: Tree) -> None:
    root = tree({"groundtruth.txt": "1,2,3,4\n", "1.png": ""})
    with pytest.raises(RiceError, match=r"no split 'train' of folder at .* Found: test"):
        open_split(root, "train")
    with pytest.raises(RiceError, match=r"unknown benchmark 'got10'. Did you mean got10k\?.* Known: got10k, lasot, tr"):
        open_split(root, "test", benchmark="got10")
    for benchmark in BENCHMARKS[:-1]:
        with pytest.raises(NotThisLayoutError, match=f"no {benchmark.name} at .*: expected "):
            find_benchmark(root, benchmark.name)
        with pytest.raises(RiceError, match=f"no split 'x' of {benchmark.name} at .* Expected |testing_set.txt"):
            benchmark.clips(root, "x")


def test_where_there_is_nothing_all_that_was_looked_for_is_named(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(NotThisLayoutError, match="expected a folder of tracking data, found none"):
        find_benchmark(tmp_path / "nowhere")
    root = tree({"pictures/cat/1.jpg": ""})
    with pytest.raises(NotThisLayoutError) as error:
        find_benchmark(root)
    assert all(f"{benchmark.name}: {benchmark.expects}" in str(error.value) for benchmark in BENCHMARKS)
    assert [benchmark.name for benchmark in BENCHMARKS] == ["got10k", "lasot", "trackingnet", "tnl2k", "folder"]


def test_folders_in_clips_are_not_taken_for_lasot(tree: Tree) -> None:
    clip = {"groundtruth.txt": "1,2,3,4\n", "1.jpg": "", "camera-1/full_occlusion.txt": "0"}
    root = tree({f"{name}/{file}": text for name in ("a", "b") for file, text in clip.items()})
    assert [sequence.name for sequence in open_split(root, "test")] == ["a", "b"]


def test_a_name_overrules_the_marks(tree: Tree) -> None:
    """TNL2K without its sentences looks like anybody's clips."""
    root = tree({"a/groundtruth.txt": "1,2,3,4\n", "a/imgs/x.jpg": ""})
    assert find_benchmark(root).name == "folder"
    (sequence,) = open_split(root, "test", benchmark="tnl2k")
    assert sequence.benchmark == "tnl2k"


@pytest.mark.data
def test_a_real_clip_of_vot(shared_data: Path) -> None:
    (sequence,) = open_split(shared_data / "tracking" / "vot15_bag", "test")
    assert (sequence.name, len(sequence), sequence.withheld) == ("vot15_bag", 196, False)
    assert sequence.frames.pattern == "%08d.jpg"  # type: ignore[union-attr]
    x, y, width, height = sequence.boxes[0].tolist()
    assert (x, y) == (291.827, 124.711)
    assert (x + width, y + height) == pytest.approx((442.173, 264.289))
    assert sequence.visible.all()
    image = next(sequence.frames.stream())
    assert (sequence.boxes[:, :2] + sequence.boxes[:, 2:] <= np.array(image.shape[1::-1]) + 1).all()
