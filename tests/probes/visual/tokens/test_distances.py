"""Distances are those of scipy's pdist in float64, whatever the blocks; errors and intervals resample images."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import bootstrap

from probes.visual.tokens import distances
from probes.visual.tokens.distances import (
    BINS,
    Distribution,
    Float64,
    ImageDistances,
    image_distances,
    paired_differences,
)
from rice.errors import RiceError


def fake_tokens(seed: int, tokens: int = 30, width: int = 7, offset: float = 0.0) -> Float64:
    return np.random.default_rng(seed).normal(size=(tokens, width)) + offset


def of(*images: Float64) -> Distribution:
    return Distribution.of([image_distances(image) for image in images])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(2, 40),
    width=st.integers(2, 9),
    offset=st.sampled_from([0.0, 0.5, 30.0]),
    entries=st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_every_pair_is_counted_once_as_scipy_measures_it(
    seed: int, tokens: int, width: int, offset: float, entries: int
) -> None:
    tokens_TD, centre_D = fake_tokens(seed, tokens, width, offset), np.full(width, offset + 0.1)
    for centre, moved_TD in ((None, tokens_TD), (centre_D, tokens_TD - centre_D)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distances, "_BLOCK_ENTRIES", entries)
            found = image_distances(tokens_TD, centre)
        expected_P = pdist(moved_TD, "cosine")
        assert found.pairs == tokens * (tokens - 1) // 2 == len(expected_P)
        np.testing.assert_allclose(found.total, expected_P.sum(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.squares, np.square(expected_P).sum(), rtol=1e-9, atol=1e-9)
        # One value on a bin's edge may fall to either side.
        counts, _ = np.histogram(expected_P, bins=BINS, range=(0, 2))
        assert np.abs(np.cumsum(found.histogram) - np.cumsum(counts)).max() <= (1 if offset < 30 else 2)


def test_identical_tokens_are_0_apart_and_opposite_ones_2() -> None:
    token_D = np.array([0.3, -1.2, 2.5])
    same, opposite = image_distances(np.tile(token_D, (5, 1))), image_distances(np.stack([token_D, -4 * token_D]))
    assert (same.histogram[0], same.pairs) == (10, 10)
    assert same.total == pytest.approx(0, abs=1e-12)
    assert (opposite.histogram[-1], opposite.pairs) == (1, 1)
    assert opposite.total == pytest.approx(2)


@pytest.mark.parametrize("width", [16, 256])
def test_random_directions_are_1_apart_give_or_take_the_root_of_the_width(width: int) -> None:
    """The cosine of independent Gaussian vectors has mean 0 and variance exactly 1 / D."""
    found = of(*(fake_tokens(seed, 200, width) for seed in range(10)))
    assert found.mean == pytest.approx(1, abs=0.003)
    assert found.std == pytest.approx(width**-0.5, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_length_of_a_token_does_not_matter(seed: int, factor: float) -> None:
    tokens_TD = fake_tokens(seed)
    factors_T1 = factor * np.random.default_rng(seed).uniform(0.1, 10, size=(len(tokens_TD), 1))
    one, other = image_distances(tokens_TD), image_distances(factors_T1 * tokens_TD)
    assert one.total == pytest.approx(other.total)
    assert one.squares == pytest.approx(other.squares)


def test_mean_and_deviation_are_those_of_all_pairs_and_quantiles_within_a_bin() -> None:
    images = [fake_tokens(seed, 60, 5, offset=0.4 * seed) for seed in range(4)]
    all_P = np.concatenate([pdist(image, "cosine") for image in images])
    found = of(*images)
    assert (found.pairs, int(found.histogram.sum())) == (len(all_P), len(all_P))
    assert found.mean == pytest.approx(all_P.mean())
    assert found.std == pytest.approx(all_P.std())
    means = [pdist(image, "cosine").mean() for image in images]
    np.testing.assert_allclose(found.image_means, means)
    assert found.stderr == pytest.approx(np.std(means, ddof=1) / 2)
    for share in (0.001, 0.05, 0.5, 0.95, 1.0):
        assert found.quantile(share) == pytest.approx(np.quantile(all_P, share, method="inverted_cdf"), abs=2 / BINS)
    assert found.as_json()["median"] == found.quantile(0.5)


def test_one_image_has_no_standard_error() -> None:
    found = of(fake_tokens(0))
    assert found.stderr is None
    assert found.as_json()["stderr"] is None


def test_json_gives_back_the_same_bits() -> None:
    found = of(fake_tokens(0), fake_tokens(1))
    again = Distribution.from_json(found.as_json())
    assert again.as_json() == found.as_json()
    assert (again.histogram == found.histogram).all()


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_a_common_offset_shrinks_raw_distances_and_leaves_centred_ones(offset: float) -> None:
    plain_TD = fake_tokens(3)
    moved_TD, mean_D = plain_TD + offset, plain_TD.mean(axis=0)
    plain = image_distances(plain_TD, mean_D)
    assert image_distances(moved_TD, mean_D + offset).total == pytest.approx(plain.total)
    if offset:
        assert image_distances(moved_TD).total < 0.01 * plain.total


@pytest.mark.parametrize(
    ("tokens_TD", "centre_D", "words"),
    [
        (np.array([[1.0, np.nan], [1.0, 2.0]]), None, "NaN or infinity"),
        (np.array([[1.0, np.inf], [1.0, 2.0]]), None, "NaN or infinity"),
        (np.array([[0.0, 0.0], [1.0, 2.0]]), None, "length 0"),
        (np.full((3, 2), 0.1), np.full(2, 0.1 + 1e-9), "equal to its mean token"),
        (np.ones((1, 4)), None, "at least 2 tokens"),
    ],
)
def test_undefined_distances_are_refused_in_one_line(tokens_TD: Float64, centre_D: Float64 | None, words: str) -> None:
    with pytest.raises(RiceError, match=words) as caught:
        image_distances(tokens_TD, centre_D)
    assert "\n" not in str(caught.value)


def test_differences_are_paired_and_their_intervals_scipys() -> None:
    """With 10,000 replicates each, the ends of two percentile intervals differ by a few hundredths of their width."""
    rng = np.random.default_rng(5)
    images_N1 = rng.normal(size=(40, 1))  # what is common to both must cancel
    means_NK = images_N1 + [[0.0, 0.3, 0.1]] + 0.1 * rng.normal(size=(40, 3))
    found = paired_differences(means_NK, seed=0)
    assert [(d.first, d.second) for d in found] == list(combinations(range(3), 2))
    for difference in found:
        values_N = means_NK[:, difference.second] - means_NK[:, difference.first]
        assert difference.mean == pytest.approx(values_N.mean())
        truth = bootstrap(
            (values_N,), np.mean, n_resamples=20_000, method="percentile", confidence_level=0.95, rng=1
        ).confidence_interval
        width = truth.high - truth.low
        assert difference.low == pytest.approx(truth.low, abs=0.05 * width)
        assert difference.high == pytest.approx(truth.high, abs=0.05 * width)
    assert paired_differences(means_NK, seed=0) == found
    assert paired_differences(means_NK, seed=1) != found


def test_a_single_image_gives_a_difference_without_interval() -> None:
    (difference,) = paired_differences(np.array([[0.25, 0.75]]), seed=0)
    assert (difference.mean, difference.low, difference.high) == (0.5, None, None)


def test_a_bins_counts_are_whole_numbers_over_many_images() -> None:
    images = [ImageDistances(np.eye(1, BINS, 5, dtype=np.int64)[0] * 2**40, 1.0, 1.0) for _ in range(9)]
    assert Distribution.of(images).histogram[5] == 9 * 2**40
