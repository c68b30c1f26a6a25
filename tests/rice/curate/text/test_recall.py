"""The benchmark's shares, by hand on one made-up picture."""

import numpy as np
import pytest

from benchmarks.ocr import Truth, counts
from rice.curate.text.reader import Line


def quad(left: float, top: float, right: float, bottom: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def test_shares_are_those_of_their_definitions() -> None:
    truth = [
        Truth(quad(0, 0, 100, 10), "TEA, 2 x"),  # read in two lines, all three words
        Truth(quad(0, 30, 100, 40), "tea cup"),  # "cup" is read elsewhere, "tea" not at all
        Truth(quad(0, 60, 100, 70), "SDN BHD"),  # read without its space: the same line, other words
        Truth(quad(0, 90, 100, 99), "--"),  # no words
    ]
    lines = [
        Line(quad(0, 0, 40, 10), "Tea,", 0.9),
        Line(quad(60, 1, 100, 11), "2 X", 0.9),
        Line(quad(0, 80, 40, 88), "cup", 0.9),
        Line(quad(0, 61, 100, 70), "SDNBHD", 0.9),
        Line(quad(0, 30, 40, 40), "tea", 0.6),
    ]
    above = counts([truth], [(200, 200, lines)], 0.7, "sroie")
    assert above == pytest.approx(
        {"recall": 4 / 7, "placed": 3 / 7, "precision": 4 / 5, "lines": 1 / 3, "of_words": 7, "of_lines": 3}
    )
    everything = counts([truth], [(200, 200, lines)], 0.0, "icdar15")
    assert everything == pytest.approx({"recall": 5 / 7, "placed": 4 / 7, "lines": 1 / 3, "of_words": 7, "of_lines": 3})


def test_a_word_read_once_serves_one_place() -> None:
    truth = [Truth(quad(0, 0, 50, 20), "one"), Truth(quad(0, 12, 50, 32), "one")]
    lines = [Line(quad(0, 8, 50, 24), "one", 0.9)]
    assert counts([truth], [(99, 99, lines)], 0.7, "icdar15")["placed"] == 0.5
