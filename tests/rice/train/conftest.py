"""Several ranks on one machine."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # ranks find their targets by name

from ranks import Ranks


@pytest.fixture
def start() -> Iterator[Callable[..., Ranks]]:
    """start(world, target, *arguments) -> Ranks; what still runs at the test's end is killed."""
    started: list[Ranks] = []

    def begin(world: int, target: Callable[..., Any], *arguments: Any, **options: Any) -> Ranks:
        started.append(Ranks(world, target, *arguments, **options))
        return started[-1]

    yield begin
    for ranks in started:
        ranks.kill()


@pytest.fixture
def run(start: Callable[..., Ranks]) -> Callable[..., list[Any]]:
    """run(world, target, *arguments) -> each rank's return value."""

    def begin(world: int, target: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        return start(world, target, *arguments, **options).results()

    return begin
