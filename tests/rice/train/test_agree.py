"""Where one rank fails, all fail with its words, and none waits."""

from collections.abc import Callable
from typing import Any

import agree_targets as targets
import pytest

from rice.errors import RiceError

Run = Callable[..., list[Any]]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_users_error_on_one_rank_is_the_same_line_on_all(run: Run, rank: int) -> None:
    assert run(2, targets.fail_on, rank, RiceError) == ["RiceError: no such shard"] * 2


def test_a_defect_keeps_its_kind_where_it_happened_and_its_rank_elsewhere(run: Run) -> None:
    said = run(3, targets.fail_on, 1, ZeroDivisionError)
    assert said == [
        "RuntimeError: rank 1: no such shard",
        "ZeroDivisionError: no such shard",
        "RuntimeError: rank 1: no such shard",
    ]


def test_the_first_ranks_failure_reaches_all(run: Run) -> None:
    assert run(2, targets.lead_fails) == ["no folder"] * 2


def test_own_results_stay_and_the_firsts_is_handed_out(run: Run) -> None:
    assert run(2, targets.own_and_first) == [(0, 10), (1, 10)]
