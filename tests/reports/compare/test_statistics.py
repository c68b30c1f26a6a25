"""Estimates against scipy, closed forms and simulations in which the truth is known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from reports.compare.resample import draws
from reports.compare.statistics import FEWEST_DATASETS, across, holm, mean_ranks, rank_ranges, summary

FINITE = st.floats(-100, 100).map(lambda x: round(x, 3))
SEEDS = st.lists(FINITE, min_size=2, max_size=8).filter(lambda values: len(set(values)) > 1)


def weights(count: int, resamples: int, seed: int = 0) -> NDArray[np.float64]:
    """Shares of the items, (R, count)."""
    return np.concatenate(list(draws(count, resamples, seed))) / count


def crossed(rng: np.random.Generator, seeds: int, items: int, spreads: tuple[float, float, float]) -> NDArray:
    """(S, N) of mean 0: a seed's effect, an item's, and what only both together explain."""
    over_seeds, over_items, both = spreads
    effects = rng.normal(0, over_seeds, (seeds, 1)) + rng.normal(0, over_items, (1, items))
    return effects + rng.normal(0, both, (seeds, items))


@given(SEEDS)
def test_without_items_the_interval_is_students(values: list[float]) -> None:
    estimate = summary(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert estimate.interval == pytest.approx((low, high))
    assert estimate.mean == pytest.approx(np.mean(values))
    assert estimate.spread == pytest.approx(np.std(values, ddof=1))
    assert (estimate.how, estimate.seeds, estimate.items) == ("seeds", len(values), 0)


@given(SEEDS, st.data())
def test_without_items_p_is_that_of_the_paired_t_test(values: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(FINITE, min_size=len(values), max_size=len(values)))
    differences = np.array(values) - others
    if np.ptp(differences) < 1e-6:
        return
    estimate = summary(differences)
    assert estimate.p == pytest.approx(stats.ttest_rel(values, others).pvalue, abs=1e-12)
    assert estimate.interval is not None
    low, high = estimate.interval
    assert (estimate.p < 0.05) == (low > 0 or high < 0)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [0.1 + 0.2, 0.3, 0.3]])
def test_nothing_that_varies_gives_no_interval(values: list[float]) -> None:
    """Three deterministic seeds are no evidence of certainty, nor is rounding evidence of noise."""
    estimate = summary(values)
    assert (estimate.interval, estimate.p, estimate.how) == (None, None, "none")


def test_the_error_of_a_mean_over_items_is_scipys() -> None:
    items = np.random.default_rng(1).exponential(size=40)
    replicates = weights(40, 20_000) @ items
    estimate = summary([items.mean()], replicates[None], 40)
    assert estimate.error == pytest.approx(stats.sem(items), rel=0.02)
    assert (estimate.how, estimate.items) == ("items", 40)
    assert estimate.freedom == pytest.approx(39)
    scipys = stats.bootstrap((items,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2))
    assert np.percentile(replicates, [2.5, 97.5]) == pytest.approx(list(scipys.confidence_interval), abs=0.015)
    students = stats.t.interval(0.95, 39, loc=items.mean(), scale=stats.sem(items))
    assert estimate.interval == pytest.approx(students, abs=0.015)


@pytest.mark.parametrize("spreads", [(1, 1, 1), (0.3, 1, 0.1), (0, 0.5, 2), (2, 0.1, 0.1)])
def test_seeds_and_items_add_up_as_in_the_analysis_of_variance(spreads: tuple[float, float, float]) -> None:
    seeds, count = 4, 30
    table = crossed(np.random.default_rng(3), seeds, count, spreads)
    estimate = summary(table.mean(1), table @ weights(count, 20_000).T, count)
    residual = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    over_items = table.mean(0).var(ddof=1) / count
    both = (residual**2).sum() / (count - 1) / count / (seeds * (seeds - 1))
    beyond = max(0.0, table.mean(1).var(ddof=1) / seeds - both)
    assert estimate.error == pytest.approx(math.sqrt(over_items + beyond), rel=0.02)
    freedom = (over_items + beyond) ** 2 / (over_items**2 / (count - 1) + beyond**2 / (seeds - 1))
    assert estimate.freedom == pytest.approx(freedom, rel=0.06)
    assert estimate.how == "seeds and items"


@pytest.mark.parametrize("spreads", [(1, 0.01, 0.01), (0.01, 1, 0.01), (0, 0, 1), (0.15, 1, 0.5), (0.3, 1, 1)])
def test_intervals_over_three_seeds_and_items_cover_as_often_as_they_say(spreads: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(4)
    drawn = weights(40, 300).T
    covered = 0
    for _ in range(400):
        table = crossed(rng, 3, 40, spreads)
        interval = summary(table.mean(1), table @ drawn, 40).interval
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("seeds", "items"), [(3, 0), (1, 50), (3, 50)])
def test_p_values_are_uniform_where_there_is_no_difference(seeds: int, items: int) -> None:
    rng = np.random.default_rng(5)
    drawn = weights(items, 400).T if items else None
    p_values = []
    for _ in range(500):
        table = crossed(rng, seeds, items or 1, (0.3 if seeds > 1 else 0, 1 if items else 0, 0.2 if items else 0))
        p_values.append(summary(table.mean(1), None if drawn is None else table @ drawn, items).p)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_draws_that_leave_nothing_to_judge_are_dropped() -> None:
    items = np.arange(10.0)
    replicates = weights(10, 500) @ items
    holes = np.where(np.arange(500) < 5, np.nan, replicates)
    assert summary([4.5], holes[None], 10) == summary([4.5], replicates[None, 5:], 10)
    assert summary([4.5], np.full((1, 500), np.nan), 10).how == "none"
    assert summary([4.5, 4.6], np.array([[4.5, 4.5], [4.6, 4.6]]), 1).how == "seeds", "one item says nothing of items"


def test_draws_are_multinomial_and_a_function_of_seed_and_count() -> None:
    table = np.concatenate(list(draws(7, 3000, 0)))
    assert table.shape == (3000, 7)
    assert (table.sum(1) == 7).all()
    assert table.mean(0) == pytest.approx(np.ones(7), abs=0.08)
    assert table.var(0) == pytest.approx(np.full(7, 7 * (1 / 7) * (6 / 7)), abs=0.1)
    assert (table == np.concatenate(list(draws(7, 3000, 0)))).all()
    assert not (table == np.concatenate(list(draws(7, 3000, 1)))).all()


@given(SEEDS, st.sampled_from([-100.0, 0.01, 100.0]))
def test_another_unit_changes_neither_p_nor_what_lies_within(values: list[float], factor: float) -> None:
    plain, scaled = summary(values), summary([factor * value for value in values])
    assert plain.interval is not None
    assert scaled.interval is not None
    assert sorted(factor * end for end in plain.interval) == pytest.approx(sorted(scaled.interval))
    assert scaled.p == pytest.approx(plain.p)


@given(SEEDS, st.integers(0, 99))
def test_the_opposite_difference_has_the_opposite_interval_and_the_same_p(values: list[float], seed: int) -> None:
    replicates = np.random.default_rng(seed).normal(size=(len(values), 50))
    one, other = summary(values, replicates, 30), summary([-value for value in values], -replicates, 30)
    assert one.interval is not None
    assert other.interval == pytest.approx([-end for end in one.interval[::-1]])
    assert other.p == pytest.approx(one.p)


def test_holms_p_values_are_those_of_R() -> None:
    assert holm([0.04, 0.01, 0.05, 0.02, 0.03]).tolist() == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_step_by_step(p_values: list[float]) -> None:
    """Holm 1979: go up the ordered p-values while p <= 0.05 / (tests left)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    rejected = set()
    for step, k in enumerate(order):
        if (len(p_values) - step) * p_values[k] > 0.05:
            break
        rejected.add(k)
    assert {k for k, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


@pytest.mark.parametrize("differences", [[1.1, 2.2, -0.5, 3.3, 0.7, 4.1, 2.9], [-1.0, -2.0, 3.0, -4.0, -5.0, -6.0]])
def test_tests_over_datasets_count_all_signs_that_chance_could_draw(differences: list[float]) -> None:
    d = np.array(differences)
    found = across(d)
    ranks = stats.rankdata(np.abs(d))
    signs = np.array(list(itertools.product([0, 1], repeat=len(d))))
    sums, middle = signs @ ranks, ranks.sum() / 2
    at_least = np.abs(sums - middle) >= abs(ranks[d > 0].sum() - middle) - 1e-9
    assert found.wilcoxon == pytest.approx(at_least.mean())
    wins = signs.sum(1)
    assert found.sign == pytest.approx((np.abs(wins - len(d) / 2) >= abs((d > 0).sum() - len(d) / 2)).mean())
    assert (found.wins, found.losses, found.mean) == ((d > 0).sum(), (d < 0).sum(), pytest.approx(d.mean()))


def test_few_datasets_are_not_tested_since_no_result_could_be_significant() -> None:
    fewest = FEWEST_DATASETS
    assert 2 * 0.5**fewest < 0.05 < 2 * 0.5 ** (fewest - 1)
    assert across([1.0] * (fewest - 1)).sign is None
    assert across([1.0] * (fewest - 1) + [0.0]).wilcoxon is None
    assert across(np.arange(1.0, fewest + 1)).sign == pytest.approx(2 * 0.5**fewest)


def test_encoders_that_noise_cannot_tell_apart_share_ranks() -> None:
    better = np.zeros((3, 3), dtype=np.bool_)
    assert rank_ranges(better) == [(1, 3)] * 3
    better[0, 2] = True  # 0 beats 2; 1 is like both
    assert rank_ranges(better) == [(1, 2), (1, 3), (2, 3)]
    assert rank_ranges(np.triu(np.ones((4, 4), dtype=np.bool_), 1)) == [(k, k) for k in range(1, 5)]


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(3, 6), st.integers(FEWEST_DATASETS, 12))
def test_friedmans_test_is_its_formula(seed: int, encoders: int, datasets: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(encoders, datasets))
    found = mean_ranks(scores, [f"d{k}" for k in range(datasets)], 200, 0)
    ranks = encoders + 1 - (np.argsort(np.argsort(scores, axis=0), axis=0) + 1)
    assert found.means == pytest.approx(ranks.mean(1).tolist())
    chi2 = (
        12 * datasets / (encoders * (encoders + 1)) * ((ranks.mean(1) ** 2).sum() - encoders * (encoders + 1) ** 2 / 4)
    )
    assert found.friedman == pytest.approx(stats.chi2.sf(chi2, encoders - 1))
    assert found.intervals is not None
    for mean, (low, high) in zip(found.means, found.intervals, strict=True):
        assert 1 <= low <= mean <= high <= encoders


def test_a_second_metric_of_a_dataset_is_no_second_dataset() -> None:
    scores = np.random.default_rng(7).normal(size=(3, 6))
    names = [f"d{k}" for k in range(6)]
    once = mean_ranks(scores, names, 300, 0)
    assert mean_ranks(np.concatenate([scores, scores[:, :2]], axis=1), [*names, "d0", "d1"], 300, 0) == once
    assert mean_ranks(scores[:, :5], names[:5], 300, 0).intervals is None
    assert mean_ranks(np.tile(scores[:, :1], 6), ["one"] * 6, 300, 0).datasets == 1


def test_the_interval_of_a_mean_rank_is_scipys_percentile_bootstrap() -> None:
    scores = np.random.default_rng(8).normal(size=(4, 20)) + np.arange(4)[:, None] / 3
    found = mean_ranks(scores, [f"d{k}" for k in range(20)], 20_000, 0)
    ranks = stats.rankdata(-scores, axis=0)
    assert found.intervals is not None
    for row, interval in zip(ranks, found.intervals, strict=True):
        scipys = stats.bootstrap((row,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(9))
        assert interval == pytest.approx(list(scipys.confidence_interval), abs=0.051)


def test_items_and_seeds_enter_by_the_formula_at_the_top_of_the_module() -> None:
    draws_SR = np.array([[1.0, 2.0, 4.0, 3.0], [2.0, 2.0, 3.0, 5.0], [0.0, 7.0, 1.0, 1.0]])
    values = np.array([2.0, 9.0, 4.0])
    for seeds, items in ((3, 5), (2, 5), (3, 2)):
        part, ours = draws_SR[:seeds], values[:seeds]
        over_items = items / (items - 1) * np.var(part.mean(0), ddof=1)
        apart = items / (items - 1) * np.var(part - part.mean(0), axis=1, ddof=1).sum() / (seeds * (seeds - 1))
        over_seeds = max(0.0, np.var(ours, ddof=1) / seeds - apart)
        found = summary(ours, part, items)
        assert found.error == pytest.approx(math.sqrt(over_items + over_seeds), rel=1e-12)
        freedom = (over_items + over_seeds) ** 2 / (over_items**2 / (items - 1) + over_seeds**2 / (seeds - 1))
        assert found.freedom == pytest.approx(freedom, rel=1e-12)
        assert (found.how, found.seeds, found.items) == ("seeds and items", seeds, items)
    alone = summary(values[:1], draws_SR[:1], 5)
    assert (alone.error, alone.freedom) == pytest.approx((math.sqrt(5 / 4 * np.var(draws_SR[0], ddof=1)), 4))


def test_a_draw_counts_where_all_seeds_have_a_score_and_one_draw_says_nothing() -> None:
    nan = math.nan
    holes = np.array([[1.0, nan, 4.0, 3.0, 6.0], [2.0, 2.0, nan, 5.0, 1.0]])
    assert summary([1.0, 3.0], holes, 9) == summary([1.0, 3.0], holes[:, [0, 3, 4]], 9)
    assert summary([1.0, 3.0], holes[:, :3], 9) == summary([1.0, 3.0])
    assert summary([1.0, 3.0], holes[:, [0, 3]], 9).items == 9
    assert summary([1.0, 3.0], None, 9).items == 0


def test_noise_below_the_rounding_of_the_values_is_none() -> None:
    assert summary([1e9, 1e9 + 1e-4]).how == "none"
    assert summary([-1e9, -1e9 + 1e-4]).how == "none"
    assert summary([0.0, 1e-9]).how == "seeds"
    assert summary([0.0, 1e-12]).how == "none"


def test_ties_share_ranks_and_friedman_needs_three_encoders_that_differ() -> None:
    names = [f"d{k}" for k in range(FEWEST_DATASETS)]
    ties = mean_ranks(np.ones((3, FEWEST_DATASETS)), names, 100, 0)
    assert (ties.means, ties.intervals, ties.friedman) == ([2.0] * 3, [(2.0, 2.0)] * 3, None)
    two = mean_ranks(np.array([[1.0] * FEWEST_DATASETS, [2.0] * FEWEST_DATASETS]), names, 100, 0)
    assert (two.means, two.intervals, two.friedman) == ([2.0, 1.0], [(2.0, 2.0), (1.0, 1.0)], None)
    few = mean_ranks(np.array([[1.0, 3.0], [1.0, 2.0], [0.0, 1.0]]), ["a", "b"], 100, 0)
    assert (few.means, few.intervals, few.friedman, few.datasets) == ([1.25, 1.75, 3.0], None, None, 2)


def test_the_intervals_of_ranks_are_the_quantiles_of_drawing_datasets_and_repeat_with_their_seed() -> None:
    """Lost on 3 of 12 datasets: a draw's losses are binomial (12, 1/4), none with a chance of 0.0317, over 0.025."""
    names = [f"d{k:02}" for k in range(12)]
    scores = np.array([[1.0] * 12, [2.0] * 3 + [0.0] * 9])
    found = mean_ranks(scores, names, 20_000, 5)
    assert found.intervals == [(1.0, 1 + 6 / 12), (2 - 6 / 12, 2.0)]
    few = [[mean_ranks(scores, names, 101, seed).intervals for seed in range(20)] for _ in range(2)]
    assert few[0] == few[1]
    assert len({str(intervals) for intervals in few[0]}) > 1


def test_datasets_that_are_equal_are_neither_won_nor_lost() -> None:
    d = [1.0, -2.0, 0.0, 3.0, 4.0, -0.5, 6.0, 0.0]
    found = across(d)
    assert (found.wins, found.losses, found.mean) == (4, 2, pytest.approx(sum(d) / 8))
    assert found.wilcoxon == pytest.approx(stats.wilcoxon([x for x in d if x]).pvalue)
    assert found.sign == pytest.approx(2 * (1 + 6 + 15) / 2**6)
