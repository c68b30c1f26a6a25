"""Every number of the page can be followed to its files, and nothing in it runs or asks."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from made_up import percent, put_all, put_arm
from stored_results import metric, put

from reports.grid import SUFFIXES
from reports.miniature.claims import CLAIMS, NAMES
from reports.miniature.summary import summary_page
from rice.errors import RiceError

HOSTILE = "</script><script>window.hacked = 1</script>\"><img src=x onerror='window.hacked = 1'>"


def put_runs(out: Path, names: Iterator[str]) -> dict[str, str]:
    """A run.json for each encoder, in folders whose names have to be quoted."""
    runs = {name: f"runs/{name} #1/run.json" for name in names}
    for path in runs.values():
        (out / path).parent.mkdir(parents=True)
        (out / path).write_text("{}")
    return runs


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All arms, three of them for equal time, too; a gap; a hostile protocol."""
    out = tmp_path_factory.mktemp("mini")
    put_all(out / "sweep", [arm for arm in NAMES if arm != "clip"], time=("mlcd", "unicom"))
    for seed in (0, 2):
        put_arm(out / "sweep", f"clip s{seed}", {"mIoU": percent("clip", seed, "mIoU")}, "dense")
    for seed in (0, 1):
        put(out / "sweep", "clip s0", [metric("knn top-1", protocol=HOSTILE)], probe="knn", seed=seed)
    runs = put_runs(out, (f"{arm} s{seed}" for arm in ("rice", "mlcd") for seed in range(3)))
    (out / "sweep" / "results" / "cut.json").write_text("{")
    (out / "photographs").mkdir()
    (out / "photographs" / "index.html").touch()
    summary_page(out / "sweep", out, runs)
    return out


def test_every_link_leads_to_a_file_or_a_place_that_is_there(mini: Path) -> None:
    text = (mini / "index.html").read_text()
    links = re.findall(r'href="([^"]*)"', text)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    files = {link for link in links if not link.startswith(("#", "data:"))}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert not [link for link in files if not (mini / unquote(link)).is_file()]
    assert "photographs/index.html" in files
    assert {f"sweep/results/{key}.json" for key in keys_in(mini)} <= files
    assert sum("run.json" in link for link in files) == 6


def test_a_cell_is_the_mean_of_the_files_that_it_leads_to(visit: Callable[..., Any], mini: Path) -> None:
    page = visit(mini).page
    links = page.locator("section[aria-labelledby=scores] tbody td a").all()
    assert len(links) > 80
    for link in links[::5]:
        target = page.locator(f"tbody[id='{link.get_attribute('href')[1:]}']")
        heads = page.locator("section[aria-labelledby=results] table", has=target).locator("thead th")
        files = [json.loads((mini / unquote(one)).read_text()) for one in hrefs(target.locator("td:last-child a"))]
        means = {}
        for name in {m["name"] for file in files for m in file["metrics"]} & set(heads.all_inner_texts()):
            by_encoder: dict[str, list[float]] = {}
            for file in files:
                values = [100 * m["value"] for m in file["metrics"] if m["name"] == name]
                by_encoder.setdefault(file["encoder"], []).extend(values)
            means[name] = np.mean([np.mean(values) for values in by_encoder.values()])
        assert f"{float(link.inner_text().split()[0]):.1f}" in {f"{mean:.1f}" for mean in means.values()}


def keys_in(mini: Path) -> set[str]:
    return {path.stem for path in (mini / "sweep" / "results").iterdir()} - {"cut"}


def hrefs(place: Any) -> list[str]:
    return [one.get_attribute("href") for one in place.all()]


def test_a_click_on_a_cell_shows_its_files(visit: Callable[..., Any], mini: Path) -> None:
    page = visit(mini, viewport={"width": 1400, "height": 900}).page
    page.locator("section[aria-labelledby=scores] tbody td a").first.click()
    target = page.locator("tbody:target")
    assert target.count() == 1
    assert target.get_attribute("id") == "detection-rice-updates"
    assert target.locator("tr").first.is_visible()


def test_every_claim_stands_there_with_its_verdict_and_what_is_missing(visit: Callable[..., Any], mini: Path) -> None:
    page = visit(mini).page
    rows = page.locator("section[aria-labelledby=claims] tbody tr:not(.block)").all()
    document = json.loads((mini / "claims.json").read_text())["claims"]
    assert {one["id"] for one in document} == {claim.id for claim in CLAIMS}
    for row, one in zip(rows, document, strict=True):
        text = row.inner_text()
        assert one["text"] in text
        assert (row.get_attribute("id") or "").startswith(f"claim-{one['id']}")
        assert row.locator(".verdict").inner_text() == one["verdict"]
        assert all(name in text for name in one["missing"])
        assert row.locator("svg").count() == (one["difference"] is not None)
    held = sum(one["primary"] and one["verdict"] == "held" for one in document)
    primary = sum(one["primary"] for one in document)
    assert f"{held} of {primary} primary claims held" in page.inner_text("header")


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_never_scrolls_sideways(visit: Callable[..., Any], mini: Path, width: int) -> None:
    page = visit(mini, viewport={"width": width, "height": 900}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_texts_are_shown_as_texts_and_there_is_no_script(visit: Callable[..., Any], mini: Path) -> None:
    page = visit(mini).page
    page.locator("details summary").click()
    assert HOSTILE in page.inner_text("details")
    assert page.locator("script, img").count() == 0


def test_sources_hold_every_number_with_its_file(mini: Path) -> None:
    rows = list(csv.DictReader((mini / "sources.csv").open()))
    keys = set()
    for row in rows:
        document = json.loads((mini / row["result"]).read_text())
        (found,) = [m for m in document["metrics"] if m["name"] == row["metric"]]
        assert float(row["value"]) == pytest.approx(100 * found["value"])
        assert (row["encoder"], int(row["probe seed"])) == (document["encoder"], document["seed"])
        assert not row["run"] or (mini / row["run"]).is_file()
        keys.add(document["key"])
    assert keys == keys_in(mini)


def test_what_is_no_result_is_named(mini: Path) -> None:
    assert "Left out, no result: sweep/cut.json" in (mini / "index.html").read_text()


def test_both_tables_are_there_in_every_format(mini: Path) -> None:
    names = {f"{table}{suffix}" for table in ("arms", "claims") for suffix in SUFFIXES.values()}
    assert {path.name for path in (mini / "tables").iterdir()} == names


def test_again_gives_the_same_page_and_a_foreign_one_is_kept(mini: Path, tmp_path: Path) -> None:
    before = put_all(tmp_path / "sweep", ("rice", "mlcd"))
    page = summary_page(before, tmp_path / "out")
    text = page.read_bytes()
    assert summary_page(before / "results", tmp_path / "out").read_bytes() == text
    page.write_text("<p>mine")
    with pytest.raises(RiceError, match="not written by this"):
        summary_page(before, tmp_path / "out")
    assert page.read_text() == "<p>mine"
