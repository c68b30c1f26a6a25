"""Words in ICDAR's layouts: whatever a truth file may hold is read, or refused in one line that names it."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rice.data.icdar import ICDAR_2015, TextBox, find_splits, read_split, read_truth
from rice.errors import RiceError

QUAD = "1,2,11,2,11,7,1,7"
PRINTABLE = st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff")


def folders(root: Path, truths: dict[str, bytes], pictures: tuple[str, ...] | None = None) -> tuple[Path, Path]:
    """Folders of pictures and of truth; a picture for each truth where they are not named."""
    shown, told = root / "pictures", root / "truths"
    shown.mkdir(parents=True)
    told.mkdir()
    for name, data in truths.items():
        (told / name).write_bytes(data)
    for name in pictures if pictures is not None else [f"{Path(t).stem.removeprefix('gt_')}.png" for t in truths]:
        Image.new("RGB", (20, 10)).save(shown / name)
    return shown, told


def read(tmp_path: Path, data: bytes) -> list[TextBox]:
    truth = tmp_path / "gt_img_1.txt"
    truth.write_bytes(data)
    return list(read_truth(truth, tmp_path / "img_1.jpg"))


@given(
    words=st.lists(st.text(PRINTABLE, max_size=12), max_size=5),
    mark=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_any_transcription_comes_back_whole(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], mark: bool, ending: str, last: bool
) -> None:
    text = ending.join(f"{QUAD},{word}" for word in words) + (ending if last else "")
    found = read(tmp_path_factory.mktemp("truth"), text.encode("utf-8-sig" if mark else "utf-8"))
    assert [box.text for box in found] == words
    assert [box.line for box in found] == list(range(1, len(words) + 1))
    assert {box.box for box in found} <= {(1, 2, 11, 7)}


def test_commas_belong_to_the_transcription_and_illegible_words_are_marked(tmp_path: Path) -> None:
    found = read(tmp_path, f"{QUAD},12,50 EUR, net\r\n{QUAD},###\r\n\r\n{QUAD},寿司\r\n".encode("utf-8-sig"))
    assert [box.text for box in found] == ["12,50 EUR, net", "###", "寿司"]
    assert [box.legible for box in found] == [True, False, True]
    assert [box.line for box in found] == [1, 2, 4]


@given(corners=st.lists(st.integers(-50, 5000), min_size=8, max_size=8))
def test_the_box_surrounds_every_corner_and_touches_one_on_each_side(
    tmp_path_factory: pytest.TempPathFactory, corners: list[int]
) -> None:
    (found,) = read(tmp_path_factory.mktemp("truth"), (",".join(map(str, corners)) + ",word").encode())
    left, top, right, bottom = found.box
    points = list(zip(found.quad[::2], found.quad[1::2], strict=True))
    assert all(left <= x <= right and top <= y <= bottom for x, y in points)
    assert {left, right} <= {x for x, _ in points}
    assert {top, bottom} <= {y for _, y in points}


@pytest.mark.parametrize(
    "line", ["1,2,3,4,5,6,7,word", "1,2,3,4,5,6,7,x,word", "nan,2,3,4,5,6,7,8,word", "word", "1 2 3 4 5 6 7 8 word"]
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(RiceError, match=r"gt_img_1\.txt, line 2: expected x1,y1,.*got") as caught:
        read(tmp_path, f"{QUAD},fine\n{line}\n".encode())
    assert "\n" not in str(caught.value)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    before = f"{QUAD},caf".encode()
    with pytest.raises(RiceError, match=rf"gt_img_1\.txt: expected UTF-8, got other bytes at {len(before)}"):
        read(tmp_path, before + "é".encode("latin-1"))


def test_a_missing_picture_and_missing_truth_are_one_clear_line(tmp_path: Path) -> None:
    word = f"{QUAD},word".encode()
    with pytest.raises(RiceError, match=r"gt_img_2\.txt: expected its picture in .*pictures, found none") as caught:
        read_split(*folders(tmp_path / "a", {"gt_img_1.txt": word, "gt_img_2.txt": word}, ("img_1.jpg",)))
    assert "\n" not in str(caught.value)
    with pytest.raises(RiceError, match=r"img_2\.jpg: expected its truth in .*truths, found none"):
        read_split(*folders(tmp_path / "b", {"gt_img_1.txt": word}, ("img_1.jpg", "img_2.jpg")))


def test_words_come_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    truths = {f"gt_img_{k}.txt": f"{QUAD},{letter}1\n{QUAD},{letter}2".encode() for k, letter in enumerate("ab", 1)}
    boxes = read_split(*folders(tmp_path, truths))
    assert [(box.picture.name, box.text) for box in boxes] == [
        *(("img_1.png", "a1"), ("img_1.png", "a2"), ("img_2.png", "b1"), ("img_2.png", "b2"))
    ]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ([*ICDAR_2015["train"], *ICDAR_2015["test"]], ["train", "test"]),
        ([*ICDAR_2015["train"], "ch4_test_images", "Challenge4_Test_Task1_GT"], ["train", "test"]),
        (["train/img", "train/box", "test/img", "test/box"], ["train", "test"]),
        (["img", "box"], ["all"]),
        ([*ICDAR_2015["train"]], []),
        (["img"], []),
    ],
)
def test_layouts_are_known_by_their_folders(tmp_path: Path, names: list[str], splits: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    assert list(find_splits(tmp_path)) == splits


@pytest.mark.data
def test_real_receipts_are_read_whole(shared_data: Path) -> None:
    pictures, truths = find_splits(shared_data / "sroie")["all"]
    boxes = read_split(pictures, truths)
    lines = [line for path in truths.iterdir() for line in path.read_text("utf-8").splitlines() if line.strip()]
    assert len(boxes) == len(lines) > 1000
    assert {box.picture for box in boxes} == {path for path in pictures.iterdir() if path.suffix == ".jpg"}
    assert all(set(box.text) <= set(string.printable) for box in boxes)
