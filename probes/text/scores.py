"""Scores of what was read, of all test words or of any weighing of them. Imports no torch.

Shapes: N words, R rows of word weights.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.protocol import Resampling

WORDS, CHARACTERS = "word accuracy", "character accuracy"


class Score(NamedTuple):
    """A share, and its standard error over words; None for a single word."""

    value: float
    stderr: float | None


def edit_distance(left: str, right: str) -> int:
    """Levenshtein's: least number of letters to insert, delete or replace."""
    row = list(range(len(right) + 1))
    for index, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], index
        for place, b in enumerate(right, start=1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (a != b))
    return row[-1]


def scores(read: Sequence[str], truth: Sequence[str]) -> dict[str, Score]:
    """Share of words read without a fault, and 1 - edit distances / letters, each summed over all words."""
    right = np.array([a == b for a, b in zip(read, truth, strict=True)], dtype=float)
    distances = np.array([edit_distance(a, b) for a, b in zip(read, truth, strict=True)], dtype=float)
    letters = np.array([len(word) for word in truth], dtype=float)
    return {WORDS: _ratio(right, np.ones(len(right))), CHARACTERS: _complement(_ratio(distances, letters))}


def _ratio(above_N: NDArray[np.float64], below_N: NDArray[np.float64]) -> Score:
    """Of sums; the error is that of a ratio estimator, by its linearisation (for means: the usual one)."""
    count, total = len(above_N), below_N.sum()
    value = float(above_N.sum() / total)
    if count < 2:
        return Score(value, None)
    residuals_N = above_N - value * below_N
    return Score(value, math.sqrt(float(residuals_N @ residuals_N) * count / (count - 1)) / float(total))


def _complement(score: Score) -> Score:
    return Score(1 - score.value, score.stderr)


def resampling(items: Path) -> list[Resampling]:
    """See `probes.protocol.Resamples`."""
    import pandas as pd

    frame = pd.read_parquet(items)
    right_N, distance_N = (frame[name].to_numpy(dtype=float) for name in ("correct", "distance"))
    letters_N = frame["letters"].str.len().to_numpy(dtype=float)

    def weighed(weights_RN: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        with np.errstate(invalid="ignore"):  # a row of zeros leaves nothing to judge: NaN
            words_R = weights_RN @ right_N / weights_RN.sum(axis=1)
            characters_R = 1 - weights_RN @ distance_N / (weights_RN @ letters_N)
        return {WORDS: words_R, CHARACTERS: characters_R}

    return [Resampling(ids=frame["word"].tolist(), scores=weighed)]
