"""What `rice tables` prints and writes, and the one line that it says of what it cannot do."""

import json
from pathlib import Path
from typing import Any

import pytest
from stored_results import of_table_3 as result

from probes.results import store
from reports.paper.printed import TABLES
from reports.tables_command import tables
from rice.errors import RiceError


def test_the_check_as_json_is_a_list_of_the_documented_fields(capsys: pytest.CaptureFixture[str]) -> None:
    tables(paper=True, check=True, json=True)
    found = json.loads(capsys.readouterr().out)
    fields = ["table", "row", "column", "printed", "recomputed", "rule", "rule_that_fits"]
    assert [list(entry) for entry in found] == [fields] * 15
    tables(paper=True, check=True, table=("3",), json=True)
    assert json.loads(capsys.readouterr().out) == found[-1:]


def test_a_table_of_ones_own_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text(
        "method,COCO,LVIS,Avg\nours,40.0,30.0,35.0\ntheirs,38.0,20.0,30.0\n↑ ours vs theirs,+2.0,+10.0,+5.0\n"
    )
    tables(mine, check=True, json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["table"], found["row"], found["printed"], found["recomputed"]) == ("mine", "theirs", 30.0, 29.0)
    tables(mine, check=True)
    assert "5 derived cells recomputed, 1 do not reproduce." in capsys.readouterr().out


def test_every_table_gets_a_file_and_table_5_its_curves(tmp_path: Path) -> None:
    tables(paper=True, out=tmp_path)
    expected = {f"table{name}.md" for name in TABLES} | {"table5.png", "table5.pdf"}
    assert {path.name for path in tmp_path.iterdir()} == expected


@pytest.mark.parametrize(("form", "suffix"), [("latex", "tex"), ("csv", "csv"), ("html", "html")])
def test_a_format_has_its_suffix(tmp_path: Path, form: Any, suffix: str) -> None:
    tables(paper=True, table=("3", "4"), format=form, out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"table3.{suffix}", f"table4.{suffix}"}


def test_results_are_laid_beside_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, result("box AP", 0.4))
    tables(paper=True, table=("3",), with_=(tmp_path, tmp_path))  # the same result twice counts once
    out = capsys.readouterr().out
    assert "Measured, not reported" in out
    assert "40.0" in out
    assert "±" not in out.split("Measured, not")[1].split("\n\n")[0]


def test_what_is_no_result_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, result("box AP", 0.4))
    (tmp_path / "results" / "cut.json").write_text('{"schema": 1')
    tables(tmp_path)
    said = capsys.readouterr()
    assert "40.00" in said.out
    assert "cut.json" in said.out
    assert "cut.json" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected the --out folder"),
        ({"source": Path("x"), "paper": True}, "--with x"),
        ({"source": Path("x"), "table": ("3",)}, "add --paper"),
        ({"source": Path("x"), "with_": (Path("y"),)}, "--with"),
        ({"source": Path("x"), "json": True}, "--check"),
        ({"paper": True, "table": ("7",)}, "expected one of"),
        ({"source": Path("nowhere.csv"), "check": True}, "cannot read"),
        ({"source": Path(), "check": True}, "takes a table as CSV"),
        ({"source": Path("nowhere")}, "nowhere"),
        ({"source": Path("nowhere"), "decimals": -1}, "--decimals from 0 to 15, got -1"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = arguments.pop("source", None)
    with pytest.raises(RiceError, match=message) as error:
        tables(source, **arguments, out=tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_results_of_other_probes_are_not_forced_into_the_paper(tmp_path: Path) -> None:
    store(tmp_path, result("mIoU", 0.4, probe="dense", config={}))
    with pytest.raises(RiceError, match="dense on coco"):
        tables(paper=True, with_=(tmp_path,))
