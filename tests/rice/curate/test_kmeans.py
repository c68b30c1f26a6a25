"""Lloyd's own steps are scikit-learn's; the shorter way ends no worse than the long one, on any number of ranks."""

from collections.abc import Callable
from typing import Any

import kmeans_targets as targets
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ranks import Ranks
from torch import Tensor

from rice.curate.config import KMeansConfig
from rice.curate.kmeans import fill, learn, shares
from rice.curate.nearest import nearest
from rice.errors import RiceError


def error_of(points_ND: Tensor, centres_KD: Tensor) -> float:
    chosen_ND = centres_KD[nearest(points_ND, centres_KD).labels]
    return float(((points_ND.double() - chosen_ND.double()) ** 2).sum())


def scikit_learn(points_ND: Tensor, clusters: int, **settings: Any) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(clusters, n_init=1, algorithm="lloyd", tol=0, **settings).fit(points_ND.numpy())


def test_without_overshoot_in_one_cell_it_is_lloyds_algorithm() -> None:
    points_ND, keys_N = targets.points(600, 9, 3)
    points_ND += 0.01 * torch.randn(600, 9, generator=torch.Generator().manual_seed(0))  # no cluster falls empty
    config = KMeansConfig(clusters=20, cells=1, level_steps=6, steps=0, overshoot=1, momentum=0)
    first_KD = points_ND[keys_N.argsort()[:20]]
    expected = scikit_learn(points_ND, 20, init=first_KD.numpy(), max_iter=6)
    errors: list[float] = []
    found_KD = learn(
        points_ND, keys_N, config, lambda part, _, error: errors.append(error) if part != "cells" else None
    )
    np.testing.assert_allclose(found_KD, expected.cluster_centers_, atol=1e-4)
    assert errors[0] == pytest.approx(error_of(points_ND, first_KD) / 600, rel=1e-5)
    assert len(errors) == 6
    assert errors == sorted(errors, reverse=True)


def structureless(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def on_a_surface(count: int, width: int, seed: int) -> Tensor:
    """Of fewer dimensions than its width, curved."""
    dice = torch.Generator().manual_seed(seed)
    return torch.tanh(torch.randn(count, 5, generator=dice) @ torch.randn(5, width, generator=dice))


def of_uneven_clusters(count: int, width: int, seed: int) -> Tensor:
    dice = torch.Generator().manual_seed(seed)
    places, spreads = torch.randn(80, width, generator=dice) * 2, torch.rand(80, generator=dice) + 0.05
    own = (torch.rand(count, generator=dice) ** 3 * 80).long()
    return places[own] + spreads[own, None] * torch.randn(count, width, generator=dice)


@pytest.mark.parametrize("make", [structureless, on_a_surface, of_uneven_clusters])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_error_is_no_larger_than_after_25_steps_of_lloyd(make: Callable[..., Tensor], seed: int) -> None:
    points_ND = make(8000, 24, seed)
    keys_N = torch.rand(8000, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    lloyd = scikit_learn(points_ND, 80, init="random", random_state=seed, max_iter=25)
    found_KD = learn(points_ND, keys_N, KMeansConfig(clusters=80))
    assert error_of(points_ND, found_KD) <= 1.002 * lloyd.inertia_


def test_the_last_step_leaves_means() -> None:
    """What is reported last is the error of the centres before the last step, whose labels' means are returned."""
    points_ND = structureless(3000, 8, 0)
    keys_N = torch.rand(3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors: list[float] = []
    found_KD = learn(points_ND, keys_N, KMeansConfig(clusters=30), lambda *said: errors.append(said[2]))
    assert error_of(points_ND, found_KD) / 3000 < errors[-1]
    labels_N = nearest(points_ND, found_KD).labels
    means_KD = torch.stack([points_ND[labels_N == k].mean(0) for k in range(30)])
    assert float((means_KD - found_KD).norm() / found_KD.norm()) < 0.1, "nearly where Lloyd's algorithm rests"


@pytest.mark.parametrize("clusters", [1, 2, 3, 40])
def test_as_many_clusters_as_points_leave_no_error(clusters: int) -> None:
    points_ND = structureless(clusters, 6, 0)
    keys_N = torch.rand(clusters, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found_KD = learn(points_ND, keys_N, KMeansConfig(clusters=clusters))
    assert error_of(points_ND, found_KD) <= 1e-9 * clusters


def test_one_cluster_is_the_mean() -> None:
    points_ND = structureless(50, 6, 0)
    found_KD = learn(points_ND, torch.rand(50, dtype=torch.float64), KMeansConfig(clusters=1))
    np.testing.assert_allclose(found_KD, points_ND.mean(0, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("clusters", [5, 30])
def test_points_that_are_alike_leave_finite_centres(clusters: int) -> None:
    points_ND = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]).repeat(20, 1)
    keys_N = torch.rand(60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found_KD = learn(points_ND, keys_N, KMeansConfig(clusters=clusters))
    assert bool(torch.isfinite(found_KD).all())
    assert error_of(points_ND, found_KD) <= 1e-9


def test_empty_clusters_take_the_farthest_points_of_the_largest_errors() -> None:
    points_ND = torch.tensor([[0.0], [1.0], [10.0], [10.5], [30.0], [37.0]])
    centres_KD = torch.tensor([[0.0], [99.0], [10.0], [98.0], [30.0]])
    found = nearest(points_ND, centres_KD)
    errors_K = torch.zeros(5, dtype=torch.float64).index_add_(0, found.labels, found.distances.double())
    filled = fill(centres_KD, torch.tensor([1, 3]), errors_K, points_ND, found.labels, found.distances)
    assert filled == 2
    assert centres_KD[:, 0].tolist() == [0.0, 37.0, 10.0, 1.0, 30.0]


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 10)), min_size=1, max_size=12), st.floats(0, 1))
@example([(3, 0.0), (3, 5e-324)], 0.5)
@settings(max_examples=300, deadline=None)
def test_children_are_shared_out_by_error_within_their_bounds(cells: list[tuple[int, float]], part: float) -> None:
    sizes_C = torch.tensor([size for size, _ in cells])
    errors_C = torch.tensor([error if size else 0.0 for size, error in cells], dtype=torch.float64)
    fewest, most = int((sizes_C > 0).sum()), int(sizes_C.sum())
    clusters = fewest + round(part * (most - fewest))
    children_C = shares(errors_C, sizes_C, clusters)
    assert int(children_C.sum()) == clusters
    assert bool(((children_C >= (sizes_C > 0)) & (children_C <= sizes_C)).all())
    free_C = (children_C > 1) & (children_C < sizes_C)
    if bool(free_C.all()) and float(errors_C.sum()) > 1e-300:  # below, cells count as without an error
        assert float((children_C - clusters * errors_C / errors_C.sum()).abs().max()) <= 1


@pytest.mark.parametrize(("world", "uneven"), [(2, False), (3, True)])
def test_centres_are_the_same_on_any_number_of_ranks(world: int, uneven: bool) -> None:
    alone_KD, alone_errors = targets.learn_part(900, 6, 25, False)
    for centres_KD, errors in Ranks(world, targets.learn_part, 900, 6, 25, uneven).results():
        np.testing.assert_allclose(centres_KD, alone_KD, atol=1e-4)
        assert errors == pytest.approx(alone_errors, rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("clusters", 0), ("cells", 9), ("level_steps", 0), ("steps", -1), ("overshoot", 2.0), ("overshoot", 0.9)],
)
def test_settings_out_of_range_are_named(field: str, value: Any) -> None:
    with pytest.raises(RiceError, match=f"{field}={value}"):
        KMeansConfig(**({"clusters": 8} | {field: value}))


def test_more_clusters_than_points_are_refused() -> None:
    with pytest.raises(RiceError, match="got 4 for 5"):
        learn(torch.randn(4, 3), torch.rand(4, dtype=torch.float64), KMeansConfig(clusters=5))
