import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rice.model.linear import Linear


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    bias=st.booleans(),
)
def test_equals_the_product_in_float64_and_so_do_its_gradients(
    shape: list[int], inputs: int, outputs: int, bias: bool
) -> None:
    layer = Linear(inputs, outputs, bias=bias)
    x = torch.randn(*shape, inputs, requires_grad=True)
    weight, exact_x = layer.weight.detach().double().requires_grad_(), x.detach().double().requires_grad_()
    exact = exact_x @ weight.T + (layer.bias.detach().double() if bias else 0)
    result = layer(x)
    assert result.shape == (*shape, outputs)
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(result)
    result.backward(upstream)
    exact.backward(upstream.double())
    for ours, theirs in ((x.grad, exact_x.grad), (layer.weight.grad, weight.grad)):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_keep_theirs(dtype: torch.dtype) -> None:
    layer = Linear(6, 5).to(dtype)
    x = torch.randn(3, 6, dtype=dtype)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_autocast_lowers_it_as_any_linear_layer() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(6, 5)(torch.randn(3, 6)).dtype == torch.bfloat16


def test_takes_inputs_in_any_memory_order() -> None:
    layer = Linear(6, 5)
    x = torch.randn(4, 6, 3).transpose(1, 2)
    torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=1e-6, atol=1e-6)


def test_an_empty_batch_stays_empty() -> None:
    assert Linear(6, 5)(torch.empty(0, 6)).shape == (0, 5)
