"""Draws are a function of seed and number, and come as often as the rates say."""

import math
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm.lisa.mixture import RATES, Kind, Mixture
from rice.errors import RiceError

PARTS: dict[Kind, list[range]] = {
    "semantic": [range(1000), range(3)],
    "refer": [range(50), range(7), range(20)],
    "vqa": [range(400)],
    "reason": [range(1)],
}
DRAWS = 32_000


def assert_near(counts: Counter[object], chances: dict[object, float], draws: int) -> None:
    """Within five standard deviations of a binomial."""
    assert set(counts) == set(chances)
    for what, chance in chances.items():
        deviation = math.sqrt(draws * chance * (1 - chance))
        assert abs(counts[what] - draws * chance) <= 5 * deviation, (what, counts[what], draws * chance)


def test_kinds_come_nine_to_three_to_three_to_one() -> None:
    mixture = Mixture(PARTS, seed=1)
    draws = [mixture.draw(k) for k in range(DRAWS)]
    assert_near(
        Counter(draw.kind for draw in draws),
        {"semantic": 9 / 16, "refer": 3 / 16, "vqa": 3 / 16, "reason": 1 / 16},
        DRAWS,
    )


def test_each_set_of_a_kind_is_as_likely_and_each_row_of_a_set() -> None:
    mixture = Mixture(PARTS, seed=2)
    refer = [draw for draw in map(mixture.draw, range(DRAWS)) if draw.kind == "refer"]
    assert_near(Counter(draw.set for draw in refer), dict.fromkeys(range(3), 1 / 3), len(refer))
    rows = [draw.row for draw in refer if draw.set == 1]
    assert_near(Counter(rows), dict.fromkeys(range(7), 1 / 7), len(rows))


def test_kinds_that_are_absent_are_left_out_and_the_others_keep_their_proportions() -> None:
    mixture = Mixture({"refer": PARTS["refer"], "reason": PARTS["reason"], "vqa": []}, seed=3)
    assert mixture.shares == {"refer": 0.75, "reason": 0.25}
    kinds = Counter(mixture.draw(k).kind for k in range(DRAWS))
    assert_near(kinds, {"refer": 0.75, "reason": 0.25}, DRAWS)
    assert Mixture(PARTS, {"refer": 1, "semantic": 0}).shares == {"refer": 1}


@given(
    seed=st.integers(-(2**70), 2**70), index=st.integers(0, 2**60), sizes=st.lists(st.integers(1, 10**9), min_size=1)
)
@settings(max_examples=200)
def test_a_draw_is_a_function_of_seed_and_number_and_lies_in_its_set(seed: int, index: int, sizes: list[int]) -> None:
    parts: dict[Kind, list[range]] = {"refer": [range(size) for size in sizes], "vqa": [range(5)]}
    mixture = Mixture(parts, seed=seed)
    draw = mixture.draw(index)
    assert 0 <= draw.row < len(parts[draw.kind][draw.set])
    assert pickle.loads(pickle.dumps(mixture)).draw(index) == draw
    mixture.draw(index + 1)
    assert mixture.draw(index) == draw == Mixture(parts, RATES, seed).draw(index)


def test_seeds_and_neighbours_have_nothing_to_do_with_each_other() -> None:
    one, two = Mixture(PARTS, seed=0), Mixture(PARTS, seed=1)
    seeds = [mixture.draw(k).seed for mixture in (one, two) for k in range(1000)]
    assert len(set(seeds)) == len(seeds)
    bits = np.unpackbits(np.array(seeds, dtype=np.uint32).view(np.uint8)).mean()
    assert abs(bits - 0.5) < 0.01
    same = sum(one.draw(k).kind == one.draw(k + 1).kind for k in range(DRAWS))
    assert_near(Counter({True: same}), {True: sum((rate / 16) ** 2 for rate in RATES.values())}, DRAWS)


@pytest.mark.parametrize(
    ("parts", "rates", "message"),
    [
        ({}, RATES, "expected sets of a kind"),
        ({"refer": [[1]]}, {"refer": 0}, "expected sets of a kind"),
        ({"refer": [[1], []]}, RATES, "got an empty one"),
        ({"refer": [[1]]}, {"refer": -1}, "at least 0"),
    ],
)
def test_a_mixture_of_nothing_is_refused(
    parts: dict[Kind, list[list[int]]], rates: dict[Kind, float], message: str
) -> None:
    with pytest.raises(RiceError, match=message):
        Mixture(parts, rates)
