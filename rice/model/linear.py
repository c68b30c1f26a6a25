"""A linear layer that takes the fast fp32 matrix product of the CPU.

Shapes: M rows (all leading dimensions), D inputs, N outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

_TWO_LIBRARIES = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_SMALL = 2**15
"""Inputs with fewer numbers gain nothing; torch keeps convolutions of up to 20480 from oneDNN."""


class Linear(nn.Linear):
    """`nn.Linear`, computed on an x86 CPU in fp32 by oneDNN.

    torch sends fp32 matrix products to MKL and convolutions to oneDNN, so the product is written as a 1 x 1
    convolution. Off Intel's own processors MKL keeps to a slow path: 170-195 GFLOP/s against 410-440 on two cores of an
    AMD EPYC at B/16's shapes. Both are true fp32 with fp32 accumulation. Everywhere else this is `linear`.
    """

    def forward(self, x_MD: Tensor) -> Tensor:
        """(..., D) -> (..., N)."""
        if not _faster(x_MD) or torch.is_autocast_enabled("cpu"):
            return linear(x_MD, self.weight, self.bias)
        y_MN: Tensor = _Product.apply(x_MD.reshape(-1, self.in_features), self.weight, self.bias)
        return y_MN.view(*x_MD.shape[:-1], self.out_features)


class _Product(torch.autograd.Function):
    """x W' + b. Its gradients are two more such products: a convolution's own backward is slower than MKL."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, weight_ND: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_MD, weight_ND)
        return _convolve(x_MD, weight_ND, bias_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (upstream_MN,) = gradients
        x_MD, weight_ND = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _convolve(upstream_MN, weight_ND.t().contiguous(), None) if needs_x else None,
            _convolve(upstream_MN.t(), x_MD.t().contiguous(), None) if needs_weight else None,
            upstream_MN.sum(0) if needs_bias else None,
        )


def product(x_MD: Tensor, weight_ND: Tensor) -> Tensor:
    """x W' (M, N) by the faster library. For use without autograd."""
    return _convolve(x_MD, weight_ND, None) if _faster(x_MD) else linear(x_MD, weight_ND)


def _faster(x_MD: Tensor) -> bool:
    fast = _TWO_LIBRARIES and x_MD.device.type == "cpu" and x_MD.dtype == torch.float32
    return bool(fast) and x_MD.numel() >= _SMALL


def _convolve(x_MD: Tensor, weight_ND: Tensor, bias_N: Tensor | None) -> Tensor:
    """(M, D) -> (M, N): one image of M x 1 pixels in channels-last order, all by views.

    Dilation means nothing to a 1 x 1 kernel, but without it torch sends a single thread back to MKL.
    """
    image_1DM1 = x_MD[None, :, None].permute(0, 3, 1, 2)
    image_1NM1 = conv2d(image_1DM1, weight_ND[:, :, None, None], bias_N, dilation=2)
    return image_1NM1.permute(0, 2, 3, 1).reshape(len(x_MD), len(weight_ND))
