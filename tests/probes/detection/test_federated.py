"""The class losses against closed forms: which categories are taught in a step, and by how much."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from probes.detection.federated import ClassLoss, FederatedLoss

COUNTS = (1, 3, 10, 50, 2, 0, 7, 0)
K = len(COUNTS)


pytestmark = pytest.mark.usefixtures("one_thread")


def scores_of(regions: int, seed: int = 0) -> Tensor:
    return torch.randn(regions, K + 1, generator=torch.Generator().manual_seed(seed)).mul(3).requires_grad_()


def cell(score: float, wanted: bool) -> float:
    """Binary cross entropy."""
    return math.log1p(math.exp(-score if wanted else score))


def chosen_by(loss: FederatedLoss, labels: list[int]) -> set[int]:
    """The categories that a step teaches, from where the gradient is."""
    scores = torch.zeros(len(labels), K + 1, requires_grad=True)  # gradients of one half everywhere
    loss(scores, torch.tensor(labels)).backward()
    assert scores.grad is not None
    return set(torch.where(scores.grad.any(0))[0].tolist())


def test_the_softmax_loss_is_the_mean_cross_entropy() -> None:
    scores, labels = scores_of(6), [0, 3, K, K, 1, 0]
    rows = scores.double().tolist()
    expected = sum(math.log(sum(map(math.exp, row))) - row[k] for row, k in zip(rows, labels, strict=True)) / 6
    assert ClassLoss()(scores, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-5)


def test_probabilities_of_the_softmax_share_one_and_federated_ones_are_independent() -> None:
    scores = scores_of(4).detach()
    softmax, sigmoid = ClassLoss().probabilities(scores), FederatedLoss(COUNTS, 4, 0.5).probabilities(scores)
    torch.testing.assert_close(softmax.sum(1), torch.ones(4))
    assert softmax[1, 2].item() == pytest.approx(
        1 / sum(math.exp(s - scores[1, 2]) for s in scores[1].tolist()), rel=1e-4
    )
    assert sigmoid[1, 2].item() == pytest.approx(1 / (1 + math.exp(-scores[1, 2])), rel=1e-5)


@pytest.mark.parametrize("labels", [[0, 3, K, K, 1, 0], [K, K], [5], [2, 2, 2]])
@pytest.mark.parametrize("classes", [1, 3, 5, 50])
def test_the_federated_loss_sums_over_the_chosen_and_averages_over_the_regions(labels: list[int], classes: int) -> None:
    loss = FederatedLoss(COUNTS, classes, 0.5)
    scores = scores_of(len(labels))
    torch.manual_seed(8)
    value = loss(scores, torch.tensor(labels))
    torch.manual_seed(8)
    chosen = chosen_by(loss, labels)
    rows = scores.double().tolist()
    expected = sum(cell(row[k], k == label) for row, label in zip(rows, labels, strict=True) for k in chosen) / len(
        rows
    )
    assert value.item() == pytest.approx(expected, rel=1e-5)


@given(
    labels=st.lists(st.integers(0, K), min_size=1, max_size=12),
    classes=st.integers(1, 12),
    power=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_the_present_are_always_taught_and_the_drawn_fill_up_with_those_that_can_occur(
    labels: list[int], classes: int, power: float, seed: int
) -> None:
    torch.manual_seed(seed)
    chosen = chosen_by(FederatedLoss(COUNTS, classes, power), labels)
    present = set(labels) - {K}
    possible = {k for k in range(K) if COUNTS[k] > 0 or power == 0} - present
    assert K not in chosen, "the background has no sigmoid of its own"
    assert present <= chosen
    assert chosen - present <= possible, "a category of no image has no chance, though it may be present"
    slots = classes - len(set(labels))  # the background takes one where it occurs, as in detectron2
    assert len(chosen - present) == min(max(slots, 0), len(possible))


def test_categories_that_are_not_chosen_have_no_gradient_at_all() -> None:
    torch.manual_seed(0)
    scores = scores_of(5)
    FederatedLoss(COUNTS, 3, 0.5)(scores, torch.tensor([0, 3, K, K, 1])).backward()
    assert scores.grad is not None
    assert scores.grad[:, [0, 1, 3]].all()
    assert not scores.grad[:, [2, 4, 5, 6, 7, 8]].any()


def test_a_category_is_drawn_by_its_count_to_the_power() -> None:
    """With one slot beside the present ones the chance is count^power over the sum."""
    torch.manual_seed(0)
    scores, labels = torch.arange(1.0, K + 2)[None] * 100, torch.tensor([3])
    for power in (0.5, 1.0):
        loss, draws = FederatedLoss(COUNTS, 2, power), 400
        times = torch.zeros(K)
        for _ in range(draws):
            # Wrongly certain of every category, each by another amount: the loss says which one was drawn.
            times[round(loss(scores, labels).item() / 100) - 1] += 1
        weights = [0.0 if k == 3 else count**power for k, count in enumerate(COUNTS)]
        for k, weight in enumerate(weights):
            chance = weight / sum(weights)
            assert abs(times[k] - draws * chance) <= 3.5 * math.sqrt(draws * chance * (1 - chance))


def test_no_region_gives_a_loss_of_zero_with_a_gradient() -> None:
    for loss in (ClassLoss(), FederatedLoss(COUNTS, 3, 0.5)):
        scores = scores_of(0)
        value = loss(scores, torch.zeros(0, dtype=torch.int64))
        value.backward()
        assert value.item() == 0
        assert scores.grad is not None


def test_a_dataset_without_counts_teaches_the_present_alone() -> None:
    assert chosen_by(FederatedLoss([0] * K, 5, 0.5), [2, K]) == {2}


def test_the_loss_adds_nothing_to_a_checkpoint() -> None:
    assert not FederatedLoss(COUNTS, 3, 0.5).state_dict()
    assert FederatedLoss(COUNTS, 3, 0.5).image_counts == COUNTS
