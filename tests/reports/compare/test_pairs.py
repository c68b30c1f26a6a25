"""What is said of a pair of encoders follows from its numbers alone."""

import dataclasses
from typing import Any

import pytest

from reports.compare.measured import Cell
from reports.compare.pairs import Pair, show_p
from reports.compare.statistics import Estimate, summary

CELL = Cell("dense", "d" * 64, "mIoU", "val", "{}", 1, "by hand", "fraction", True)
ERROR_PX = CELL._replace(unit="px", higher_is_better=False)


def pair(cell: Cell, mean: float, **changes: Any) -> Pair:
    """Three seeds about a mean, 0.1 apart: Student's interval is 0.24843 to both sides (2 degrees of freedom)."""
    return Pair(cell=cell, first=0.0, second=0.0, difference=summary([mean - 0.1, mean, mean + 0.1]), **changes)


@pytest.mark.parametrize(
    ("cell", "mean", "verdict", "words"),
    [
        (CELL, 1.0, "better", "better by 1.00 points (0.75 to 1.25), p 0.010"),
        (CELL, -1.0, "worse", "worse by 1.00 points (0.75 to 1.25), p 0.010"),
        (ERROR_PX, -1.0, "better", "better by 1.00 px (0.75 to 1.25), p 0.010"),
        (ERROR_PX, 1.0, "worse", "worse by 1.00 px (0.75 to 1.25), p 0.010"),
        (CELL, 0.2, "indistinguishable", "indistinguishable: +0.20 points (-0.05 to 0.45), p 0.010"),
        (ERROR_PX, 0.2, "indistinguishable", "indistinguishable: -0.20 px (-0.45 to 0.05), p 0.010"),
        (CELL, 1.0, "indistinguishable", "indistinguishable: +1.00 points (0.75 to 1.25), p 0.010, alone p 0.003"),
        (CELL, 0.0, "equal", "equal in every seed"),
    ],
)
def test_words_say_which_is_better_by_how_much_and_how_sure(cell: Cell, mean: float, verdict: Any, words: str) -> None:
    said = pair(cell, mean, p=0.01, verdict=verdict)
    assert said.words(2) == words
    assert said.gain == pytest.approx(mean if cell.higher_is_better else -mean)


def test_what_was_not_tested_says_so() -> None:
    untested = "not tested: one seed, or all alike, and no items"
    assert pair(CELL, 1.0).words(1) == f"+1.0 points; {untested}"
    alone = dataclasses.replace(pair(ERROR_PX, 1.0, p=0.01), difference=summary([1.0]))
    assert alone.words(2) == f"-1.00 px; {untested}"


def test_p_values_are_shown_to_the_digits_that_matter() -> None:
    shown = {0.0: "p < 0.001", 0.00099: "p < 0.001", 0.001: "p 0.001", 0.0456: "p 0.046", 0.0999: "p 0.100"}
    assert {p: show_p(p) for p in shown} == shown
    assert [show_p(p) for p in (0.1, 0.456, 1.0)] == ["p 0.10", "p 0.46", "p 1.00"]


def test_a_difference_alone_is_mentioned_only_where_it_would_have_counted() -> None:
    at = Estimate(mean=1.0, spread=None, error=1.0, freedom=5.0, seeds=1, items=6)
    assert at.p is not None
    assert at.p > 0.05
    said = Pair(cell=CELL, first=0.0, second=0.0, difference=at, p=1.0, verdict="indistinguishable")
    assert said.words(1) == "indistinguishable: +1.0 points (-1.6 to 3.6), p 1.00"
