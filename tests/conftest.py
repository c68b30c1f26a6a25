"""Fixtures shared by all tests."""

import importlib.util
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from PIL import ImageFile

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

hypothesis.settings.register_profile("rice", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("rice")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, saying why. Files with slow tests go first: no worker shall end with one."""
    import torch

    skips = {
        "gpu": (not torch.cuda.is_available(), "needs a CUDA device"),
        "data": (not SHARED_DATA.is_dir(), "needs the small real data in ../shared/data"),
        "hub": (not os.environ.get("RICE_HUB"), "needs the model hub; set RICE_HUB=1 where it is reachable"),
    }
    for item in items:
        for marker, (missing, reason) in skips.items():
            if missing and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def cut_pictures_are_damaged() -> None:
    """Importing lmms-eval asks Pillow to fill cut pictures with grey, for the whole process and so for later tests."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False


@pytest.fixture(autouse=True)
def pins_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test reads of a hub, no other one and no user shall have to agree with."""
    monkeypatch.setenv("RICE_PINS", str(tmp_path_factory.getbasetemp() / f"pins-{uuid.uuid4().hex}.json"))


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Of a script's name: the one of this folder as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def shared_data() -> Path:
    """Root of the small real data; tests that use it are marked `data`."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the small real data in ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[..., Any]]:
    """Starts Chromium with flags. One Playwright serves all tests: a process cannot hold two."""
    if CHROMIUM is None:
        pytest.skip("needs chromium or google-chrome on the PATH")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])


@pytest.fixture(scope="session")
def browser(launch: "Callable[..., Browser]") -> "Iterator[Browser]":
    browser = launch()
    yield browser
    browser.close()


@dataclass
class Visit:
    """A page and what it said, asked for and raised meanwhile."""

    page: "Page"
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @staticmethod
    def until(place: "Locator", condition: str) -> None:
        """Wait for a condition (the page's policy forbids Playwright's own way, which evaluates a text in the page)."""
        for _ in range(200):
            if place.evaluate(condition):
                return
            place.page.wait_for_timeout(25)
        raise AssertionError(f"never came true: {condition}")


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., Visit]]:
    """Open a page and wait until it is there. At the end none may have complained, or asked for anything outside."""
    visits: list[tuple[Visit, Path]] = []

    def visit(site: Path, hash_: str = "", script: str = "", **context: Any) -> Visit:
        page = browser.new_context(**context).new_page()
        one = Visit(page)
        page.on("console", lambda message: one.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: one.said.append(str(error)))
        page.on("request", lambda request: one.asked.append(request.url))
        page.add_init_script(script)
        page.goto(f"{(site / 'index.html').as_uri()}{hash_}")
        page.wait_for_selector("body[data-ready]")
        visits.append((one, site))
        return one

    yield visit
    for one, site in visits:
        inside = ("data:", "blob:", site.as_uri())
        assert not one.said
        assert [url for url in one.asked if not url.startswith(inside)] == []
        assert one.page.evaluate("window.hacked") is None
        one.page.context.close()
