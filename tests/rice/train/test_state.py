"""A checkpoint is whole or absent, comes back bit for bit at any number of ranks, and is verified when read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import state_targets as targets

Run = Callable[..., list[Any]]


@pytest.mark.parametrize("classes", [7, 2])
def test_two_one_and_three_ranks_hand_on_the_same_bits(tmp_path: Path, run: Run, classes: int) -> None:
    for saving, loading in ((2, 1), (1, 3), (3, 4), (4, 2)):
        folder = tmp_path / f"{saving}-{loading}"
        run(saving, targets.save_one, folder, 5, classes)
        run(loading, targets.load_one, folder, 5, classes)
