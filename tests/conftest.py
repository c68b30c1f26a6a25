"""Fixtures shared by all tests."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

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
