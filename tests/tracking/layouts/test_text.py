"""Numbers come back from every way of writing them; whatever else stands in a file is named with its line."""

import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rice.errors import RiceError
from tracking.layouts.text import read_boxes, read_flags, read_names

numbers = st.floats(allow_nan=True, allow_infinity=True)
rows = st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=8)


def write(folder: Path, text: str) -> Path:
    path = folder / "groundtruth.txt"
    path.write_bytes(text.encode())
    return path


@given(
    rows=rows,
    delimiter=st.sampled_from([",", ", ", " , ", "\t", " ", "   "]),
    newline=st.sampled_from(["\n", "\r\n"]),
    end=st.sampled_from(["", "\n", "\n\n", "\n \n"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_boxes_come_back(rows: list[tuple[float, ...]], delimiter: str, newline: str, end: str, mark: str) -> None:
    lines = [delimiter.join(map(repr, row)) for row in rows]
    text = mark + newline.join(lines) + end.replace("\n", newline)
    with tempfile.TemporaryDirectory() as folder:
        boxes = read_boxes(write(Path(folder), text))
    assert boxes.dtype == np.float64
    np.testing.assert_array_equal(boxes, np.array(rows))


@given(st.lists(st.tuples(*[st.integers(-999, 999)] * 8), min_size=1, max_size=5), st.sampled_from([",", "\t", " "]))
def test_polygons_become_the_smallest_boxes_around_them(rows: list[tuple[int, ...]], delimiter: Any) -> None:
    text = "".join(delimiter.join(map(str, row)) + "\n" for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        boxes = read_boxes(write(Path(folder), text))
    for row, (x, y, width, height) in zip(rows, boxes.tolist(), strict=True):
        assert (x, x + width) == (min(row[0::2]), max(row[0::2]))
        assert (y, y + height) == (min(row[1::2]), max(row[1::2]))


def test_words_of_matlab_are_numbers(tmp_path: Path) -> None:
    boxes = read_boxes(write(tmp_path, "NaN,NaN,NaN,NaN\n1,-Inf,1e1,.5\n"))
    assert np.isnan(boxes[0]).all()
    assert boxes[1].tolist() == [1, -math.inf, 10, 0.5]


@pytest.mark.parametrize(
    ("text", "commas", "message"),
    [
        (
            "1\t2\t3\t4\n",
            True,
            "line 1: expected 4 numbers separated by commas, got 4 separated by tabs: '1\\t2\\t3\\t4'",
        ),
        ("1 2 3 4\n", True, "line 1: expected 4 numbers separated by commas, got 4 separated by spaces: '1 2 3 4'"),
        (
            "1,2,3,4\n5,6,7\n",
            True,
            "line 2: expected 4 numbers separated by commas, got 3 separated by commas: '5,6,7'",
        ),
        ("1,2,3,4\n5 6 7 8\n", True, "line 2: expected 4 numbers separated by commas, got 4 separated by spaces"),
        ("1,2,3,4\n\n5,6,7,8\n", False, "line 2: expected 4 numbers, got 0: ''"),
        ("1,2,3,4,5,6,7,8\n", True, "line 1: expected 4 numbers separated by commas, got 8 separated by commas"),
        ("1,2,3,4\r\n5,6,seven,8\r\n", True, "line 2: expected numbers, got 'seven'"),
        ("1,2,3,4\n5,6,,8\n", True, "line 2: expected numbers, got ''"),
        ("1,2,3,4\n5,6,7_0,8\n", True, "line 2: expected numbers, got '7_0'"),
        ("", True, " is empty"),
        ("\n \n", True, " is empty"),
    ],
)
def test_what_is_no_box_is_named(tmp_path: Path, text: str, commas: bool, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RiceError, match=re.escape(f"{path}") + ".*" + re.escape(message)) as error:
        read_boxes(path, commas_only=commas, polygons=False)
    assert "\n" not in str(error.value)


def test_blanks_at_the_end_of_a_line_are_no_delimiter(tmp_path: Path) -> None:
    assert read_boxes(write(tmp_path, "1 2 3 4\t\n5 6 7 8 \n")).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_first_line_may_have_four_numbers_or_eight(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2,3,4,5,6\n")
    with pytest.raises(RiceError, match="line 1: expected 4 or 8 numbers, got 6"):
        read_boxes(path)
    path = write(tmp_path, "1,2,3,4,5,6,7,8\n1,2,3,4\n")
    with pytest.raises(RiceError, match="line 2: expected 8 numbers, got 4"):
        read_boxes(path)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "groundtruth.txt"
    with pytest.raises(RiceError, match=f"cannot read {re.escape(str(path))}: No such file"):
        read_boxes(path)
    path.write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(RiceError, match=f"{re.escape(str(path))}: expected text in UTF-8"):
        read_boxes(path)


@pytest.mark.parametrize("text", ["0,1,0,1", "0,1,0,1\n", "0, 1, 0, 1\r\n", "0\n1\n0\n1", "0 \n1 \n0 \n1 \n\n"])
def test_flags_stand_on_one_line_or_on_many(tmp_path: Path, text: str) -> None:
    assert read_flags(write(tmp_path, text)).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "highest", "message"),
    [
        ("0\n1\n2\n", 1, "line 3: expected 0 or 1, got '2'"),
        ("0,1,0,7\n", 1, "line 1: value 4: expected 0 or 1, got '7'"),
        ("8\n9\n", 8, "line 2: expected an integer from 0 to 8, got '9'"),
        ("-1\n3\n", 8, "line 1: expected an integer from 0 to 8, got '-1'"),
        ("0\n\n1\n", 1, "line 2: expected 0 or 1, got ''"),
        ("0\n0.5\n", 1, "line 2: expected 0 or 1, got '0.5'"),
        ("0,1\n0,1\n", 1, "line 1: expected 0 or 1, got '0,1'"),
        ("\n", 1, " is empty"),
    ],
)
def test_what_is_no_flag_is_named(tmp_path: Path, text: str, highest: int, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RiceError, match=re.escape(f"{path}") + ".*" + re.escape(message)):
        read_flags(path, highest=highest)


def test_levels_reach_the_highest(tmp_path: Path) -> None:
    levels = read_flags(write(tmp_path, "0\n5\n8\n"), highest=8)
    assert levels.tolist() == [0, 5, 8]
    assert levels.dtype == np.int64


def test_names_know_their_lines(tmp_path: Path) -> None:
    assert read_names(write(tmp_path, "b-2\n\n a-1 \r\n")) == {"b-2": 1, "a-1": 3}
    path = write(tmp_path, "a\nb\na\n")
    with pytest.raises(RiceError, match=re.escape(f"{path} line 3: 'a' stands in line 1 already")):
        read_names(path)
