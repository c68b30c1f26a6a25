"""The region cluster loss against equations 3 and 4 in float64."""

import math
import re
from typing import Any

import pytest
import torch
from equations import FORMS, MARGINS, case, expected_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from rice.errors import RiceError
from rice.loss import positives as positive_pairs
from rice.loss import region_cluster_loss, streaming

TOLERANCE = 1e-10


def _with_gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)]


def _differences(made: dict[str, Any], **options: Any) -> list[float]:
    """Of the loss and both gradients, relative to the largest expected value (at least 1)."""
    embeddings, centers = made["embeddings"].requires_grad_(), made["centers"].requires_grad_()
    labels = made["positives"], made["negatives"]
    losses = expected_losses(embeddings, centers, *labels, **options)
    expected = _with_gradients(torch.stack(losses).sum() / len(losses), embeddings, centers)
    found = _with_gradients(region_cluster_loss(embeddings, centers, *labels, **options), embeddings, centers)
    return [((a - b).abs().max() / b.abs().max().clamp_min(1)).item() for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("share", [None, 0.3])
@pytest.mark.parametrize("most", [1, 2, 20])
@pytest.mark.parametrize("margin_type", MARGINS)
@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradients_are_those_of_the_equations(
    form: str, margin_type: str, most: int, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(streaming._LOGITS, "cpu", 1)  # many chunks of classes
    monkeypatch.setattr(positive_pairs, "_NUMBERS", 3 * 8)  # and of pairs
    made = case(most, regions=9, classes=211, width=8, most=most, share=share)
    assert max(_differences(made, form=form, margin_type=margin_type)) < TOLERANCE


@pytest.mark.parametrize("share", [None, 0.1])
@pytest.mark.parametrize("form", FORMS)
def test_ten_thousand_classes(form: str, share: float | None) -> None:
    made = case(5, regions=6, classes=10_000, width=32, most=20, share=share)
    assert max(_differences(made, form=form)) < TOLERANCE


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    regions=st.integers(2, 6),
    classes=st.integers(1, 40),
    most=st.integers(1, 20),
    share=st.none() | st.floats(0.01, 1),
    margin=st.floats(0, 1.5),
    scale=st.floats(1, 64),
    form=st.sampled_from(FORMS),
    margin_type=st.sampled_from(MARGINS),
)
def test_any_small_case(
    seed: int, regions: int, classes: int, most: int, share: float | None, margin: float, **options: Any
) -> None:
    made = case(seed, regions=regions, classes=classes, width=5, most=most, share=share)
    assert max(_differences(made, margin=margin, **options)) < 1e-8


def test_softmax_with_one_positive_is_cross_entropy_with_a_margin() -> None:
    made = case(1, regions=12, classes=50, width=6, most=1, share=None)
    embeddings, centers, labels = made["embeddings"][1:], made["centers"], made["positives"][1:].clamp_min(0)
    logits = normalize(embeddings) @ normalize(centers).T
    logits[torch.arange(11), labels[:, 0]] -= 0.3
    found = region_cluster_loss(embeddings, centers, labels, None, form="softmax", margin_type="cosface")
    torch.testing.assert_close(found, cross_entropy(64 * logits, labels[:, 0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin_type", MARGINS)
@pytest.mark.parametrize("form", FORMS)
def test_finite_where_cosines_are_one(form: str, margin_type: str, dtype: torch.dtype) -> None:
    axes = torch.cat([torch.eye(16), normalize(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))])
    centers = torch.cat([axes, -axes]).to(dtype).requires_grad_()
    embeddings = (3 * centers.detach()).requires_grad_()
    same = torch.arange(64)[:, None]
    for positives in (same, same.roll(32, 0), torch.cat([same, same.roll(32, 0)], 1)):
        loss = region_cluster_loss(embeddings, centers, positives, None, form=form, margin_type=margin_type)
        assert all(value.isfinite().all() for value in _with_gradients(loss, embeddings, centers))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_in_ten_thousand_random_cases(dtype: torch.dtype) -> None:
    """Lengths over ten decades, angles from right to none, labels missing, copied, and outside of the sample."""
    generator = torch.Generator().manual_seed(3)
    for batch in range(20):
        centers = torch.randn(40, 8, generator=generator) * 10 ** torch.empty(40, 1).uniform_(
            -5, 5, generator=generator
        )
        noise = 10 ** torch.empty(500, 1).uniform_(-9, 1, generator=generator)
        nearest = torch.randint(40, (500,), generator=generator)
        sign = torch.randint(2, (500, 1), generator=generator) * 2 - 1
        embeddings = sign * normalize(centers)[nearest] + noise * torch.randn(500, 8, generator=generator)
        labels = torch.randint(-1, 40, (500, 3), generator=generator)
        labels[::2, 1] = nearest[::2]
        inputs = embeddings.to(dtype).requires_grad_(), centers.to(dtype).requires_grad_()
        for form, margin_type in zip(FORMS * 2, (*MARGINS, "arcface"), strict=False):
            sampled = torch.randperm(40, generator=generator)[: batch + 1]
            loss = region_cluster_loss(*inputs, labels, sampled, form=form, margin_type=margin_type)
            assert all(value.isfinite().all() for value in _with_gradients(loss, *inputs))


def test_without_regions_labels_or_negatives() -> None:
    centers = torch.randn(4, 3, requires_grad=True)
    embeddings = torch.randn(2, 3, requires_grad=True)
    nothing = torch.full((2, 2), -1)
    assert region_cluster_loss(embeddings[:0], centers, nothing[:0], None).item() == 0
    found = _with_gradients(region_cluster_loss(embeddings, centers, nothing, None), embeddings, centers)
    assert all((value == 0).all() for value in found)
    alone = region_cluster_loss(embeddings, centers, torch.tensor([[2], [-1]]), torch.tensor([2]), form="softmax")
    assert alone.item() == 0  # told apart from nothing


@pytest.mark.parametrize("regions", [2, 4])
def test_a_region_without_labels_counts_in_the_mean(regions: int) -> None:
    made = case(2, regions=regions, classes=9, width=3, most=2, share=None)
    made["positives"][1:, 0] = 1
    everyone = region_cluster_loss(*made.values())
    labelled = region_cluster_loss(made["embeddings"][1:], made["centers"], made["positives"][1:], None)
    torch.testing.assert_close(everyone, labelled * (regions - 1) / regions)


def test_computes_in_fp32_at_least_and_in_the_inputs_type() -> None:
    made = case(4, regions=5, classes=30, width=8, most=2, share=None)
    for given_type, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        loss = region_cluster_loss(
            made["embeddings"].to(given_type), made["centers"].to(given_type), made["positives"], None
        )
        assert loss.dtype == expected
    with torch.autocast("cpu", torch.bfloat16):
        inside = region_cluster_loss(made["embeddings"].float(), made["centers"].float(), made["positives"], None)
    outside = region_cluster_loss(made["embeddings"].float(), made["centers"].float(), made["positives"], None)
    assert torch.equal(inside, outside)


def test_a_slope_is_not_differentiated_again() -> None:
    made = case(4, regions=5, classes=30, width=8, most=2, share=None)
    embeddings, weight = made["embeddings"].requires_grad_(), torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = weight * region_cluster_loss(embeddings, made["centers"], made["positives"], None)
    (slope,) = torch.autograd.grad(loss, embeddings, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_bf16_products_round_the_inputs_alone() -> None:
    x, y = torch.randn(40, 100), torch.randn(30, 100)
    expected = x.bfloat16().double() @ y.bfloat16().double().T
    torch.testing.assert_close(streaming._product(x, y, True).double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        ([[9]], None, "positives: expected class ids from -1 to 8, got 9"),
        ([[-2]], None, "positives: expected class ids from -1 to 8, got -2"),
        ([[1]], [0, 9], "negatives: expected class ids from 0 to 8, got 9"),
        ([[1]], [-1], "negatives: expected class ids from 0 to 8, got -1"),
        ([[1], [2]], None, "expected embeddings (R, D), centres (K, D), positives (R, M); got"),
    ],
)
def test_says_what_does_not_fit(positives: list[list[int]], negatives: list[int] | None, message: str) -> None:
    sample = None if negatives is None else torch.tensor(negatives)
    with pytest.raises(RiceError) as raised:
        region_cluster_loss(torch.ones(1, 3), torch.ones(9, 3), torch.tensor(positives), sample)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("embeddings", "centers", "positives"), [((2, 4), (9, 3), (2, 1)), ((2, 3), (9, 3), (2,)), ((2, 3), (3,), (2, 1))]
)
def test_says_what_shapes_do_not_fit(embeddings: tuple[int, ...], centers: tuple[int, ...], positives: Any) -> None:
    with pytest.raises(RiceError, match=re.escape(f"got {(embeddings, centers, positives)}")):
        region_cluster_loss(torch.ones(embeddings), torch.ones(centers), torch.zeros(positives).long(), None)


def test_no_margin_and_a_scale_below_one_have_a_meaning() -> None:
    made = case(3, regions=3, classes=7, width=3, most=2, share=None)
    assert max(_differences(made, margin=0.0, scale=0.5)) < TOLERANCE


@pytest.mark.parametrize(
    "options",
    [{"margin": math.pi}, {"margin": -0.1}, {"scale": 0}, {"scale": math.inf}, {"form": "eq3"}, {"margin_type": "cos"}],
)
def test_refuses_constants_without_meaning(options: dict[str, Any]) -> None:
    with pytest.raises(RiceError, match=next(iter(options))):
        region_cluster_loss(torch.ones(1, 3), torch.ones(9, 3), torch.tensor([[1]]), None, **options)
