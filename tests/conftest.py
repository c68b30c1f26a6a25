"""Fixtures shared by all tests."""

import os
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("rice", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("rice")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say why."""
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


@pytest.fixture
def shared_data() -> Path:
    """Root of the small real data; tests that use it are marked `data`."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the small real data in ../shared/data")
    return SHARED_DATA
