"""A page, a table, a card, the paper's tables and a comparison say the same of the same results."""

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_results import of_table_3

from probes.results import documents, frame_of, load, rows_of, store
from reports.cards.groups import groups
from reports.compare.measured import measured
from reports.compare.ranks import rank_all
from reports.compare.resample import Resampler
from reports.measurements import measurements, over_seeds, rows_in
from reports.page.content import page_data
from reports.paper.beside import beside
from reports.tables import build
from rice.progress import SilentProgress

TIES = [(0.1709, 0.01111, 0.73494), (0.71395, 0.28914, 0.82676), (0.39043, 0.97496, 0.20736)]
"""Their means in percent have a 5 as third decimal: the last digit shown depends on each rounding before it."""


@pytest.mark.parametrize("values", TIES)
def test_all_reports_show_a_score_alike_to_its_last_digit(tmp_path: Path, values: tuple[float, ...]) -> None:
    for seed, value in enumerate(values):
        store(tmp_path, of_table_3("box AP", value, seed=seed))
    found, frame = list(documents(tmp_path)), load(tmp_path)
    (cell,) = build(frame, ["encoder"], ["metric"]).cells.values()
    ((_, _, _, _, shown, *_),) = page_data(found, measurements(rows_of(found)))["cells"]
    ((one,),) = (group.scores for group in groups(found))
    (own,) = beside(measurements(rows_of(found)))
    stored, resampler = measured(frame), Resampler(tmp_path)
    resampler.prepare(zip(frame["probe"], frame["key"], strict=True), SilentProgress())
    (ranked,) = rank_all(stored, resampler, SilentProgress()).ranked.values()
    texts = {cell.score.text(2), shown, one.score.text(2), own.score.text(2), ranked.text(2)}
    assert len(texts) == 1


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_a_score_is_the_mean_and_the_sample_deviation(values: list[float]) -> None:
    score = over_seeds(values)
    assert score.mean == pytest.approx(statistics.mean(values), rel=1e-14)
    assert score.spread == pytest.approx(statistics.stdev(values), rel=1e-12, abs=1e-14)
    assert over_seeds(values[::-1]) == score


@given(st.floats(0, 1), st.integers(2, 9))
def test_equal_seeds_have_no_spread(value: float, count: int) -> None:
    assert over_seeds([value] * count).mean == value
    assert over_seeds([value] * count).spread == 0


def test_a_frame_gives_the_rows_that_its_documents_give(tmp_path: Path) -> None:
    store(tmp_path, of_table_3("box AP", 0.5))
    store(tmp_path, of_table_3("box AP", 0.5, size=None, layer=None, tokens=None, gflops=None, images_per_s=None))
    found = list(documents(tmp_path))
    by_key = {row["key"]: row for row in rows_of(found)}
    rows = list(rows_in(frame_of(found)))
    assert {row["key"]: row for row in rows} == by_key
    assert {str(row["size"]) for row in rows} == {"512", "None"}
