"""A linear layer that takes the fast fp32 matrix product of the CPU.

Shapes: M rows (all leading dimensions), D inputs, N outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

_TWO_LIBRARIES = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_SMALL = 2**15
"""Inputs with fewer numbers gain nothing; torch keeps convolutions of up to 20480 from oneDNN."""


class Linear(nn.Linear):
    """`nn.Linear`, computed on an x86 CPU in fp32 as a 1 x 1 convolution.

    torch sends fp32 matrix products to MKL and convolutions to oneDNN. Off Intel's own processors MKL keeps to a slow
    path: 170-195 GFLOP/s against 410-440 on two cores of an AMD EPYC at B/16's shapes. Both are true fp32 with fp32
    accumulation. Everywhere else this is `linear`.
    """

    def forward(self, x_MD: Tensor) -> Tensor:
        """(..., D) -> (..., N)."""
        fast = _TWO_LIBRARIES and x_MD.device.type == "cpu" and x_MD.dtype == torch.float32
        if not fast or x_MD.numel() < _SMALL or torch.is_autocast_enabled("cpu"):
            return linear(x_MD, self.weight, self.bias)
        # One image of M x 1 pixels in channels-last order: these are views, nothing is copied. Dilation means nothing
        # to a 1 x 1 kernel, but without it a single thread would be sent back to MKL.
        image_1DM1 = x_MD.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        image_1NM1 = conv2d(image_1DM1, self.weight[:, :, None, None], self.bias, dilation=2)
        return image_1NM1.permute(0, 2, 3, 1).reshape(*x_MD.shape[:-1], self.out_features)
