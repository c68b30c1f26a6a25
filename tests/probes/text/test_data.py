"""Which words are learnt and judged, and what is cut out of a picture."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from probes.knn.data import open_folder
from probes.protocol import NotThisLayoutError
from probes.text.data import ALPHABET, TEST_SHARE, crop, cutter, divide, fingerprint, open_words, spelling, steps_needed
from rice.data.icdar import ICDAR_2015, TextBox
from rice.errors import RiceError


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Stop!", "stop"),
        ("CAFÉ 12,50", "cafe1250"),
        ("Straße", "strasse"),
        ("ﬁne ²", "fine2"),
        ("寿司", ""),
        ("İzmir", "izmir"),
        ("-", ""),
    ],
)
def test_letters_are_read_without_case_and_accents(text: str, letters: str) -> None:
    assert spelling(text) == letters


@given(text=st.text())
def test_every_spelling_is_of_the_alphabet_and_spells_itself(text: str) -> None:
    letters = spelling(text)
    assert set(letters) <= set(ALPHABET)
    assert spelling(letters) == spelling(letters.upper()) == letters


@given(letters=st.text(alphabet="ab", min_size=1, max_size=6))
def test_steps_needed_is_the_length_of_the_shortest_path(letters: str) -> None:
    path = letters[0] + "".join(f"-{b}" if a == b else b for a, b in itertools.pairwise(letters))
    assert steps_needed(letters) == len(path)


def box(picture: Path, corners: tuple[float, float, float, float], line: int = 1) -> TextBox:
    left, top, right, bottom = corners
    return TextBox(
        picture, picture.with_suffix(".txt"), line, (left, top, right, top, right, bottom, left, bottom), "a"
    )


@given(left=st.floats(-30, 19.5), top=st.floats(-30, 9.5), width=st.floats(31, 90), height=st.floats(31, 90))
def test_a_box_that_leaves_the_picture_is_clipped(left: float, top: float, width: float, height: float) -> None:
    pixels = np.arange(20 * 10 * 3, dtype=np.uint8).reshape(10, 20, 3)
    corners = (left, top, left + width, top + height)
    rows = [y for y in range(10) if y + 1 > corners[1] and y < corners[3]]
    columns = [x for x in range(20) if x + 1 > corners[0] and x < corners[2]]
    np.testing.assert_array_equal(
        np.asarray(crop(box(Path("1.png"), corners), Image.fromarray(pixels))), pixels[np.ix_(rows, columns)]
    )


@pytest.mark.parametrize("corners", [(20, 0, 30, 5), (-9, 0, 0, 5), (0, 10, 5, 12), (4, 3, 4, 8)])
def test_a_box_without_a_pixel_of_the_picture_is_one_clear_line(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(RiceError, match=r"1\.txt, line 7: expected a box that meets its picture of 20 x 10") as caught:
        crop(box(Path("1.png"), corners, 7), Image.new("RGB", (20, 10)))
    assert "\n" not in str(caught.value)


def test_illegible_and_foreign_words_are_left_out_and_counted(make_words: Callable[..., Path]) -> None:
    words = open_words(make_words(train=["ab", "###", "寿司", "x"], test=["###", "c-d"]))
    assert [word.letters for word in words.train] == ["ab", "x"]
    assert [word.letters for word in words.test] == ["cd"]
    assert (words.illegible, words.foreign, words.test_name) == (2, 1, "test")
    assert words.train[1].name == "img_4.png:1"


def test_nothing_to_judge_is_foreign(make_words: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(NotThisLayoutError, match="found 8 and 0"):
        open_words(make_words(test=["###"]))
    with pytest.raises(NotThisLayoutError, match="expected ICDAR 2015's folders"):
        open_words(tmp_path)


def test_folders_of_words_are_no_classes(make_words: Callable[..., Path], tmp_path: Path) -> None:
    receipts = tmp_path / "receipts"
    for split, role in (("train", "train"), ("test", "test")):
        for folder, source in zip(("img", "box"), ICDAR_2015[role], strict=True):
            (receipts / split).mkdir(parents=True, exist_ok=True)
            (make_words(name=f"{split} {folder}") / source).rename(receipts / split / folder)
    assert len(open_words(receipts).train) == 8
    for root in (receipts, make_words()):
        with pytest.raises(NotThisLayoutError, match="no classified pictures"):
            open_folder(root)


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_a_set_without_splits_is_divided_by_pictures(counts: list[int]) -> None:
    boxes = [box(Path(f"{k}.png"), (0, 0, 1, 1), line) for k, count in enumerate(counts) for line in range(count)]
    rest, part = divide(boxes, TEST_SHARE)
    assert sorted([*rest, *part], key=lambda b: (b.picture.name, b.line)) == sorted(
        boxes, key=lambda b: (b.picture.name, b.line)
    )
    learnt, judged = {b.picture for b in rest}, {b.picture for b in part}
    assert not learnt & judged
    assert len(judged) == min(max(1, round(TEST_SHARE * len(counts))), len(counts) - 1)
    again = divide(boxes[::-1], TEST_SHARE)
    assert {b.picture for b in again[1]} == judged


def test_the_fingerprint_follows_words_boxes_and_pictures(make_words: Callable[..., Path]) -> None:
    root = make_words()
    seen = {fingerprint(open_words(root))}
    assert fingerprint(open_words(root)) in seen
    truth = root / ICDAR_2015["test"][1] / "gt_img_1.txt"
    picture = root / ICDAR_2015["train"][0] / "img_2.png"
    for path, change in (
        (truth, lambda data: data.replace(b"acorn", b"acorm")),
        (truth, lambda data: data.replace(b"61", b"60")),
        (picture, lambda data: data + b"\0"),
    ):
        path.write_bytes(change(path.read_bytes()))
        seen.add(fingerprint(open_words(root)))
    assert len(seen) == 4


@pytest.mark.data
def test_lines_of_real_receipts_are_items_without_their_spaces(shared_data: Path) -> None:
    words = open_words(shared_data / "sroie")
    assert words.test_name == "held out"
    assert len({word.source.picture for word in words.test}) == 6
    assert "taxinvoice" in {word.letters for word in (*words.train, *words.test)}
    cut = cutter()
    assert min(min(cut(word.source).size) for word in words.test) > 1
