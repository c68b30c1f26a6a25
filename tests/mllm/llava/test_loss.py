"""The answers' loss against float64 cross entropy of whole logits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import example, llava, pad
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from mllm.llava.loss import AnswerLoss, answer_loss, chunked_cross_entropy
from mllm.llava.packing import pack

WIDTH, VOCABULARY = 6, 11


def case(positions: int, ignored: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Hidden states, weight, bias, targets of which `ignored` at most have no loss."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((positions, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    )
    targets = torch.randint(0, VOCABULARY, (positions,), generator=generator)
    targets[torch.randperm(positions, generator=generator)[:ignored]] = -100
    return hidden, weight, bias, targets


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(3.0 * loss, inputs))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 50), st.booleans(), st.integers(0, 2**20))
def test_sum_and_gradients_equal_those_of_whole_logits(n: int, ignored: int, chunk: int, bias: bool, seed: int) -> None:
    hidden, weight, b, targets = case(n, ignored, seed)
    inputs = (hidden, weight, b) if bias else (hidden, weight)
    ours = chunked_cross_entropy(hidden, weight, targets, b if bias else None, chunk=chunk)
    whole = cross_entropy(linear(hidden, weight, b if bias else None), targets, ignore_index=-100, reduction="sum")
    torch.testing.assert_close(ours, whole)
    for got, wanted in zip(gradients(ours, *inputs), gradients(whole, *inputs), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen: str) -> None:
    values = dict(zip(("hidden", "weight", "bias"), case(9, 2, 0), strict=False))
    targets = case(9, 2, 0)[3]
    values[frozen] = values[frozen].detach()
    wanted = [value for name, value in values.items() if name != frozen]
    hidden, weight, bias = values.values()
    ours = chunked_cross_entropy(hidden, weight, targets, bias, chunk=4)
    whole = cross_entropy(linear(hidden, weight, bias), targets, reduction="sum")
    for got, expected in zip(gradients(ours, *wanted), gradients(whole, *wanted), strict=True):
        torch.testing.assert_close(got, expected)


def test_large_logits_do_not_overflow() -> None:
    hidden = torch.tensor([[300.0, 0.0], [0.0, -300.0]], requires_grad=True)
    weight = torch.tensor([[10.0, 0.0], [0.0, 10.0], [-10.0, 1.0]])
    loss = chunked_cross_entropy(hidden, weight, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(3000.0)
    assert torch.isfinite(torch.autograd.grad(loss, hidden)[0]).all()


def test_bf16_products_keep_fp32_sums_of_many_chunks() -> None:
    hidden, weight, _, targets = case(4096, 0, 1, torch.bfloat16)
    exact_h, exact_w = (value.detach().double().requires_grad_() for value in (hidden, weight))
    loss = chunked_cross_entropy(hidden, weight, targets, chunk=16)
    whole = cross_entropy(exact_h @ exact_w.t(), targets, reduction="sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(whole.item(), rel=2e-3)
    (got,), (wanted,) = gradients(loss, weight), gradients(whole, exact_w)
    assert got.dtype == torch.bfloat16
    assert ((got.double() - wanted).norm() / wanted.norm()).item() < 1e-2


def test_autocast_multiplies_in_bf16_and_returns_gradients_of_the_parameters_type() -> None:
    hidden, weight, _, targets = case(64, 5, 2, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = chunked_cross_entropy(hidden, weight, targets, chunk=16)
    exact = chunked_cross_entropy(hidden.bfloat16().double(), weight.bfloat16().double(), targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=5e-3)
    assert loss.item() != pytest.approx(chunked_cross_entropy(hidden, weight, targets).item(), rel=1e-7)
    assert [value.dtype for value in gradients(loss, hidden, weight)] == [torch.float32] * 2


def test_without_gradients_none_are_taken_and_a_second_backward_pass_says_why_not() -> None:
    hidden, weight, _, targets = case(5, 0, 3)
    with torch.no_grad():
        assert not chunked_cross_entropy(hidden, weight, targets).requires_grad
    loss = chunked_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk", [None, 3])
def test_a_llavas_loss_and_gradients_equal_transformers(tied: bool, chunk: int | None) -> None:
    model = llava(tied=tied).double()
    one = example(1, dtype=torch.float64)
    model(**pad([one])).loss.backward()
    wanted = {name: value.grad for name, value in model.named_parameters()}
    model.zero_grad()
    row = pack([one])
    keep = row["logits_to_keep"]
    with answer_loss(model, chunk):
        output = model(
            input_ids=row["input_ids"],
            pixel_values=row["pixel_values"],
            image_sizes=row["image_sizes"],
            labels=row["labels"][:, keep + 1],
            logits_to_keep=keep,
        )
        output.loss.backward()
    assert output.logits.shape == (1, len(keep), 32)
    assert {name for name, value in wanted.items() if value is None} == {
        name for name, value in model.named_parameters() if value.grad is None
    }
    for name, value in model.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(value.grad, wanted[name], rtol=1e-5, atol=1e-7)  # their logits are fp32


def test_the_heads_bias_counts() -> None:
    head = nn.Linear(WIDTH, VOCABULARY).double()
    hidden, _, _, targets = case(7, 1, 4)
    loss = AnswerLoss(head, head.forward)(logits=hidden[None], labels=targets, num_items_in_batch=torch.tensor(5))
    wanted = cross_entropy(head(hidden), targets, reduction="sum") / 5
    for got, expected in zip(gradients(loss, *head.parameters()), gradients(wanted, *head.parameters()), strict=True):
        torch.testing.assert_close(got, expected)


def test_a_head_that_is_no_linear_layer_is_applied_in_chunks() -> None:
    head = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, VOCABULARY)).double()
    hidden, _, _, targets = case(13, 2, 5)
    loss = AnswerLoss(head, head.forward, chunk=4)(logits=hidden[None], labels=targets[None])
    wanted = cross_entropy(head(hidden), targets)
    torch.testing.assert_close(loss, wanted)
    inputs = (hidden, *head.parameters())
    for got, expected in zip(gradients(loss, *inputs), gradients(wanted, *inputs), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("head", [nn.Linear(WIDTH, VOCABULARY), nn.Sequential(nn.Linear(WIDTH, VOCABULARY))])
@pytest.mark.parametrize("positions", [0, 4])
def test_without_answers_the_loss_is_zero_and_the_graph_whole(head: nn.Module, positions: int) -> None:
    source = torch.ones(positions, WIDTH, requires_grad=True)
    targets = torch.full((positions,), -100)
    loss = AnswerLoss(head, head.forward)(logits=2 * source[None], labels=targets, num_items_in_batch=0)
    assert loss.item() == 0.0
    loss.backward()
    assert source.grad is not None
    assert not source.grad.any()


def test_as_many_targets_as_positions() -> None:
    head = nn.Linear(WIDTH, VOCABULARY)
    with pytest.raises(ValueError, match="each of 3 kept positions, got 5"):
        AnswerLoss(head, head.forward)(logits=torch.ones(1, 3, WIDTH), labels=torch.zeros(5, dtype=torch.long))


def test_the_model_is_whole_again_also_after_an_error() -> None:
    model = llava()
    before, names = model.loss_function, list(model.state_dict())
    with pytest.raises(KeyError), answer_loss(model):
        assert list(model.state_dict()) == names
        raise KeyError
    assert model.loss_function is before
    assert model.lm_head(torch.ones(1, 32)).shape == (1, 64)
    assert "forward" not in model.lm_head.__dict__
