"""The page in a real browser: what it shows, that it answers to mouse and keys, and that nothing in it runs or asks."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.results import frame_of
from reports.formats import write_table
from reports.grid import BEST, OTHER, SECOND
from reports.page.command import report
from reports.reading import read
from reports.tables import build

Visiting = Callable[..., Any]
"""See the fixture `visit`; gives a `Board`."""
GAP = "\u2013"
MANY = 130_000
"""Chromium refuses a call of 125,000 arguments."""


def table_of(sweep: Path, format_: Any) -> str:
    frame = frame_of(read([sweep])[0])
    return write_table(build(frame, ["encoder"], ["probe", "dataset", "metric"]), format_, 2)


def assert_alike(text: str, expected: str) -> None:
    """The same table; the same notes, in whatever order those of cells with fewer seeds come."""
    parts = [re.split(r"\n(?=\n|\\par)", one, maxsplit=1) for one in (text, expected)]
    assert parts[0][0] == parts[1][0]
    assert sorted(parts[0][1].split("\n")) == sorted(parts[1][1].split("\n"))


def test_values_are_those_of_the_tables(visit: Visiting, site: Path, sweep: Path) -> None:
    one = visit(site)
    table = build(frame_of(read([sweep])[0]), ["encoder"], ["probe", "dataset", "metric"])
    assert one.rows() == [row[0].removesuffix(" (untrained)") for row in table.rows]
    cells = one.page.locator("table.board tbody td").all()
    shown = [" ".join(cell.inner_text().replace("†", "").split()) for cell in cells]
    expected = [table.cells.get((row, column)) for row in table.rows for column in table.columns]
    for text, cell in zip(shown, expected, strict=True):
        assert re.sub(r" \d/\d$", "", text) == (GAP if cell is None else cell.score.text(2))
    marks = [cell.get_attribute("class") or "" for cell in cells]
    for kind, rank in (("best", 0), ("second", 1)):
        assert [kind in mark for mark in marks] == [cell is not None and cell.rank == rank for cell in expected]
    assert one.page.locator("table.board tbody tr", has_text="floor").locator(".tag").inner_text() == "untrained"
    assert one.page.locator(".few").all_inner_texts() == [" 2/3", " 2/3"]


def test_runs_over_some_of_the_items_are_marked_as_in_the_tables(
    visit: Visiting, tmp_path: Path, put: Callable[..., Path]
) -> None:
    for encoder, value, n in (("whole", 0.1, 100), ("limited", 0.9, 16), ("other", 0.2, 100), ("unknown", 0.05, 0)):
        put(encoder, 0, {"mIoU": value, "acc": value}, n=n)
    report((tmp_path / "sweep",), out=tmp_path / "site")
    one = visit(tmp_path / "site")
    table = build(frame_of(read([tmp_path / "sweep"])[0]), ["encoder"], ["probe", "dataset", "metric"])
    marks = [cell.get_attribute("class") or "" for cell in one.page.locator("table.board tbody td").all()]
    ranks = [table.cells[row, column].rank for row in table.rows for column in table.columns]
    assert set(ranks) == {BEST, SECOND, OTHER}
    assert [("best" in mark, "second" in mark) for mark in marks] == [(rank == BEST, rank == SECOND) for rank in ranks]
    assert one.page.locator("#note-list li").all_text_contents() == table.notes


@pytest.mark.slow
def test_a_page_of_more_cells_than_a_call_takes_arguments_opens(
    visit: Visiting, tmp_path: Path, put: Callable[..., Path]
) -> None:
    put("tower", 0, {"mIoU": 0.5})
    report((tmp_path / "sweep",), out=tmp_path / "site")
    page = tmp_path / "site" / "index.html"
    before, text, after = re.split(r'(?<=id="data">)(.*?)(?=</script>)', page.read_text(), maxsplit=1, flags=re.S)
    data = json.loads(text)
    (row,), ((_, *cell),) = data["rows"], data["cells"]
    data["rows"] = [row | {"label": f"tower {number}"} for number in range(MANY)]
    data["cells"] = [[number, *cell] for number in range(MANY)]
    page.write_text(before + json.dumps(data) + after)
    drawn = visit(tmp_path / "site")
    drawn.page.locator("table.board tbody tr").nth(1000).wait_for()  # the others come while nothing else is to be done


def test_a_column_sorts_best_first_then_the_other_way_with_gaps_last(visit: Visiting, site: Path) -> None:
    one = visit(site)
    head = one.page.locator("th[data-column]", has_text="box AP")
    head.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert one.values("box AP") == ["39.12", "34.06", "29.12", GAP]
    head.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert one.values("box AP") == ["29.12", "34.06", "39.12", GAP]
    lower_is_better = one.page.locator("th[data-column]", has_text="error")
    lower_is_better.click()
    assert lower_is_better.get_attribute("aria-sort") == "ascending"
    assert head.get_attribute("aria-sort") == "none"
    assert one.values("error")[:2] == ["3.25", "6.50"]
    one.page.locator("th[data-column=encoder]").click()
    assert one.rows() == ["floor", "Tower 8", "Tower 9", "Tower 10"]


def test_filters_leave_what_fits_and_rank_what_is_left(visit: Visiting, site: Path) -> None:
    one = visit(site)
    page = one.page
    page.fill("[name=text]", "tower 1")
    assert one.rows() == ["Tower 10"]
    assert page.locator("td.best").count() == 0
    page.fill("[name=text]", "")
    page.select_option("[name=probe]", "detection")
    assert page.locator("th[data-column]").all_inner_texts()[1:] == ["box AP\n% ↑", "mask AP\n% ↑"]
    assert one.rows() == ["Tower 8", "Tower 9", "Tower 10"]
    page.select_option("[name=probe]", "")
    page.select_option("[name=dataset]", "depth")
    page.select_option("[name=trained]", "no")
    assert one.rows() == ["floor"]
    page.fill("[name=text]", "nobody")
    assert "Nothing measured is left" in page.inner_text("#board-scroll")


def test_a_table_of_the_paper_has_its_columns_and_reported_values_apart(visit: Visiting, site: Path) -> None:
    one = visit(site)
    page = one.page
    page.select_option("[name=view]", "table-3")
    assert page.url.endswith("#/board/table-3")
    assert page.locator("th[data-column]").all_inner_texts()[1:] == ["Det AP\n% ↑", "Seg AP\n% ↑"]
    assert page.locator(".reported").count() == 0
    page.check("[name=reported]")
    row = page.locator("table.board tbody tr", has_text="Tower 10")
    assert row.locator(".reported").first.inner_text() == "reported 38.9 +0.22"
    assert page.locator("td .dagger").count() == 6
    page.click("#columns summary")
    page.uncheck("#column-list input >> nth=0")
    assert page.locator("th[data-column]").all_inner_texts()[1:] == ["Seg AP\n% ↑"]


def test_every_cell_leads_to_the_results_behind_it(visit: Visiting, site: Path, sweep: Path) -> None:
    one = visit(site)
    page = one.page
    documents = {document["key"]: document for document in read([sweep])[0]}
    for index in range(page.locator("td[data-cell]").count()):
        cell = page.locator("td[data-cell]").nth(index)
        mean = float(cell.inner_text().split()[0])
        cell.click()
        dialog = page.locator("#provenance")
        dialog.wait_for(state="visible")  # the page follows its address, which takes a moment
        name = dialog.locator("h2").inner_text()
        probe, dataset, metric = dialog.locator("header p").inner_text().split(" / ")
        keys = [text.removesuffix(".json") for text in dialog.locator("code.key").all_inner_texts() if ".json" in text]
        values = []
        for key in keys:
            document = documents[key]
            assert name.removesuffix(" (untrained)") == document["encoder"]
            assert (probe, dataset) == (document["identity"]["probe"], document["dataset"])
            (found,) = [m for m in document["metrics"] if m["name"] == metric]
            values.append(found["value"] * (100 if found["unit"] == "fraction" else 1))
            assert document["identity"]["encoder_fingerprint"] in dialog.inner_text()
            assert found["protocol"] in dialog.inner_text()
        assert mean == pytest.approx(np.mean(values), abs=0.006)
        page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
        assert page.evaluate("document.activeElement.dataset.cell") == cell.get_attribute("data-cell")


def test_a_cell_has_an_address_of_its_own(visit: Visiting, site: Path) -> None:
    first = visit(site)
    first.page.locator("td[data-cell]").nth(2).click()
    first.page.locator("#provenance").wait_for(state="visible")
    title = first.page.inner_text("#provenance header")
    address = first.page.url.partition("#")[2]
    assert address.startswith("/cell/")
    second = visit(site, f"#{address}")
    assert second.page.inner_text("#provenance header") == title
    second.page.keyboard.press("Escape")
    assert second.page.locator("table.board").is_visible()


def test_keys_alone_sort_open_a_value_and_come_back(visit: Visiting, site: Path) -> None:
    one = visit(site)
    page, keys = one.page, one.page.keyboard
    keys.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("[name=trained]")
    for _ in range(20):
        keys.press("Tab")
        if page.evaluate("!!document.activeElement.closest('table')"):
            break
    keys.press("ArrowRight")
    keys.press("Enter")
    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    focused = "document.activeElement.dataset.cell"
    cell = page.evaluate(focused)
    keys.press("Enter")
    page.locator("#provenance").wait_for(state="visible")
    keys.press("Escape")
    page.locator("#provenance").wait_for(state="hidden")
    assert page.evaluate(focused) == cell
    keys.press("Tab")
    assert page.evaluate("!document.activeElement.closest('table')")
    keys.press("Shift+Tab")
    keys.press("Home")
    keys.press("Enter")
    assert re.search("#/encoder/", page.url)
    assert page.inner_text("#encoder-title").startswith(("floor", "Tower 10"))


CLIPBOARD = """Object.defineProperty(navigator, "clipboard", { value: {
  writeText: (text) => { window.copied = text; return Promise.resolve(); } } });"""


@pytest.mark.parametrize("format_", ["markdown", "latex"])
def test_what_is_copied_is_what_the_tables_write(visit: Visiting, site: Path, sweep: Path, format_: str) -> None:
    page = visit(site, script=CLIPBOARD).page
    page.click(f"#copy-{format_}")
    assert_alike(page.evaluate("window.copied"), table_of(sweep, format_))


def test_what_is_copied_is_sorted_and_filtered_as_shown(visit: Visiting, site: Path) -> None:
    page = visit(site, script=CLIPBOARD).page
    page.select_option("[name=dataset]", "coco")
    page.locator("th[data-column]", has_text="box AP").click()
    page.click("#copy-markdown")
    lines = page.evaluate("window.copied").splitlines()
    assert [re.split(r" *\| *", line)[1] for line in lines[:5]] == [
        "encoder",
        "-" * 8,
        "Tower 10",
        "Tower 9",
        "Tower 8",
    ]
    assert "mIoU" not in "".join(lines)
    assert "Copied as Markdown: 3 encoders, 2 columns." in page.inner_text("[role=status]")


def test_without_a_clipboard_the_text_is_there_to_copy(visit: Visiting, site: Path, sweep: Path) -> None:
    page = visit(site, script='Object.defineProperty(navigator, "clipboard", { value: undefined });').page
    page.click("#copy-markdown")
    text = page.input_value("#copying textarea")
    assert_alike(text, table_of(sweep, "markdown"))
    selected = "(area) => area.value.slice(area.selectionStart, area.selectionEnd)"
    assert page.locator("#copying textarea:focus").evaluate(selected) == text


def test_the_csv_has_the_numbers_of_the_tables(visit: Visiting, site: Path, sweep: Path) -> None:
    page = visit(site).page
    with page.expect_download() as download:
        page.click("#save-csv")
    head, *lines = csv.reader(io.StringIO(download.value.path().read_text()))
    expected_head, *expected = csv.reader(io.StringIO(table_of(sweep, "csv")))
    assert head == expected_head
    for line, wanted in zip(lines, expected, strict=True):
        assert line[0] == wanted[0]
        for text, other in zip(line[1:], wanted[1:], strict=True):
            assert (text == other == "") or float(text) == pytest.approx(float(other), rel=1e-15)


def test_clips_play_inside_the_page_and_beside_it(visit: Visiting, site: Path) -> None:
    one = visit(site, "#/figures")
    page = one.page
    for index, beginning in enumerate((r"file://.*/media/\w+\.mp4", "blob:")):
        video = page.locator("video").nth(index)
        video.scroll_into_view_if_needed()
        assert re.match(beginning, video.evaluate("v => v.src"))
        one.until(video, "v => v.currentTime > 0.2")
        assert video.evaluate("v => v.muted && v.loop && v.controls && v.playsInline")
    page.locator("summary", has_text="frames").first.click()
    assert page.locator(".stills img").first.evaluate("async i => { await i.decode(); return i.naturalWidth }") == 64


def test_clips_wait_for_those_who_asked_for_less_motion(visit: Visiting, site: Path) -> None:
    page = visit(site, "#/figures", reduced_motion="reduce").page
    page.locator("video").first.scroll_into_view_if_needed()
    page.wait_for_timeout(400)
    assert page.locator("video").first.evaluate("v => v.paused && v.currentTime === 0")


def test_an_encoders_page_shows_what_is_known_and_says_what_is_not(visit: Visiting, site: Path) -> None:
    page = visit(site, "#/encoders").page
    with_clip = 0
    for number in range(4):
        page.goto(page.url.partition("#")[0] + "#/encoders")
        page.locator("#encoder-list a").nth(number).click()
        facts = dict(
            zip(page.locator("#page-encoder dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=False)
        )
        assert facts["licence"] == facts["revision"] == facts["paper"] == "not stated"
        assert (facts["patch"], facts["source"]) == ("16", "fake:vit")
        with_clip += page.locator("#page-encoder video").count()
    assert with_clip == 1
    page.goto(page.url.partition("#")[0] + "#/encoder/Tower%2010")
    first = page.locator("table.results tbody tr", has_text="box AP")
    assert "39.12" in first.inner_text()
    assert "1 of 3" in first.inner_text()
    assert "38.9" in first.inner_text()


def test_what_was_left_out_is_listed(visit: Visiting, site: Path) -> None:
    page = visit(site, "#/left").page
    assert page.inner_text("#to-left") == "Left out (1)"
    assert page.locator("#left-list tbody th").all_inner_texts() == ["sweep/cut.json"]
    assert "not a valid result" in page.inner_text("#left-list tbody td")


def test_the_papers_tables_are_there(visit: Visiting, site: Path) -> None:
    page = visit(site, "#/paper").page
    assert page.locator("#page-paper table.rice").count() == 8
    assert "Tower 10" in page.inner_text("#paper-3")


HASHES = ("", "#/encoders", "#/encoder/Tower%2010", "#/figures", "#/paper", "#/left", "#/board/table-3")


def test_a_phone_scrolls_tables_inside_their_boxes(visit: Visiting, site: Path) -> None:
    page = visit(site, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).page
    for hash_ in HASHES:
        page.evaluate("hash => { location.hash = hash }", hash_)
        page.wait_for_timeout(30)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, hash_
    page.locator("td[data-cell]").first.tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('#provenance').scrollWidth") <= 390


def contrast(colours: list[str]) -> float:
    """WCAG's contrast of two 'rgb(r, g, b)'."""
    luminances = []
    for colour in colours:
        channels = np.array([int(c) for c in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    low, high = sorted(luminances)
    return (high + 0.05) / (low + 0.05)


COLOURS = """() => [...document.querySelectorAll('.muted, a, .dagger, .spread, .reported, .gain, .loss, .tag, td b')]
  .filter((one) => one.offsetParent).map((one) => [one, document.body])
  .map(([one, body]) => [getComputedStyle(one).color, getComputedStyle(body).backgroundColor])"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_legible_in_light_and_dark(visit: Visiting, site: Path, scheme: str) -> None:
    page = visit(site, color_scheme=scheme).page
    page.check("[name=reported]")
    pairs = page.evaluate(COLOURS)
    assert len(pairs) > 20
    assert min(map(contrast, pairs)) >= 4.5
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    page.click("#theme")
    assert page.evaluate(background) != before
    assert min(map(contrast, page.evaluate(COLOURS))) >= 4.5
