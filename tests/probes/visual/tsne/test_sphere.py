"""The spherical t-SNE against scikit-learn, autograd and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.spatial.distance import pdist, squareform
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.manifold import _t_sne
from torch import Tensor

from probes.visual.tsne.sphere import (
    check_perplexity,
    descend,
    divergence,
    facing,
    first_points,
    gradient,
    joint_probabilities,
    project,
    retract,
    tangent,
)
from rice.errors import RiceError
from rice.progress import SilentProgress

_FEW = 25
"""Iterations: more would blow up the last bits, in which equivalent computations differ."""


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def squared(x_ND: Tensor) -> Tensor:
    return torch.cdist(x_ND, x_ND).square()


def spherical(count: int, radius: float, seed: int = 0) -> Tensor:
    return radius * torch.nn.functional.normalize(gaussian(count, 3, seed=seed))


def clusters(count: int, kinds: int, distance: float) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % kinds
    return distance * gaussian(kinds, 40, seed=1)[labels] + gaussian(count, 40, seed=2), labels


@settings(max_examples=25, deadline=None)
@given(st.integers(50, 90), st.integers(1, 12), st.floats(5, 15), st.integers(-3, 3), st.integers(0, 10**6))
def test_joint_probabilities_are_scikit_learns(n: int, width: int, perplexity: float, power: int, seed: int) -> None:
    distances_NN = squared(gaussian(n, width, seed=seed) * 10.0**power)
    expected = squareform(_t_sne._joint_probabilities(distances_NN.numpy().astype(np.float32), perplexity, 0))
    found = joint_probabilities(distances_NN, perplexity).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert (found.diagonal() == 0).all()
    assert found.sum() == pytest.approx(1, abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.floats(1.5, 12), st.integers(0, 10**6))
def test_every_rows_entropy_is_the_logarithm_of_the_perplexity(width: int, perplexity: float, seed: int) -> None:
    """Also where scikit-learn, in float32 and with sums cut off at 1e-8, is far from it."""
    distances_NN = squared(gaussian(30, width, seed=seed)).numpy()
    conditional = np.zeros((30, 30))
    for i in range(30):
        others = np.arange(30) != i
        row = distances_NN[i, others]

        def excess(log: float, row: np.ndarray = row) -> float:
            return float(entropy(softmax(-np.exp(log) * row)) - np.log(perplexity))

        conditional[i, others] = softmax(-np.exp(brentq(excess, -40, 40, xtol=1e-14)) * row)
    expected = (conditional + conditional.T) / 60
    found = joint_probabilities(torch.from_numpy(distances_NN), perplexity).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("copies", [2, 12])
def test_identical_features_have_finite_probabilities(copies: int) -> None:
    x_ND = gaussian(10, 5).repeat_interleave(copies, dim=0)
    p_NN = joint_probabilities(squared(x_ND), 5.0)
    assert torch.isfinite(p_NN).all()
    if copies == 12:  # more equals than the perplexity: all of the probability, evenly
        np.testing.assert_allclose(p_NN[0, 1:12].numpy(), 1 / (120 * 11), rtol=1e-6)


@pytest.mark.parametrize("count", [20, 128, 300])  # less than a block, exactly one, several and a part
@pytest.mark.parametrize("exaggeration", [1.0, 12.0])
def test_the_gradient_is_autograds(count: int, exaggeration: float) -> None:
    p_NN = joint_probabilities(squared(gaussian(count, 8)), 5.0)
    y_N3 = spherical(count, 3.0).requires_grad_()
    distances_NN = (y_N3[:, None] - y_N3[None]).square().sum(-1)
    kernel_NN = (1 / (1 + distances_NN)) * (1 - torch.eye(count, dtype=torch.float64))
    off = ~torch.eye(count, dtype=torch.bool)
    q_NN = kernel_NN / kernel_NN.sum()
    cost = -(exaggeration * p_NN[off] * kernel_NN[off].log()).sum() + kernel_NN.sum().log()  # -E log w + log Z
    cost.backward()
    np.testing.assert_allclose(gradient(p_NN, y_N3.detach(), exaggeration).numpy(), y_N3.grad.numpy(), atol=1e-12)
    kl = (p_NN[off] * (p_NN[off] / q_NN[off]).log()).sum().item()
    assert divergence(p_NN, y_N3.detach()) == pytest.approx(kl, rel=1e-10)


def test_the_tangent_gradient_is_the_derivative_along_the_manifold() -> None:
    p_NN, y_N3 = joint_probabilities(squared(gaussian(60, 8)), 5.0), spherical(60, 4.0)
    slope_N3 = tangent(gradient(p_NN, y_N3), y_N3)
    for seed in range(4):
        way_N3, step = tangent(gaussian(60, 3, seed=seed), y_N3), 1e-5
        ahead, behind = (divergence(p_NN, retract(y_N3 + sign * step * way_N3)) for sign in (1, -1))
        assert (ahead - behind) / (2 * step) == pytest.approx((slope_N3 * way_N3).sum().item(), rel=1e-5, abs=1e-9)


def test_the_tangent_projection_is_the_nearest_and_keeps_one_common_radial_part() -> None:
    y_N3, field_N3 = spherical(30, 2.0), gaussian(30, 3, seed=5)
    found_N3 = tangent(field_N3, y_N3)
    outwards_N = (found_N3 * y_N3).sum(1)
    np.testing.assert_allclose(outwards_N.numpy(), (field_N3 * y_N3).sum(1).mean().item(), atol=1e-12)
    np.testing.assert_allclose(tangent(found_N3, y_N3).numpy(), found_N3.numpy(), atol=1e-12)
    rest_N3 = field_N3 - found_N3
    for seed in range(3):
        assert (rest_N3 * tangent(gaussian(30, 3, seed=seed), y_N3)).sum().abs() < 1e-10


def test_well_separated_clusters_come_out_separated_on_one_sphere() -> None:
    x_ND, labels_N = clusters(180, 6, 4.0)
    p_NN = joint_probabilities(squared(x_ND), 15.0)
    start_N3 = first_points(x_ND)
    found = project(x_ND, 15.0, SilentProgress(), iterations=500)
    np.testing.assert_allclose(found.points.norm(dim=1).numpy(), found.radius, atol=1e-6)
    assert found.points.mean(0)[:2].abs().max() < 1e-9 * found.radius  # the mean faces the viewer
    assert found.radius > 2  # learned: on the unit sphere the kernel cannot fall below 1/5
    assert found.kl == pytest.approx(divergence(p_NN, found.points), rel=1e-9)
    assert found.kl < 0.5 * divergence(p_NN, start_N3)
    nearest_NK = squared(found.points).fill_diagonal_(torch.inf).topk(10, largest=False).indices
    assert (labels_N[nearest_NK] == labels_N[:, None]).double().mean() > 0.99


def test_scikit_learns_plane_is_not_closer_to_the_features() -> None:
    x_ND, _ = clusters(100, 5, 1.0)
    plane = _t_sne.TSNE(2, perplexity=10, method="exact", init="pca", random_state=0).fit(x_ND.numpy())
    assert project(x_ND, 10.0, SilentProgress()).kl < 1.05 * plane.kl_divergence_


def test_features_without_structure_neither_collapse_nor_overflow() -> None:
    found = project(gaussian(100, 60), 20.0, SilentProgress(), iterations=100)
    assert torch.isfinite(found.points).all()
    assert found.radius > 1 - 1e-9


@pytest.mark.parametrize("width", [1, 2, 5])
def test_constant_and_narrow_features_give_finite_points(width: int) -> None:
    for x_ND in (torch.ones(40, width), gaussian(40, width)):
        found = project(x_ND, 5.0, SilentProgress(), iterations=20)
        assert torch.isfinite(found.points).all()
        np.testing.assert_allclose(found.points.norm(dim=1).numpy(), found.radius, atol=1e-6)


def test_the_outcome_does_not_depend_on_the_order_of_the_objects() -> None:
    x_ND, _ = clusters(80, 4, 2.0)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    straight, shuffled = (project(x, 10.0, SilentProgress(), iterations=_FEW) for x in (x_ND, x_ND[order]))
    np.testing.assert_allclose(shuffled.points.numpy(), straight.points[order].numpy(), atol=1e-6)


def test_a_rotation_of_the_features_leaves_the_first_points_and_the_probabilities() -> None:
    x_ND, _ = clusters(60, 3, 2.0)
    rotation_DD = torch.linalg.qr(gaussian(40, 40, seed=9)).Q
    np.testing.assert_allclose(first_points(x_ND @ rotation_DD).numpy(), first_points(x_ND).numpy(), atol=1e-9)


def test_the_descent_turns_with_its_first_points() -> None:
    p_NN, y_N3 = joint_probabilities(squared(clusters(80, 4, 2.0)[0]), 10.0), spherical(80, 1.0)
    rotation_33 = torch.linalg.qr(gaussian(3, 3, seed=9)).Q
    straight, turned = (descend(p_NN, y, SilentProgress(), iterations=_FEW) for y in (y_N3, y_N3 @ rotation_33))
    np.testing.assert_allclose(turned.points.numpy(), (straight.points @ rotation_33).numpy(), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_facing_is_a_rotation_that_brings_the_mean_to_the_front(seed: int) -> None:
    y_N3 = spherical(15, 5.0, seed)
    rotation_33 = facing(y_N3)
    np.testing.assert_allclose((rotation_33 @ rotation_33.T).numpy(), np.eye(3), atol=1e-12)
    assert torch.linalg.det(rotation_33) == pytest.approx(1)
    mean_3 = (y_N3 @ rotation_33).mean(0)
    np.testing.assert_allclose(mean_3.numpy(), [0, 0, y_N3.mean(0).norm().item()], atol=1e-12)
    pairs = (pdist((y_N3 @ rotation_33).numpy()), pdist(y_N3.numpy()))
    np.testing.assert_allclose(*pairs, atol=1e-12)


@pytest.mark.parametrize(("perplexity", "count"), [(30, 91), (4.9, 1000), (float("nan"), 1000), (float("inf"), 1000)])
def test_a_perplexity_that_does_not_fit_is_refused(perplexity: float, count: int) -> None:
    with pytest.raises(RiceError, match="perplexity"):
        check_perplexity(perplexity, count)
    check_perplexity(30, 92)
