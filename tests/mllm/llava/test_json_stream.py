"""A file in pieces gives what the whole file gives."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.llava import json_stream
from mllm.llava.json_stream import rows_of_json
from rice.errors import RiceError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(
    rows=st.lists(VALUES, max_size=6),
    before=st.dictionaries(st.text().filter(lambda key: key != "data"), VALUES, max_size=2),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    piece=st.integers(1, 40),
    listed=st.booleans(),
)
def test_rows_are_those_of_the_standard_library_whatever_the_pieces(
    rows: list[Any],
    before: dict[str, Any],
    indent: int | None,
    ascii_only: bool,
    piece: int,
    listed: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.json"
    text = json.dumps(rows if listed else before | {"data": rows, "x": [1]}, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, encoding="utf-8")
    expected = json.loads(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", piece)
        assert list(rows_of_json(path)) == (expected if listed else expected["data"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[{"a": 1}, {"a": "xy',
            "row 1 of the list, counted from 0: Unterminated string starting at; is the file cut off?",
        ),
        ('[{"a": 1}, {"a": 2}', "row 1 of the list, counted from 0: is the file cut off?"),
        ('[{"a": 1} {"a": 2}]', "row 0 of the list, counted from 0: expected ',', got '{'"),
        ("[1, 2,]", "row 1 of the list, counted from 0: a comma before ]"),
        ("[1, nul]", "row 1 of the list, counted from 0: Expecting value"),
        ('{"a": 1}\n{"a": 2}\n', "an object without a list 'data'"),
        ("[1]\n[2]\n", "name a file with a row on every line .jsonl"),
        ('"rows"', "it begins with '\"'"),
        ("", "it begins with ''"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_list_of_rows_is_an_error_of_one_line_with_the_row(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(RiceError) as error:
        list(rows_of_json(path))
    assert str(error.value).startswith(f"{path} is not rows in JSON: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_passed_over_and_other_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert list(rows_of_json(path)) == [1]
    path.write_bytes(b'["\xff"]')
    with pytest.raises(RiceError, match="is not UTF-8"):
        list(rows_of_json(path))
    with pytest.raises(RiceError, match="cannot read .*none.json: No such file"):
        list(rows_of_json(tmp_path / "none.json"))


def test_an_error_in_an_early_row_is_found_before_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 100)
    file = io.StringIO('[{"a": 1}, {"a" 2}, ' + ", ".join(['{"a": "long enough"}'] * 10_000) + "]")
    with pytest.raises(ValueError, match="row 1"):
        list(json_stream._Text(file).rows())
    assert file.tell() <= 200


def test_memory_is_that_of_a_piece_and_not_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 1 << 16)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": i, "text": "word " * 200} for i in range(20_000)]))
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows_of_json(path)) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 20e6
    assert peak < 2e6
