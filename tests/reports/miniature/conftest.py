"""Lets this folder's tests import their samples (`made_up`); what `rice train` is asked for."""

import sys
from pathlib import Path
from typing import Any

import pytest

from rice.train.config import TrainConfig

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, Path]]:
    """What `rice train` was asked for."""
    found: list[tuple[TrainConfig, Path]] = []

    def note(config: TrainConfig, data: Path, *_: Any) -> str:
        found.append((config, data))
        return ""

    monkeypatch.setattr("rice.train.build.plan", note)
    return found
