"""The bank of class centres: one process against the equations, several ranks against one."""

from typing import Any

import pytest
import torch
from bank_targets import MOST, SLOTS, WIDTH, batch, load_in_place, refuse_a_label, train
from equations import expected_losses
from ranks import Ranks
from torch import Tensor

from rice.errors import RiceError
from rice.loss import CenterBank, ClusterLoss, pending
from rice.loss.centers import _first_centers
from rice.loss.sampling import sample

CLASSES = 50


def _bank(**options: Any) -> CenterBank:
    return CenterBank(CLASSES, WIDTH, **{"rho": 0.3, "dtype": torch.float64, "name": "ocr", "seed": 4} | options)


def _sampled(bank: CenterBank, step: int, slot: int) -> Tensor:
    return sample(int(0.3 * CLASSES), CLASSES, (*bank._key, step, slot), range(CLASSES), torch.device("cpu"))


def _expected(
    bank: CenterBank, embeddings: Tensor, labels: Tensor, step: int, **loss: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradients of embeddings and of all centres, slot by slot from the equations."""
    embeddings, centers = embeddings.detach().requires_grad_(), bank.state()["weight"].clone().requires_grad_()
    total = sum(
        torch.stack(
            expected_losses(embeddings[:, slot], centers, labels[:, slot], _sampled(bank, step, slot), **loss)
        ).sum()
        for slot in range(SLOTS)
    )
    assert isinstance(total, Tensor)
    return total.detach(), *torch.autograd.grad(total, (embeddings, centers))


@pytest.mark.parametrize("form", ["eq34", "softmax"])
@pytest.mark.parametrize("margin_type", ["arcface", "cosface", "arcface_straight_through"])
@pytest.mark.parametrize("keep", [True, False])
def test_loss_gradients_and_norm_are_those_of_the_equations(
    form: str, margin_type: str, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "_BAND", 11 * WIDTH)
    options: Any = {"form": form, "margin_type": margin_type}
    bank = _bank(loss=ClusterLoss(**options), keep_gradients=keep)
    embeddings, labels = batch(1, CLASSES)
    labels[:, 2], labels[3, 2, 1] = -1, 0  # a slot of one label, the first class
    loss, by_embedding, by_center = _expected(bank, embeddings, labels, 7, **options)
    found = bank(embeddings.requires_grad_(), labels, step=7)
    found.backward()
    torch.testing.assert_close(found, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(embeddings.grad, by_embedding, rtol=1e-10, atol=1e-12)
    norm = by_center.square().sum()
    torch.testing.assert_close(bank.grad_square_norm(), norm, rtol=1e-10, atol=0)
    dense = torch.zeros_like(by_center)
    for part in bank.gradients.parts():
        dense[part.rows] = part.values
        assert not part.values.requires_grad  # no graph that would keep every chunk
    torch.testing.assert_close(dense, by_center, rtol=1e-10, atol=1e-10)


def test_only_sampled_and_labelled_centres_move() -> None:
    bank = _bank()
    before = {name: tensor.clone() for name, tensor in bank.state().items()}
    embeddings, labels = batch(1, CLASSES)
    gradient = _expected(bank, embeddings, labels, 0)[2]
    bank(embeddings, labels, step=0).backward()
    bank.step(0.01)
    met = {*_sampled(bank, 0, 0).tolist(), *_sampled(bank, 0, 2).tolist(), *labels.flatten().tolist()} - {-1}
    assert bank.state()["steps"].tolist() == [int(row in met) for row in range(CLASSES)]
    rest = torch.tensor([row for row in range(CLASSES) if row not in met])
    assert len(rest)
    for name, tensor in bank.state().items():
        assert torch.equal(tensor[rest], before[name][rest])
    assert (bank.state()["weight"] != before["weight"]).any(1).sum() == len(met)
    # AdamW's first step with the constants of the paper: beta 0.9 and 0.98, epsilon 1e-8, decay 0.2.
    rows = torch.tensor(sorted(met))
    by_center = gradient[rows]
    moved = before["weight"][rows] * (1 - 0.01 * 0.2) - 0.01 * by_center / (by_center.abs() + 1e-8)
    for name, wanted in (("weight", moved), ("exp_avg", 0.1 * by_center), ("exp_avg_sq", 0.02 * by_center**2)):
        torch.testing.assert_close(bank.state()[name][rows], wanted, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("keep", [True, False])
def test_gradients_of_several_calls_add_up_until_a_step(keep: bool) -> None:
    batches = [batch(step, CLASSES) for step in range(3)]
    bank, dense = _bank(keep_gradients=keep), torch.zeros(CLASSES, WIDTH, dtype=torch.float64)
    for step, (embeddings, labels) in enumerate(batches):
        dense += 2 * _expected(bank, embeddings, labels, step)[2]
        (2 * bank(embeddings, labels, step=step)).backward()
    torch.testing.assert_close(bank.grad_square_norm(), dense.square().sum(), rtol=1e-10, atol=0)
    bank.step(0.01)
    assert bank.grad_square_norm() == 0
    assert bank.state()["steps"].max() == 1


def test_without_labels_nothing_moves() -> None:
    bank = _bank()
    before = [tensor.clone() for tensor in bank.state().values()]
    embeddings, labels = batch(0, CLASSES)
    loss = bank(embeddings.requires_grad_(), torch.full_like(labels, -1), step=0)
    loss.backward()
    assert loss == 0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()
    bank.step(0.01)
    assert all(torch.equal(a, b) for a, b in zip(bank.state().values(), before, strict=True))


def test_no_gradient_is_kept_of_a_validation_loss() -> None:
    bank = _bank()
    with torch.no_grad():
        loss = bank(*batch(0, CLASSES), step=0)
    assert not loss.requires_grad
    assert bank.grad_square_norm() == 0


def test_a_slope_is_not_differentiated_again() -> None:
    (embeddings, labels), weight = batch(0, CLASSES), torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = weight * _bank()(embeddings.requires_grad_(), labels, step=0)
    (slope,) = torch.autograd.grad(loss, embeddings, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_autocast_changes_nothing() -> None:
    embeddings, labels = batch(0, CLASSES)
    banks = [_bank(dtype=torch.float32) for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16):
        losses = [banks[0](embeddings, labels, step=0)]
        losses[0].backward()
    losses.append(banks[1](embeddings, labels, step=0))
    losses[1].backward()
    assert losses[0] == losses[1]
    assert banks[0].grad_square_norm() == banks[1].grad_square_norm()


def test_bf16_rounds_the_products_and_little_else() -> None:
    embeddings, labels = batch(0, CLASSES)
    exact, rounded = (_bank(bf16=bf16)(embeddings, labels, step=0) for bf16 in (False, True))
    assert 0 < abs(rounded - exact) < 0.01 * exact


def test_gradients_computed_again_lead_to_the_same_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = train(CLASSES, 0.3, 4)
    monkeypatch.setattr(pending, "_BAND", 11 * WIDTH)
    again = train(CLASSES, 0.3, 4, keep_gradients=False)
    for name, expected in kept.items():
        torch.testing.assert_close(torch.tensor(again[name]), torch.tensor(expected), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(
    ("classes", "rho", "options"),
    [
        (50, 0.3, {}),
        (50, 1.0, {"form": "softmax"}),
        (11, 0.4, {"bare": 3}),
        (2, 0.5, {}),
        (1, 1.0, {"form": "softmax"}),
    ],
    ids=["sampled", "all classes", "a rank without labels", "fewer classes than ranks", "one class"],
)
def test_any_number_of_ranks_learns_the_same(world: int, classes: int, rho: float, options: dict[str, Any]) -> None:
    alone = train(classes, rho, 4, **options)
    everyone = Ranks(world, train, classes, rho, 4, **options).results()
    for name in ("losses", "norms", "weight", "exp_avg", "exp_avg_sq", "steps"):
        for found in everyone:
            torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(alone[name]), rtol=1e-9, atol=1e-12)
    for step, expected in enumerate(alone["gradients"]):
        found = torch.cat([torch.tensor(rank["gradients"][step]) for rank in everyone])
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-9, atol=1e-12)


def test_every_rank_refuses_what_one_of_them_should() -> None:
    messages = Ranks(2, refuse_a_label).results()
    assert messages == ["object labels: expected class ids from -1 to 9, got 10"] * 2


def test_the_state_of_a_rank_is_the_memory_it_computes_with() -> None:
    found = Ranks(3, load_in_place).results()
    whole = CenterBank(5, WIDTH, rho=1.0).local.weight[:, 0].tolist()
    assert [before for before, _ in found] == [whole[:2], whole[2:4], whole[4:]]
    assert [after for _, after in found] == [[2.0, 2.0], [2.0, 2.0], [2.0]]


@pytest.mark.parametrize("shard", [range(1), range(1000, 1030), range(1024, 2048), range(500, 2500), range(7, 7)])
def test_a_class_has_the_same_first_centre_in_every_shard(shard: range) -> None:
    whole = _first_centers((3, 5), range(2500), 4, torch.float64)
    assert torch.equal(_first_centers((3, 5), shard, 4, torch.float64), whole[shard.start : shard.stop])


def test_first_centres_are_small_normal_numbers_of_seed_and_name() -> None:
    weight = CenterBank(3000, 40).local.weight
    assert abs(weight.std() - 0.01) < 2e-4
    assert abs(weight.mean()) < 2e-4
    assert not torch.equal(weight[:1000], weight[1024:2024])
    for other in ({"seed": 1}, {"name": "ocr"}):
        assert not torch.equal(CenterBank(3000, 40, **other).local.weight, weight)


def test_says_what_does_not_fit() -> None:
    labels = torch.zeros(2, SLOTS, MOST, dtype=torch.int64)
    with pytest.raises(RiceError, match=rf"ocr: expected \(B, N, {WIDTH}\)"):
        _bank()(torch.ones(2, SLOTS, WIDTH + 1), labels, step=0)
    with pytest.raises(RiceError, match=rf"got \(\(3, {SLOTS}, {WIDTH}\), \(2, {SLOTS}, {MOST}\)\)"):
        _bank()(torch.ones(3, SLOTS, WIDTH), labels, step=0)
    with pytest.raises(RiceError, match="ocr labels: expected class ids from -1 to 49, got -2"):
        _bank()(torch.ones(2, SLOTS, WIDTH), labels - 2, step=0)
