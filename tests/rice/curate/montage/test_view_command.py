"""`rice view`: any folder of shards or a curation's, and a page where FiftyOne cannot be used, which says why."""

import json
import re
from pathlib import Path

import pytest
from planted_regions import pictures, write

from rice.cli import main
from rice.curate import in_fiftyone


@pytest.fixture(autouse=True)
def without_fiftyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_fiftyone, "why_not", lambda: "its database does not start: port 1 is closed")


def test_without_fiftyone_there_is_a_page_and_it_says_why_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = write(tmp_path / "shards", [pictures(6, 3)], 3)
    main(["view", str(shards), "--out", str(tmp_path / "page"), "--tile", "16"])
    said = capsys.readouterr().out
    assert "port 1 is closed" in said
    assert f"open {tmp_path / 'page' / 'index.html'}" in said
    assert {path.name for path in tmp_path.iterdir()} == {"page", "shards"}


def test_of_a_curation_its_shards_are_shown_with_what_its_report_says(tmp_path: Path) -> None:
    write(tmp_path / "curated" / "shards", [pictures(6, 3)], 3)
    (tmp_path / "curated" / "report.json").write_text(json.dumps({"pictures": {"left out": {"too small": 41}}}))
    main(["view", str(tmp_path / "curated"), "--page", "--tile", "16"])
    page = (tmp_path / "curated" / "page" / "index.html").read_text()
    assert re.search(r'"dropped":\[\["pictures: too small",41\]\]', page)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{}/nothing"], "--out"),
        (["{}/nothing", "--out", "{}/page"], "no shards at"),
        (["{}/shards", "--pictures", "-1"], "--pictures"),
        (["{}/shards", "--page", "--regions", "1"], "regions=1"),
        (["{}/shards", "--page", "--out", "{}"], "choose another --out"),
    ],
)
def test_what_it_cannot_do_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    write(tmp_path / "shards", [pictures(2, 3)], 3)
    with pytest.raises(SystemExit) as caught:
        main(["view", *(argument.format(tmp_path) for argument in arguments)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"shards", "page"}
