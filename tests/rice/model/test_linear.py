from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rice.model.linear import _TWO_LIBRARIES, Linear, product, products


def check(layer: Linear, x: torch.Tensor) -> None:
    """The layer and its gradients against float64."""
    weight, exact_x = (value.detach().double().requires_grad_() for value in (layer.weight, x))
    bias = None if layer.bias is None else layer.bias.detach().double().requires_grad_()
    exact = exact_x @ weight.T + (0 if bias is None else bias)
    result = layer(x)
    assert result.shape == exact.shape
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(result)
    result.backward(upstream)
    exact.backward(upstream.double())
    for ours, theirs in ((x, exact_x), (layer.weight, weight), (layer.bias, bias)):
        if theirs is not None:
            assert ours.grad is not None
            torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    bias=st.booleans(),
)
def test_small_inputs_equal_the_product_in_float64(shape: list[int], inputs: int, outputs: int, bias: bool) -> None:
    check(Linear(inputs, outputs, bias=bias), torch.randn(*shape, inputs, requires_grad=True))


@settings(deadline=None, max_examples=15)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(300, 400),
    inputs=st.integers(110, 140),
    outputs=st.integers(1, 99),
    bias=st.booleans(),
)
def test_large_inputs_equal_the_product_in_float64(
    batch: int, tokens: int, inputs: int, outputs: int, bias: bool
) -> None:
    check(Linear(inputs, outputs, bias=bias), torch.randn(batch, tokens, inputs, requires_grad=True))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With more, groups must be larger to be worth a product each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_product(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(Linear(128, 96), torch.randn(300, 128, requires_grad=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_keep_theirs(dtype: torch.dtype) -> None:
    layer = Linear(6, 5).to(dtype)
    x = torch.randn(3, 6, dtype=dtype)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_autocast_lowers_it_as_any_linear_layer() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(128, 5)(torch.randn(300, 128)).dtype == torch.bfloat16


def test_takes_inputs_in_any_memory_order() -> None:
    layer = Linear(128, 5)
    x = torch.randn(2, 128, 300).transpose(1, 2)
    torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=1e-5, atol=1e-5)


def test_an_empty_batch_stays_empty() -> None:
    assert Linear(6, 5)(torch.empty(0, 6)).shape == (0, 5)


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_frozen_parts_get_no_gradient_and_the_others_theirs(frozen: str) -> None:
    layer, x = Linear(128, 96), torch.randn(300, 128, requires_grad=True)
    parts = {"x": x, "weight": layer.weight, "bias": layer.bias}
    parts[frozen].requires_grad_(False)
    layer(x).sum().backward()
    assert [name for name, part in parts.items() if part.grad is None] == [frozen]


def test_second_derivatives_are_those_of_the_product() -> None:
    """d/dW of |d(sum y^2 / 2)/dx|^2 / 2, against float64."""

    def penalty(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        (slope,) = torch.autograd.grad(y.square().sum() / 2, x, create_graph=True)
        (result,) = torch.autograd.grad(slope.square().mean() / 2, weight)
        return result

    layer, x = Linear(128, 96), torch.randn(300, 128, requires_grad=True)
    exact_x, exact_weight = (value.detach().double().requires_grad_() for value in (x, layer.weight))
    exact = penalty(exact_x, exact_weight, exact_x @ exact_weight.T + layer.bias.detach().double())
    ours = penalty(x, layer.weight, layer(x))
    torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("columns", [slice(None), slice(3, 131)], ids=["dense", "with gaps"])
@pytest.mark.parametrize("turned", [False, True], ids=["by rows", "by columns"])
def test_weights_are_read_as_they_lie(columns: slice, turned: bool) -> None:
    stored = torch.randn(90, 140)[:, columns]
    weight = stored.t() if turned else stored
    x = torch.randn(100, weight.shape[1])
    torch.testing.assert_close(product(x, weight).double(), x.double() @ weight.double().T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("weight_turned", [False, True], ids=["weight by rows", "weight by columns"])
@pytest.mark.parametrize("groups_inside", [False, True], ids=["groups outside", "groups inside"])
@pytest.mark.parametrize("rows", [70, 2], ids=["large", "small"])
@pytest.mark.usefixtures("one_thread")
def test_products_and_their_gradients_are_those_of_float64(rows: int, groups_inside: bool, weight_turned: bool) -> None:
    groups, inputs, outputs = 3, 100, 90
    x = torch.randn(rows, groups, inputs).transpose(0, 1) if groups_inside else torch.randn(groups, rows, inputs)
    weight = torch.randn(groups, outputs, inputs).mT if weight_turned else torch.randn(groups, inputs, outputs)
    upstream = torch.randn(groups, rows, outputs)
    ours, exact = ([v.detach().to(kind).requires_grad_() for v in (x, weight)] for kind in (x.dtype, torch.float64))
    result, expected = products(*ours), torch.einsum("gmd,gdn->gmn", *exact)
    assert ("_Products" in type(result.grad_fn).__name__) == (rows == 70 and _TWO_LIBRARIES)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-4)
    slopes = torch.autograd.grad(result, ours, upstream, create_graph=True)
    exact_slopes = torch.autograd.grad(expected, exact, upstream.double(), create_graph=True)
    for mine, theirs in zip(slopes, exact_slopes, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-4)
    curvature = torch.autograd.grad(slopes[0].square().mean(), ours[1])[0]
    exact_curvature = torch.autograd.grad(exact_slopes[0].square().mean(), exact[1])[0]
    torch.testing.assert_close(curvature.double(), exact_curvature, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_products_of_other_dtypes_keep_theirs(dtype: torch.dtype) -> None:
    x, weight = torch.randn(2, 70, 80, dtype=dtype), torch.randn(2, 80, 9, dtype=dtype)
    assert products(x, weight).dtype == dtype


def test_products_of_no_groups_or_no_rows_stay_empty() -> None:
    assert products(torch.empty(0, 4, 6), torch.empty(0, 6, 5)).shape == (0, 4, 5)
    assert products(torch.empty(2, 0, 6), torch.empty(2, 6, 5)).shape == (2, 0, 5)
