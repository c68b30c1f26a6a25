"""Edit distances against their recursive definition, accuracies against exact fractions, errors against a bootstrap."""

import functools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.text.data import WordItem
from probes.text.evaluate import write_items
from probes.text.scores import edit_distance, resampling, scores
from rice.data.icdar import TextBox

SHORT = st.text(alphabet="abc", max_size=6)
PAIRS = st.lists(st.tuples(SHORT, st.text(alphabet="abc", min_size=1, max_size=6)), min_size=1, max_size=8)


@functools.cache
def defined(left: str, right: str) -> int:
    """Levenshtein's recurrence, as it is written down."""
    if not left or not right:
        return len(left) + len(right)
    return min(
        defined(left[1:], right) + 1,
        defined(left, right[1:]) + 1,
        defined(left[1:], right[1:]) + (left[0] != right[0]),
    )


@given(left=SHORT, right=SHORT)
def test_edit_distance_is_levenshteins(left: str, right: str) -> None:
    assert edit_distance(left, right) == defined(left, right) == edit_distance(right, left)


@given(pairs=PAIRS)
def test_accuracies_are_exact_fractions(pairs: list[tuple[str, str]]) -> None:
    read, truth = zip(*pairs, strict=True)
    found = scores(read, truth)
    right = Fraction(sum(a == b for a, b in pairs), len(pairs))
    wrong = Fraction(sum(defined(a, b) for a, b in pairs), sum(len(b) for _, b in pairs))
    assert found["word accuracy"].value == pytest.approx(float(right))
    assert found["character accuracy"].value == pytest.approx(float(1 - wrong))
    assert (found["word accuracy"].stderr is None) == (len(pairs) == 1)


def words(truth: list[str]) -> list[WordItem]:
    box = TextBox(Path("1.png"), Path("1.txt"), 1, (0, 0, 1, 0, 1, 1, 0, 1), "")
    return [WordItem(f"1.png:{k}", box, letters) for k, letters in enumerate(truth)]


def some(count: int) -> tuple[list[str], list[str]]:
    """What was read, and the truth: about half of the words wrong, long ones more often."""
    rng = np.random.default_rng(0)
    truth = ["".join(rng.choice(list("abcdef"), rng.integers(1, 11))) for _ in range(count)]
    return ["".join(c for c in word if rng.random() > 0.12) for word in truth], truth


def test_standard_errors_are_those_of_a_bootstrap_over_words(tmp_path: Path) -> None:
    read, truth = some(300)
    write_items(tmp_path / "items.parquet", words(truth), read)
    (resample,) = resampling(tmp_path / "items.parquet")
    weights = np.random.default_rng(1).multinomial(300, np.full(300, 1 / 300), size=4000).astype(float)
    drawn = resample.scores(weights)
    for name, score in scores(read, truth).items():
        assert score.stderr == pytest.approx(drawn[name].std(ddof=1), rel=0.06)


@given(pairs=PAIRS)
def test_items_give_the_metrics_back_on_any_set_of_words(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    read, truth = (list(part) for part in zip(*pairs, strict=True))
    write_items(path, words(truth), read)
    (resample,) = resampling(path)
    assert len(set(resample.ids)) == len(pairs)
    rows = np.stack([np.ones(len(pairs)), np.arange(len(pairs)) == 0, np.zeros(len(pairs))]).astype(float)
    found = resample.scores(rows)
    for name, score in scores(read, truth).items():
        assert found[name][0] == pytest.approx(score.value)
        assert found[name][1] == pytest.approx(scores(read[:1], truth[:1])[name].value)
        assert np.isnan(found[name][2])


def test_items_say_what_was_read(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", words(["stop", "12"]), ["stoop", "12"])
    frame = pd.read_parquet(tmp_path / "items.parquet")
    assert frame["read"].tolist() == ["stoop", "12"]
    assert frame.correct.tolist() == [False, True]
    assert frame.distance.tolist() == [1, 0]


def test_planning_and_resampling_import_no_torch() -> None:
    code = "import sys, probes.text.probe, probes.text.data, probes.text.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
