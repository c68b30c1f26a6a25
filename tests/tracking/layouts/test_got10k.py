"""GOT-10k as its archives unpack; each damage is named by its file and line."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from rice.errors import RiceError
from rice.progress import SilentProgress
from tracking.layouts import find_benchmark, fingerprint, open_split

Tree = Callable[[Mapping[str, str]], Path]

META = """[METAINFO]
url: https://youtu.be/x
begin: 00:00:31
anno_fps: 10Hz
object_class: fox
motion_adverb: slowly
resolution: (1920, 1080)
"""
VAL = {
    "val/list.txt": "GOT-10k_Val_000002\nGOT-10k_Val_000001\n",
    "val/GOT-10k_Val_000001/groundtruth.txt": "347.0000,443.0000,429.0000,272.0000\n351.5,445.25,428,271\n0,0,0,0\n",
    "val/GOT-10k_Val_000001/absence.label": "0\n0\n1\n",
    "val/GOT-10k_Val_000001/cover.label": "8\n3\n0\n",
    "val/GOT-10k_Val_000001/cut_by_image.label": "0\n0\n0\n",
    "val/GOT-10k_Val_000001/meta_info.ini": META,
    "val/GOT-10k_Val_000001/00000001.jpg": "",
    "val/GOT-10k_Val_000001/._00000001.jpg": "what macOS leaves",
    "val/GOT-10k_Val_000001/00000002.jpg": "",
    "val/GOT-10k_Val_000001/00000003.jpg": "",
    "val/GOT-10k_Val_000002/groundtruth.txt": "1.0000,2.0000,3.0000,4.0000\n",
    "val/GOT-10k_Val_000002/absence.label": "0\n",
    "val/GOT-10k_Val_000002/cover.label": "8\n",
    "val/GOT-10k_Val_000002/00000001.jpg": "",
}
TEST = {
    "test/list.txt": "GOT-10k_Test_000001\n",
    "test/GOT-10k_Test_000001/groundtruth.txt": "489.0000,377.0000,356.0000,278.0000\n",
    "test/GOT-10k_Test_000001/00000001.jpg": "",
    "test/GOT-10k_Test_000001/00000002.jpg": "",
}
ONE = "val/GOT-10k_Val_000001"


def test_a_split_is_read_as_it_is_listed(tree: Tree) -> None:
    root = tree(VAL)
    second, first = open_split(root, "val")
    assert (first.benchmark, first.name, second.name) == ("got10k", "GOT-10k_Val_000001", "GOT-10k_Val_000002")
    assert first.boxes.tolist() == [[347, 443, 429, 272], [351.5, 445.25, 428, 271], [0, 0, 0, 0]]
    assert first.absent is not None
    assert first.absent.tolist() == [False, False, True]
    assert first.cover is not None
    assert first.cover.tolist() == [8, 3, 0]
    assert (first.size, second.size, first.origin, len(first), first.withheld) == ((1920, 1080), None, 0, 3, False)
    assert first.visible.tolist() == [True, True, False]
    assert first.frames.path(2) == root / ONE / "00000003.jpg"  # type: ignore[union-attr]
    assert first.frames.names == ()  # type: ignore[union-attr]


def test_the_truth_of_test_is_withheld(tree: Tree) -> None:
    (sequence,) = open_split(tree(TEST), "test")
    assert sequence.withheld
    assert len(sequence) == 2
    assert sequence.boxes.tolist() == [[489, 377, 356, 278]]
    assert sequence.absent is sequence.cover is sequence.size is None


def test_labels_of_test_are_read_where_somebody_has_them(tree: Tree) -> None:
    labels = {"absence.label": "0\n1\n", "cover.label": "4\n0\n", "groundtruth.txt": "1,2,3,4\n0,0,0,0\n"}
    root = tree({**TEST, **{f"test/GOT-10k_Test_000001/{name}": text for name, text in labels.items()}})
    (sequence,) = open_split(root, "test")
    assert sequence.absent is not None
    assert sequence.absent.tolist() == [False, True]
    assert sequence.cover is not None
    assert sequence.cover.tolist() == [4, 0]
    assert not sequence.withheld


def test_val_is_the_split_that_tests(tree: Tree) -> None:
    root = tree({**VAL, **TEST, "train/list.txt": "x\n"})
    benchmark = find_benchmark(root)
    assert benchmark.name == "got10k"
    assert benchmark.splits(root) == ("train", "val", "test")
    assert benchmark.role(root) == {"train": "train", "test": "val"}
    assert benchmark.role(tree({})) == {"train": "train", "test": "val"}


def test_without_val_nothing_tests(tree: Tree) -> None:
    root = tree(TEST)
    assert find_benchmark(root).role(root) == {}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "groundtruth.txt",
            "1,2,3,4\n1,2,3,4\n",
            "groundtruth.txt has 2 boxes, expected one for each of the 3 frames of",
        ),
        ("groundtruth.txt", "1,2,3,4\n", "groundtruth.txt has 1 boxes, expected one for each of the 3 frames of"),
        (
            "groundtruth.txt",
            "1\t2\t3\t4\n" * 3,
            "groundtruth.txt line 1: expected 4 numbers separated by commas, got 4 sep",
        ),
        ("groundtruth.txt", "1,2,3,4\n1,2,3\n1,2,3,4\n", "groundtruth.txt line 2: expected 4 numbers"),
        ("groundtruth.txt", "1,2,3,4\n1,2,3,4\n1,x,3,4\n", "groundtruth.txt line 3: expected numbers, got 'x'"),
        ("groundtruth.txt", "1,2,3,4,5,6,7,8\n" * 3, "groundtruth.txt line 1: expected 4 numbers"),
        ("groundtruth.txt", "", "groundtruth.txt is empty"),
        ("groundtruth.txt", "NaN,2,3,4\n" * 3, "groundtruth.txt line 1: expected a box with an area for a tracker to"),
        ("groundtruth.txt", "1,2,inf,4\n" * 3, "groundtruth.txt line 1: expected a box with an area for a tracker to"),
        ("groundtruth.txt", "1,2,3,0\n" * 3, "groundtruth.txt line 1: expected a box with an area for a tracker to"),
        (
            "groundtruth.txt",
            "1920,2,3,4\n" * 3,
            "line 1: the first box 1920, 2, 3, 4 lies wholly outside its frame of 1920 x",
        ),
        ("groundtruth.txt", "1,1080,3,4\n" * 3, "does the file count from 1"),
        ("groundtruth.txt", "-3,2,3,4\n" * 3, "groundtruth.txt line 1: the first box -3, 2, 3, 4 lies wholly outside"),
        ("groundtruth.txt", "1,-4,3,4\n" * 3, "groundtruth.txt line 1: the first box 1, -4, 3, 4 lies wholly outside"),
        ("absence.label", "0\n0\n", "absence.label has 2 values, expected one for each of the 3 frames of"),
        ("absence.label", "0\n2\n0\n", "absence.label line 2: expected 0 or 1, got '2'"),
        ("cover.label", "8\n8\n8\n8\n", "cover.label has 4 values, expected one for each of the 3 frames of"),
        ("cover.label", "8\n8\n9\n", "cover.label line 3: expected an integer from 0 to 8, got '9'"),
        (
            "meta_info.ini",
            "[METAINFO]\nresolution: 1920x1080\n",
            "meta_info.ini line 2: expected `resolution: (WIDTH, HEI",
        ),
        (
            "meta_info.ini",
            "resolution: (__import__('os'), 1)\n",
            "meta_info.ini line 1: expected `resolution: (WIDTH, HE",
        ),
        ("00000000.jpg", "", " counts from 0 (00000000.jpg), expected 1 (00000001.jpg)"),
        (
            "00000005.jpg",
            "",
            ": expected 00000004.jpg, there is none; the last of 4 frames is 00000005.jpg",
        ),
        ("preview.png", "", ": expected frames named like 00000001.jpg, got preview.png"),
        ("0004.jpg", "", ": expected frames named like 00000001.jpg, got 0004.jpg"),
    ],
)
def test_damage_is_named(tree: Tree, file: str, text: str, message: str) -> None:
    root = tree({**VAL, f"{ONE}/{file}": text})
    with pytest.raises(RiceError, match=f"{re.escape(str(root / ONE))}.*{re.escape(message)}") as error:
        open_split(root, "val")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["groundtruth.txt", "absence.label", "cover.label"])
def test_files_that_the_score_needs_are_a_must(tree: Tree, file: str) -> None:
    root = tree({name: text for name, text in VAL.items() if name != f"{ONE}/{file}"})
    with pytest.raises(RiceError, match=re.escape(f"cannot read {root / ONE / file}")):
        open_split(root, "val")


@pytest.mark.parametrize("gone", ["00000001.jpg", "00000002.jpg"])
def test_a_gap_in_the_frames_is_named(tree: Tree, gone: str) -> None:
    root = tree(VAL)
    (root / ONE / gone).unlink()
    with pytest.raises(
        RiceError, match=re.escape(f"{root / ONE}: expected {gone}, there is none; the last of 2 frames")
    ):
        open_split(root, "val")


def test_later_frames_may_have_no_box(tree: Tree) -> None:
    text = "1,2,3,4\nnan,nan,nan,nan\n5000,5000,1,inf\n"
    first = open_split(tree({**VAL, f"{ONE}/groundtruth.txt": text}), "val")[1]
    assert first.visible.tolist() == [True, False, False]


@pytest.mark.parametrize("box", ["0,0,0,0", "NaN,1,1,1", "5000,1,1,1"])
def test_a_sequence_to_learn_from_may_start_without_its_target(tree: Tree, box: str) -> None:
    """TrackingNet's and GOT-10k's training truth is not clean, and nobody starts a tracker there."""
    train = {name.replace("val/", "train/"): text for name, text in VAL.items()}
    start = {"train/GOT-10k_Val_000001/groundtruth.txt": f"{box}\n1,2,3,4\n1,2,3,4\n"}
    assert len(open_split(tree({**train, **start}), "train")) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("GOT-10k_Val_000001\nGOT-10k_Val_000003\n", "line 2: there is no folder of the sequence 'GOT-10k_Val_000003'"),
        ("GOT-10k_Val_000001\n\nGOT-10k_Val_000001\n", "line 3: 'GOT-10k_Val_000001' stands in line 1 already"),
        ("../val/GOT-10k_Val_000001\n", "line 1: expected a file name inside"),
        ("/etc\n", "line 1: expected a file name inside"),
        (".\n", "line 1: there is no folder of the sequence '.'"),
        ("GOT-10k_Val_000001/../GOT-10k_Val_000002\n", "line 1: expected a file name inside"),
        ("\n", " is empty"),
    ],
)
def test_names_that_lead_nowhere_are_named(tree: Tree, names: str, message: str) -> None:
    root = tree({**VAL, "val/list.txt": names})
    with pytest.raises(RiceError, match=re.escape(f"{root / 'val/list.txt'}") + ".*" + re.escape(message)):
        open_split(root, "val")


def test_an_unknown_split_is_told_those_there(tree: Tree) -> None:
    with pytest.raises(RiceError, match=r"no split 'vla' of got10k at .*Did you mean val\? Found: val$"):
        open_split(tree(VAL), "vla")


def test_without_a_stated_size_the_first_frame_has_it(tree: Tree) -> None:
    root = tree({**TEST, "test/GOT-10k_Test_000001/groundtruth.txt": "489,377,356,278\n"})
    Image.new("RGB", (640, 360)).save(root / "test/GOT-10k_Test_000001/00000001.jpg")
    with pytest.raises(RiceError, match="lies wholly outside its frame of 640 x 360 pixels"):
        open_split(root, "test")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (640, 360)).save(root / "test/GOT-10k_Test_000001/00000001.jpg", exif=turned)
    with pytest.raises(RiceError, match="lies wholly outside its frame of 360 x 640 pixels"):
        open_split(root, "test")
    Image.new("RGB", (490, 378)).save(root / "test/GOT-10k_Test_000001/00000001.jpg")
    assert len(open_split(root, "test")) == 1


def test_the_fingerprint_follows_names_truth_and_frames(tree: Tree) -> None:
    root = tree(VAL)
    prints = [fingerprint(root, "val")]
    for changes in (
        {"val/list.txt": "GOT-10k_Val_000001\nGOT-10k_Val_000002\n"},
        {f"{ONE}/groundtruth.txt": "347.0000,443.0000,429.0000,272.0000\n351,445,428,271\n0,0,0,0\n"},
        {f"{ONE}/cover.label": "8\n4\n0\n"},
        {f"{ONE}/meta_info.ini": META.replace("1920", "1280")},
        {f"{ONE}/00000004.jpg": ""},
    ):
        prints.append(fingerprint(tree(changes), "val"))
    assert len(set(prints)) == 6
    assert fingerprint(tree({f"{ONE}/notes.md": "seen", "train/list.txt": "x\n"}), "val") == prints[-1]
    assert fingerprint(root, "val", "got10k") == prints[-1]
    (root / ONE).rename(root / "val/renamed")
    tree({"val/list.txt": "renamed\nGOT-10k_Val_000002\n"})
    assert fingerprint(root, "val") not in prints
    assert re.fullmatch("[0-9a-f]{64}", prints[0])


def test_progress_counts_sequences(tree: Tree) -> None:
    seen = []

    class Counting(SilentProgress):
        def track(self, items: Iterable[object], description: str, total: int | None = None) -> Iterator[object]:  # type: ignore[override]
            seen.append((description, total))
            yield from items

    open_split(tree(VAL), "val", progress=Counting())
    assert seen == [("got10k val", 2)]
