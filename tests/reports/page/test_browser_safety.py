"""The page against what files may hold: hostile texts do nothing, pages inside are shut in, much is fast."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probes.results import Result, rows_of, store
from reports.measurements import measurements
from reports.page.build import write_site
from reports.page.command import report
from reports.page.content import page_data
from rice.files import sha256_json

Make = Callable[..., Result]
Visiting = Callable[..., Any]
"""See the fixture `visit`; gives a `Board`."""
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "{{7*7}}${7*7}",
    "safe\u202egnp.exe",
    "javascript:window.hacked=1",
)


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory, make: Make, write_pca: Callable[..., None]) -> Path:
    """Hostile texts wherever the store lets them pass: protocol, configuration, spec, device, dates, captions."""
    root = tmp_path_factory.mktemp("hostile")
    for number, text in enumerate(HOSTILE):
        changes = {"protocol": text, "split": text, "config": {text: text, "nested": {text: [text]}}, "device": text}
        changes |= {"licence": text, "paper": text, "note": text, "source": text, "weights": text, "reference": text}
        changes |= {
            "finished": text,
            "commit": text,
            "versions": {text: text},
            "unit": text,
            "peak_memory": {text: text},
        }
        store(root / "sweep", make(f"Tower {number}", 0, {f"m{number}": 1.0}, **changes))
        refused = make("Tower", 1, {"m": 1.0})
        refused = dataclasses.replace(
            refused, encoder=text, identity=dataclasses.replace(refused.identity, layer=number)
        )
        store(root / "sweep", refused)
    write_pca(root / "figures", "0" * 64, frames=2)
    facts = {"encoder": {"encoder": HOSTILE[1]}, "source": {"name": HOSTILE[0]}, "device": HOSTILE[2]}
    (root / "figures" / "pca.json").write_text(json.dumps(facts))
    report((root / "sweep",), out=root / "site", figures=(root / "figures",), title=HOSTILE[0])
    return root / "site"


def test_hostile_texts_are_shown_as_texts_and_do_nothing(visit: Visiting, hostile_site: Path) -> None:
    page = visit(hostile_site).page
    assert page.inner_text("h1") == HOSTILE[0]
    shown = ""
    for hash_ in ("#/board", "#/encoders", *(f"#/encoder/Tower%20{i}" for i in range(5)), "#/figures", "#/left"):
        page.evaluate("hash => { location.hash = hash }", hash_)
        page.wait_for_timeout(30)
        shown += page.inner_text("main")
    page.evaluate("location.hash = '#/board'")
    for index in range(page.locator("td[data-cell]").count()):
        page.locator("td[data-cell]").nth(index).click()
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        shown += page.inner_text("#provenance")
        page.keyboard.press("Escape")
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[4]):
        assert text in shown
    assert r"safe\u202egnp.exe" in shown
    assert "\u202e" not in shown
    assert page.locator("a[href^='javascript' i]").count() == 0
    assert "markup" in page.inner_text("#page-left") or "markup" in shown


def test_another_verbs_page_runs_shut_in(visit: Visiting, tmp_path: Path, make: Make, sweep: Path) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "tsne.json").write_text("{}")
    shutil.copy(write_png(figures), figures / "tsne.png")
    script = "document.body.textContent = 'drawn'; try { parent.hacked = 1 } catch {} fetch('https://example.org/')"
    (figures / "tsne.html").write_text(
        f"<!DOCTYPE html><html><body><img src='x' onerror=\"document.title = 'handled'; {script}\">"
        f"<script>{script}.catch(() => 0)</script></body></html>"
    )
    report((sweep,), out=tmp_path / "site", figures=(figures,))
    one = visit(tmp_path / "site", "#/figures")
    one.page.click("text=Turn it in space")
    frame = one.page.frame_locator("#viewer iframe")
    assert frame.locator("body", has_text="drawn").inner_text() == "drawn"
    assert [url for url in one.asked if "example.org" in url] == []
    assert frame.locator("body").evaluate("() => document.title") != "handled"
    refused = ("example.org", "inline event handler", "media/x")
    one.said[:] = [text for text in one.said if not any(word in text for word in refused)]  # says the policy


def write_png(folder: Path) -> Path:
    from PIL import Image

    path = folder / "picture.png"
    Image.new("RGB", (8, 8)).save(path)
    return path


READY = """new MutationObserver((_, observer) => { if (document.body?.dataset.ready) {
  window.readyAt = performance.now(); observer.disconnect(); } })
  .observe(document, { subtree: true, attributes: true })"""


@pytest.mark.alone
def test_ten_thousand_cells_are_there_in_seconds(
    visit: Visiting, tmp_path: Path, make: Make, record_property: Callable[[str, object], None]
) -> None:
    documents = []
    for encoder in range(100):
        for dataset in range(10):
            scores = {f"metric {m}": ((encoder * 7 + m * 13) % 100) / 100 for m in range(10)}
            for seed in range(1 + (encoder + dataset) % 3):
                one = make(f"Encoder {encoder}", seed, scores, dataset=f"data {dataset}")
                identity = dataclasses.asdict(one.identity)
                key = sha256_json({**identity, "seed": seed, "dataset": dataset})
                documents.append(dataclasses.asdict(one) | {"key": key})
    data = page_data(documents, measurements(rows_of(documents))) | {"left": []}
    page = write_site(tmp_path / "site", title="Many", data=data, figures=(), tables=[], rows_of={})
    assert page.stat().st_size < 4 << 20
    one = visit(tmp_path / "site", script=READY)
    seconds = one.page.evaluate("window.readyAt") / 1000
    record_property("seconds", seconds)
    print(f"10,000 cells: painted after {seconds:.2f} s, {page.stat().st_size:,} bytes")
    one.until(one.page.locator("body"), "b => b.querySelectorAll('td[data-cell]').length === 10000")
    assert seconds < 4
