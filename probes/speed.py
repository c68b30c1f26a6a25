"""How fast an encoder is where it runs.

Shapes: B images, H W input pixels.
"""

import time

import torch

from rice.encoders.base import Encoder

_BATCH = 8
_SECONDS = 1.0


def images_per_second(encoder: Encoder, size: int) -> float:
    """Forward passes of random pictures (8, 3, size, size), after one pass that is not counted, for about a second."""
    images_B3HW = torch.rand(_BATCH, 3, size, size, generator=torch.Generator().manual_seed(0)).to(encoder.device)
    encoder(images_B3HW[:1])
    _wait(encoder)
    start, passes = time.perf_counter(), 0
    while passes == 0 or time.perf_counter() - start < _SECONDS:
        encoder(images_B3HW)
        _wait(encoder)
        passes += 1
    return passes * _BATCH / (time.perf_counter() - start)


def _wait(encoder: Encoder) -> None:
    if encoder.device.type == "cuda":
        torch.cuda.synchronize(encoder.device)
