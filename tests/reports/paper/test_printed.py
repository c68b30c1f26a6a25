"""The stored cells are the paper's, and what users bring as a table is read or refused."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.paper import printed as module
from reports.paper.printed import TABLES, Row, number, paper, play, read_rows, reproduces
from rice.errors import RiceError

ROWS = {"1": 18, "2": 16, "3": 4, "4": 4, "5a": 4, "5b": 4, "5c": 4, "5d": 4}
CELLS = {"1": 288, "2": 111, "3": 48, "4": 48, "5a": 16, "5b": 16, "5c": 16, "5d": 16}
STARTS = {"1": "Method\tVision Tower", "2": "VisionTower\tLLM", "3": "Configuration\t\t\tCOCO", "4": "Method\tLaSOT"}
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?$")


@pytest.mark.parametrize("table", TABLES)
def test_rows_are_those_that_are_printed(table: str) -> None:
    rows = paper(table)
    assert len(rows) == ROWS[table]
    assert sum(len(row.cells) for row in rows) == CELLS[table]
    assert [row.line for row in rows] == sorted({row.line for row in rows})


def _text(shared_data: Path) -> list[str]:
    seeds = sorted((shared_data.parent / "seeds").glob("*.txt"))
    if not seeds:
        pytest.skip("needs the paper's text in ../shared/seeds")
    return seeds[0].read_text(encoding="utf-8").splitlines()


@pytest.mark.data
@pytest.mark.parametrize("table", ["1", "2", "3", "4"])
def test_every_number_of_the_printed_table_is_stored_as_printed(table: str, shared_data: Path) -> None:
    lines = _text(shared_data)
    start = next(i for i, line in enumerate(lines) if line.startswith(STARTS[table]))
    printed = []
    for line in lines[start + 1 :]:
        if not line.strip():
            break
        fields = [field.strip() for field in line.split("\t")]
        average = re.match(r"Avg: (\S+)", fields[0])
        keys = 2 if table == "3" else 1
        numbers = [field for field in fields[keys + (table == "3") :] if NUMBER.match(field)]
        numbers = ([average[1]] if average else []) + numbers
        printed += [numbers] if numbers else []
    assert [list(row.cells.values()) for row in paper(table)] == printed


@pytest.mark.data
def test_every_number_of_the_four_ablations_is_stored_as_printed(shared_data: Path) -> None:
    lines = _text(shared_data)
    start = next(i for i, line in enumerate(lines) if line.startswith("Testset\t1"))
    fields = [[field.strip() for field in line.split("\t")] for line in lines[start : start + 5]]
    for part, table in enumerate(("5a", "5b", "5c", "5d")):
        head, *body = [line[5 * part : 5 * part + 5] for line in fields]
        rows = paper(table)
        assert [[row.method, *row.cells.values()] for row in rows] == body
        assert all(list(row.cells) == head[1:] for row in rows)


def test_play_is_half_of_the_last_digit() -> None:
    assert [play(text) for text in ("525", "24.1", "+9.79")] == pytest.approx([0.5, 0.05, 0.005])


@pytest.mark.parametrize("text", ["", "1e3", "nan", "1,5", "0x1", "--1", "1.", "\u0663"])
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(RiceError, match="plain decimals"):
        number(text)


def test_both_forms_of_a_table_say_the_same(tmp_path: Path) -> None:
    wide, long = tmp_path / "wide.csv", tmp_path / "long.csv"
    wide.write_text("Method,Tower,COCO,LVIS\nours,B/16,38.9,26.5\ntheirs,B/14,31.6,-\n")
    head = "block,method,tower,resolution,llm,column,value,line\n"
    cells = ",ours,B/16,,,COCO,38.9,1\n,ours,B/16,,,LVIS,26.5,1\n,theirs,B/14,,,COCO,31.6,2\n"
    long.write_text(head + cells)
    assert read_rows(wide) == read_rows(long)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a,a\n1,2\n", "named twice"),
        ("method,COCO\nours,38.9,1\n", "line 2: expected 2 fields"),
        ("method,COCO\nours,high\n", "line 2: expected a number"),
        ("method,column,value,line\nours,COCO,1,1\nours,COCO,2,1\n", "line 3: the cell 'COCO' is there twice"),
        ("method,column,value,line\nours,COCO,1,one\n", "line 2: expected the number of a printed line"),
        ("method,column,value,line\nours,COCO,1,1\ntheirs,LVIS,2,1\n", "other keys"),
        ("method,column,value,note\nours,COCO,1,x\n", "expected the columns"),
        ("column,value,line,note\nCOCO,1,1,x\n", "expected the columns"),
        ("column,value,line\nCOCO,x,1\n", "line 2: expected a number"),
        ('method,COCO\n"ours,1\n', "not CSV"),
    ],
)
def test_a_broken_table_is_one_line_that_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(RiceError, match=message) as error:
        read_rows(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@given(content=st.binary(max_size=200) | st.text(alphabet='abc,"\n1.+-', max_size=120).map(str.encode))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "any.csv"
    path.write_bytes(content)
    try:
        rows = read_rows(path)
    except RiceError:
        return
    assert all(number(text) == number(text) for row in rows for text in row.cells.values())


def test_an_unknown_table_is_named_with_those_there_are() -> None:
    with pytest.raises(RiceError, match="5a"):
        paper("5e")


def test_a_row_is_named_by_all_that_tells_it_from_others() -> None:
    row = Row(line=1, block="B", method="RICE", tower="ViT-L-14-336px", resolution="336", llm="Qwen2.5-7B")
    assert row.label == "RICE ViT-L-14-336px Qwen2.5-7B", "no resolution twice, and no block"
    assert Row(line=1, method="RICE", tower="ViT-B/16", resolution="512").label == "RICE ViT-B/16 512"
    assert Row(line=1, tower="ViT-B/16").label == "ViT-B/16"
    assert [Row(line=1, method=text).is_gain for text in ("↑ a vs b", "a ↑", "a")] == [True, False, False]


def test_a_number_reproduces_within_half_of_its_last_digit() -> None:
    assert [reproduces("24.1", value) for value in (24.04, 24.05, 24.15, 24.16)] == [False, True, True, False]
    assert [reproduces("-0.5", value) for value in (-0.56, -0.55, 0.5)] == [False, True, False]
    assert reproduces("0.5", 0.55 + 1e-10), "half a digit has no exact fraction"
    assert not reproduces("0.5", 0.55 + 1e-8)
    assert [reproduces("525", value, more=2) for value in (522.4, 522.5, 527.5, 527.6)] == [False, True, True, False]
    assert (number("\u22121.5"), number("+1.5"), number("007")) == (-1.5, 1.5, 7.0)


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes('\ufeffLLM, COCO ,Tower,Méthode\r\n\r\nQ,"38.9", B/16 ,-\r\nQ,,B/14,1\r\n'.encode())
    assert read_rows(path) == [
        Row(line=1, llm="Q", tower="B/16", cells={"COCO": "38.9"}),
        Row(line=2, llm="Q", tower="B/14", cells={"Méthode": "1"}),
    ]
    path.write_text("name,COCO,note\nours,1,2\n")
    assert read_rows(path) == [Row(line=1, method="ours", cells={"COCO": "1", "note": "2"})]


def test_the_long_form_puts_cells_of_a_line_together_and_lines_in_order(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("column,value,line,tower\nCOCO,1,10,b\nCOCO,2,9,a\n\nLVIS,3,10,b\n")
    assert read_rows(path) == [
        Row(line=9, tower="a", cells={"COCO": "2"}),
        Row(line=10, tower="b", cells={"COCO": "1", "LVIS": "3"}),
    ]
    path.write_text("column,value,line\nCOCO,1,1\n\nCOCO,2,\n")
    with pytest.raises(RiceError, match="line 4: expected the number of a printed line, got ''"):
        read_rows(path)
    path.write_text("column,value\nCOCO,1\n")
    with pytest.raises(RiceError, match="expected the columns"):
        read_rows(path)


def test_lines_of_a_file_are_counted_from_one_blank_ones_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("method,COCO\nours,1\n\ntheirs,x\n")
    with pytest.raises(RiceError, match="line 4: expected a number in plain decimals, got 'x'"):
        read_rows(path)
    path.write_text("column,value,line\nCOCO,1,1\nLVIS,x,1\n")
    with pytest.raises(RiceError, match="line 3: expected a number"):
        read_rows(path)
    path.write_text("\nmethod,COCO\n")
    with pytest.raises(RiceError, match="is empty"):
        read_rows(path)


def test_a_file_that_is_no_table_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("method,a\n")
    monkeypatch.setattr(module, "_LARGEST_BYTES", path.stat().st_size)
    assert read_rows(path) == []
    path.write_text("method,ab\n")
    with pytest.raises(RiceError, match="larger than any table"):
        read_rows(path)
    with pytest.raises(RiceError, match="cannot read .*nowhere.csv: No such file"):
        read_rows(tmp_path / "nowhere.csv")
