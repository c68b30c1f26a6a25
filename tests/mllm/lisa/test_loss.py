"""Mask losses against float64 closed forms, and against LISA's formulas written anew."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mllm.lisa import loss
from mllm.lisa.loss import NO_LABEL, mask_losses


def _sample(count: int, height: int, width: int, unlabelled: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    logits = 5 * torch.randn(count, height, width, generator=generator)
    masks = torch.randint(0, 2, (count, height, width), generator=generator, dtype=torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < unlabelled] = NO_LABEL
    return logits, masks


def _closed_form(logits: Tensor, mask: Tensor) -> tuple[float, float]:
    """In float64, from the labelled pixels alone."""
    labelled = (mask != NO_LABEL).numpy()
    x, t = logits.double().numpy()[labelled], mask.numpy()[labelled].astype(np.float64)
    p = 1 / (1 + np.exp(-x))
    bce = -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))
    return bce, 1 - (2 * np.sum(p * t) + 1e-3) / (np.sum(p) + np.sum(t) + 1e-3)


def test_both_losses_are_their_closed_forms_on_the_labelled_pixels() -> None:
    logits, masks = _sample(3, 13, 7)
    for index, (bce, dice) in enumerate(zip(*mask_losses(logits, masks), strict=True)):
        expected = _closed_form(logits[index], masks[index])
        assert (float(bce), float(dice)) == pytest.approx(expected, rel=1e-5)


def test_values_and_gradients_are_lisas_where_every_pixel_has_a_label() -> None:
    logits, masks = _sample(4, 9, 11, unlabelled=0)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    bce, dice = mask_losses(ours, masks)
    targets = masks.float().flatten(1)
    x = theirs.flatten(1)
    their_bce = torch.nn.functional.binary_cross_entropy_with_logits(x, targets, reduction="none").mean(1)
    p, scale, eps = x.sigmoid(), 1000, 1e-6
    numerator = 2 * (p / scale * targets).sum(-1)
    denominator = (p / scale).sum(-1) + (targets / scale).sum(-1)
    their_dice = 1 - (numerator + eps) / (denominator + eps)
    torch.testing.assert_close(bce, their_bce)
    torch.testing.assert_close(dice, their_dice)
    (2 * bce.sum() + 0.5 * dice.sum()).backward()
    (2 * their_bce.sum() + 0.5 * their_dice.sum()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_gradients_are_those_of_differences_in_float64() -> None:
    logits, masks = _sample(2, 3, 4)
    logits.requires_grad_()
    (2 * mask_losses(logits, masks)[0] + 0.5 * mask_losses(logits, masks)[1]).sum().backward()
    step = 1e-6
    for index, row, column in ((0, 0, 0), (1, 2, 3), (0, 1, 2)):
        ends = []
        for sign in (-1, 1):
            moved = logits.detach()[index].double()
            moved[row, column] += sign * step
            bce, dice = _closed_form(moved, masks[index])
            ends.append(2 * bce + 0.5 * dice)
        assert logits.grad is not None
        assert float(logits.grad[index, row, column]) == pytest.approx((ends[1] - ends[0]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("together", [1, 100, 250])
def test_taking_few_masks_at_a_time_changes_nothing(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, masks = _sample(5, 10, 10)
    whole, parts = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = mask_losses(whole, masks)
    monkeypatch.setattr(loss, "_TOGETHER", together)
    found = mask_losses(parts, masks)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    sum(one.sum() for one in expected).backward()
    sum(one.sum() for one in found).backward()
    torch.testing.assert_close(parts.grad, whole.grad)


def test_pixels_without_label_change_nothing_and_get_no_gradient() -> None:
    logits, masks = _sample(2, 6, 6)
    unlabelled = masks == NO_LABEL
    other = torch.where(unlabelled, logits + 50, logits).requires_grad_()
    for before, after in zip(mask_losses(logits, masks), mask_losses(other, masks), strict=True):
        torch.testing.assert_close(before, after)
    sum(one.sum() for one in mask_losses(other, masks)).backward()
    assert other.grad is not None
    assert not other.grad[unlabelled].any()
    assert other.grad[~unlabelled].any()


def test_a_mask_without_a_labelled_pixel_costs_nothing_and_breaks_nothing() -> None:
    logits = torch.randn(1, 4, 4, requires_grad=True)
    bce, dice = mask_losses(logits, torch.full((1, 4, 4), NO_LABEL, dtype=torch.uint8))
    (bce + dice).sum().backward()
    assert (bce.item(), dice.item()) == (0, 0)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_an_empty_mask_predicted_without_a_pixel_costs_nothing() -> None:
    bce, dice = mask_losses(torch.full((1, 5, 5), -60.0), torch.zeros(1, 5, 5, dtype=torch.uint8))
    assert (float(bce), float(dice)) == pytest.approx((0, 0), abs=1e-6)


def test_logits_far_from_zero_give_finite_losses_and_gradients() -> None:
    logits = torch.tensor([[[1e4, -1e4]]], requires_grad=True)
    bce, dice = mask_losses(logits, torch.tensor([[[0, 1]]], dtype=torch.uint8))
    (bce + dice).sum().backward()
    assert bce.item() == pytest.approx(1e4)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_summed_in_full_precision_also_under_autocast() -> None:
    """A bfloat16 sum over this many pixels would stop growing at 256."""
    logits, masks = _sample(1, 200, 200)
    with torch.autocast("cpu", torch.bfloat16):
        found = mask_losses(logits.bfloat16(), masks)
    expected = _closed_form(logits[0].bfloat16(), masks[0])
    assert [one.dtype for one in found] == [torch.float32, torch.float32]
    assert [float(one) for one in found] == pytest.approx(expected, rel=1e-4)


def test_no_mask_gives_no_loss_that_still_has_a_gradient() -> None:
    logits = torch.zeros(0, 3, 3, requires_grad=True)
    bce, dice = mask_losses(logits, torch.zeros(0, 3, 3, dtype=torch.uint8))
    assert bce.shape == dice.shape == (0,)
    (bce.sum() + dice.sum()).backward()
