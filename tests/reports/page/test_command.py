"""`rice report`: what it refuses leaves nothing behind, and what it leaves out it says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reports.page.command import report
from rice.errors import RiceError

Put = Callable[..., Path]


def test_several_sweeps_become_one_page(tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("A", 0, {"mIoU": 0.5}, place="one")
    put("B", 0, {"mIoU": 0.5}, place="two")
    (tmp_path / "two" / "results" / "cut.json").write_text("{")
    report((tmp_path / "one", tmp_path / "two"), out=tmp_path / "site")
    said = capsys.readouterr()
    assert "encoders: 2, cells: 2, figures: 0" in said.out
    assert said.err.startswith("left out: two/cut.json: is not a valid result")
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]


def test_without_results_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "results").mkdir(parents=True)
    (tmp_path / "sweep" / "results" / "other.json").write_text("{}")
    with pytest.raises(RiceError, match="expected results under"):
        report((tmp_path / "sweep",), out=tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_folder_of_results_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="--out folder"):
        report((), out=tmp_path / "site")


def test_a_wrong_folder_of_figures_leaves_the_old_page(tmp_path: Path, put: Put) -> None:
    put("A", 0, {"mIoU": 0.5})
    report((tmp_path / "sweep",), out=tmp_path / "site")
    before = (tmp_path / "site" / "index.html").read_bytes()
    put("B", 0, {"mIoU": 0.5})
    with pytest.raises(RiceError, match="expected a folder of figures"):
        report((tmp_path / "sweep",), out=tmp_path / "site", figures=(tmp_path / "nowhere",))
    assert (tmp_path / "site" / "index.html").read_bytes() == before


def test_the_same_results_give_the_same_page(tmp_path: Path, put: Put) -> None:
    for encoder in "BA":
        put(encoder, 0, {"mIoU": 0.5, "accuracy": 0.25})
    pages = []
    for name in ("first", "second", "first"):
        report((tmp_path / "sweep",), out=tmp_path / name)
        pages.append((tmp_path / name / "index.html").read_bytes())
    assert pages[0] == pages[1] == pages[2]


def test_cards_are_written_beside_and_are_no_obstacle(tmp_path: Path, put: Put) -> None:
    put("A", 0, {"mIoU": 0.5})
    for _ in range(2):
        report((tmp_path / "sweep",), out=tmp_path / "site", card=True)
    assert list((tmp_path / "site" / "cards").glob("*/README.md"))


def test_half_written_cards_of_a_killed_report_go(tmp_path: Path, put: Put) -> None:
    put("A", 0, {"mIoU": 0.5})
    report((tmp_path / "sweep",), out=tmp_path / "site", card=True)
    (folder,) = (tmp_path / "site" / "cards").iterdir()
    (folder / ".README.md.abcdefgh.tmp").write_text("---\nlice")
    report((tmp_path / "sweep",), out=tmp_path / "site", card=True)
    assert [path.name for path in folder.iterdir()] == ["README.md"]


def test_figures_are_only_searched_where_they_are_named(
    tmp_path: Path, put: Put, write_pca: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = put("A", 0, {"mIoU": 0.5})
    fingerprint = json.loads(path.read_text())["identity"]["encoder_fingerprint"]
    write_pca(tmp_path / "pca", fingerprint, frames=2)
    report((tmp_path / "sweep",), out=tmp_path / "site")
    report((tmp_path / "sweep",), out=tmp_path / "site", figures=(tmp_path / "pca",))
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(", ", 1)[1] for line in lines] == ["figures: 0", "figures: 1"]
