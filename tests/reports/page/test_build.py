"""The written site: replaced whole, never over what is not its own, and with a policy that its own script fits."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reports.page.build import INLINE_BYTES, write_site
from reports.page.media import Asset, Figure
from rice.errors import RiceError

MP4 = b"\0\0\0\x18ftypmp42"
DATA: dict[str, Any] = {"rows": [], "columns": [], "cells": [], "results": [], "settings": [], "pool": [], "views": []}


def write(out: Path, title: str = "A title", figures: tuple[Figure, ...] = (), **data: Any) -> Path:
    return write_site(out, title=title, data=DATA | data, figures=figures, tables=[], rows_of={"f": [3]})


def clip(folder: Path, size: int, name: str = "clip") -> Figure:
    path = folder / f"{name}.mp4"
    path.write_bytes(MP4 + name.encode() + bytes(size))
    return Figure(kind="pca", title="clip", clip=Asset(path), encoders=frozenset({"f"}))


class Elements(HTMLParser):
    """(tag, attributes, text) of elements that hold plain text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(("", {}, ""))

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes, text = self.found[-1]
            self.found[-1] = tag, attributes, text + data

    def of(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        return [(a, text) for t, a, text in self.found if t == tag and wanted.items() <= a.items()]


def data_of(page: Path) -> Any:
    return json.loads(Elements(page.read_text()).of("script", id="data")[0][1])


@pytest.mark.parametrize("hostile", ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{7*7}}"])
def test_hostile_texts_stay_texts(tmp_path: Path, hostile: str) -> None:
    figure = Figure(kind="pca", title=hostile, facts=((hostile, hostile),))
    page = write(tmp_path / "site", hostile, (figure,), pool=[hostile], left=[[hostile, hostile]])
    elements = Elements(page.read_text())
    assert len(elements.of("script")) == 2
    assert not elements.of("img")
    assert "49" not in elements.of("title")[0][1]
    found = data_of(page)
    assert found["pool"] == [hostile]
    assert found["title"] == found["left"][0][0] == found["figures"][0]["title"] == hostile


def test_the_policy_allows_this_script_and_style_and_nothing_from_outside(tmp_path: Path) -> None:
    elements = Elements(write(tmp_path / "site").read_text())
    policy = str(elements.of("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"])
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    for kind, text in (("script", elements.of("script", type="module")[0][1]), ("style", elements.of("style")[0][1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == [f"'sha256-{digest}'"]
    assert rules["default-src"] == ["'none'"]
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)


def test_small_media_are_inside_the_page_and_large_ones_beside_it(tmp_path: Path) -> None:
    figures = (clip(tmp_path, 10, "small"), clip(tmp_path, INLINE_BYTES, "large"), clip(tmp_path, 10, "small"))
    page = write(tmp_path / "site", figures=figures)
    small, large, again = (figure["clip"] for figure in data_of(page)["figures"])
    assert small == again == {"type": "video/mp4", "inline": 0}
    inside = Elements(page.read_text()).of("script", id="medium-0")[0][1]
    assert base64.b64decode(inside) == (tmp_path / "small.mp4").read_bytes()
    assert (page.parent / large["file"]).read_bytes() == (tmp_path / "large.mp4").read_bytes()
    assert data_of(page)["figures"][0]["rows"] == [3]


def test_a_page_of_another_verb_may_ask_nothing_of_any_network(tmp_path: Path) -> None:
    source = tmp_path / "tsne.html"
    source.write_text("<!DOCTYPE html><html><head><title>x</title></head><script>1</script></html>")
    page = write(tmp_path / "site", figures=(Figure(kind="tsne", title="t", page=Asset(source)),))
    text = (page.parent / data_of(page)["figures"][0]["page"]["file"]).read_text()
    policy = str(Elements(text).of("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"])
    assert text.index(policy) < text.index("<script>")
    assert policy.startswith("default-src 'none';")
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["script-src"] == [f"'sha256-{base64.b64encode(hashlib.sha256(b'1').digest()).decode()}'"]
    assert not re.search(r"https?:|\*", policy)
    assert text.endswith(source.read_text())


def test_the_same_command_replaces_the_page_and_removes_stale_media(tmp_path: Path) -> None:
    out = tmp_path / "site"
    write(out, figures=(clip(tmp_path, INLINE_BYTES, "first"),))
    before = set((out / "media").iterdir())
    page = write(out, "Another", figures=(clip(tmp_path, INLINE_BYTES, "second"),))
    assert len(before) == 1
    assert len(set((out / "media").iterdir())) == 1
    assert before != set((out / "media").iterdir())
    assert "<title>Another</title>" in page.read_text()


@pytest.mark.parametrize("foreign", ["notes.txt", "index.html", "media/own.mp4", "results"])
def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_was(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "site" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("<!doctype html> my own")
    with pytest.raises(RiceError, match="choose another --out"):
        write(tmp_path / "site")
    assert path.read_text() == "<!doctype html> my own"
    assert [p for p in (tmp_path / "site").rglob("*") if p.is_file()] == [path]


def test_what_a_killed_report_left_is_no_obstacle_and_goes(tmp_path: Path) -> None:
    out = tmp_path / "site"
    (out / "media").mkdir(parents=True)
    leftovers = [out / ".index.html.abc.tmp", out / "media" / ".0123456789abcdef.mp4.xyz.tmp"]
    for path in leftovers:
        path.touch()
    write(out)
    assert not any(path.exists() for path in leftovers)


def test_halves_of_surrogate_pairs_do_not_stop_the_page(tmp_path: Path) -> None:
    page = write(tmp_path / "site", "half \ud800", pool=["half \ud800"])
    assert data_of(page)["pool"] == ["half \ud800"]
