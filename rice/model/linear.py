"""Matrix products by the fast fp32 library of the CPU: a linear layer, plain products, and batches of them.

Shapes: M rows (all leading dimensions), D inputs, N outputs, G groups, each with its own weight.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_TWO_LIBRARIES = (
    torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
_SMALL = 2**12
"""Inputs with fewer numbers gain nothing."""
_SHARE = 2**19
"""Multiply-adds of one group for each thread: with fewer the threads wait for one another more than they multiply."""


class Linear(nn.Linear):
    """`nn.Linear`, computed on an x86 CPU in fp32 by oneDNN.

    torch sends fp32 matrix products to MKL, which keeps to a slow path off Intel's own processors: 170-200 GFLOP/s
    against oneDNN's 300-450 on two cores of an AMD EPYC at B/16's shapes, forward and both gradients. Both are true
    fp32 with fp32 accumulation. Everywhere else this is `linear`.
    """

    def forward(self, x_MD: Tensor) -> Tensor:
        """(..., D) -> (..., N)."""
        if not _faster(x_MD) or torch.is_autocast_enabled("cpu"):
            return linear(x_MD, self.weight, self.bias)
        y_MN: Tensor = _Product.apply(x_MD.reshape(-1, self.in_features), self.weight, self.bias)
        return y_MN.view(*x_MD.shape[:-1], self.out_features)


def product(x_MD: Tensor, weight_ND: Tensor) -> Tensor:
    """x W' (M, N) by the faster library. For use without autograd."""
    return _multiply(x_MD, weight_ND, None) if _faster(x_MD) else linear(x_MD, weight_ND)


def products(x_GMD: Tensor, weight_GDN: Tensor) -> Tensor:
    """x W (G, M, N), as `torch.bmm`, by the faster library; differentiable."""
    if torch.compiler.is_compiling() or not _faster(x_GMD) or torch.is_autocast_enabled("cpu"):
        return x_GMD @ weight_GDN
    if x_GMD.shape[1] * x_GMD.shape[2] * weight_GDN.shape[2] < _SHARE * torch.get_num_threads():
        return x_GMD @ weight_GDN
    y_GMN: Tensor = _Products.apply(x_GMD, weight_GDN)
    return y_GMN


class _Product(torch.autograd.Function):
    """x W' + b. Its gradients are two more such products, and so are theirs."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, weight_ND: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_MD, weight_ND)
        return _multiply(x_MD, weight_ND, bias_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (upstream_MN,) = gradients
        x_MD, weight_ND = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _Product.apply(upstream_MN, weight_ND.t(), None) if needs_x else None,
            _Product.apply(upstream_MN.t(), x_MD.t(), None) if needs_weight else None,
            upstream_MN.sum(0) if needs_bias else None,
        )


class _Products(torch.autograd.Function):
    """x W for every group: faster one after the other by oneDNN than together by MKL.

    The result lies in memory as x does, groups outside or inside of rows, and the gradients as what they are of.
    """

    @staticmethod
    def forward(ctx: Any, x_GMD: Tensor, weight_GDN: Tensor) -> Tensor:
        ctx.save_for_backward(x_GMD, weight_GDN)
        (groups, rows), outputs = x_GMD.shape[:2], weight_GDN.shape[2]
        if x_GMD.stride(0) < x_GMD.stride(1):
            y_GMN = x_GMD.new_empty(rows, groups, outputs).transpose(0, 1)
        else:
            y_GMN = x_GMD.new_empty(groups, rows, outputs)
        for x_MD, weight_DN, y_MN in zip(x_GMD, weight_GDN, y_GMN, strict=True):
            y_MN.copy_(_multiply(x_MD, weight_DN.t(), None))
        return y_GMN

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (upstream_GMN,) = gradients
        x_GMD, weight_GDN = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        x_gradient = _Products.apply(upstream_GMN, weight_GDN.transpose(1, 2)) if needs_x else None
        if not needs_weight:
            return x_gradient, None
        if weight_GDN.stride(2) == 1:
            return x_gradient, _Products.apply(x_GMD.transpose(1, 2), upstream_GMN)
        return x_gradient, _Products.apply(upstream_GMN.transpose(1, 2), x_GMD).transpose(1, 2)


def _faster(x_MD: Tensor) -> bool:
    fast = _TWO_LIBRARIES and x_MD.device.type == "cpu" and x_MD.dtype == torch.float32
    return bool(fast) and x_MD.numel() >= _SMALL


def _multiply(x_MD: Tensor, weight_ND: Tensor, bias_N: Tensor | None) -> Tensor:
    """x W' + b by oneDNN. Weights without gaps are read as they lie, by rows or by columns; gaps cost it a hundredfold.

    The operator is inductor's own, which takes no weights that may change: to the compiler it is a closed box.
    """
    if torch.compiler.is_compiling():
        boxed: Tensor = _boxed(x_MD, weight_ND, bias_N)
        return boxed
    by_columns = weight_ND.stride(0) == 1
    weight_ND = weight_ND.t().contiguous().t() if by_columns else weight_ND.contiguous()
    y_MN: Tensor = torch.ops.mkldnn._linear_pointwise(x_MD, weight_ND, bias_N, "none", [], "")
    return y_MN


@torch.library.custom_op("rice::multiply", mutates_args=(), device_types="cpu")
def _boxed(x_MD: Tensor, weight_ND: Tensor, bias_N: Tensor | None) -> Tensor:
    return _multiply(x_MD, weight_ND, bias_N)


@_boxed.register_fake
def _(x_MD: Tensor, weight_ND: Tensor, bias_N: Tensor | None) -> Tensor:
    return x_MD.new_empty(len(x_MD), len(weight_ND))
