"""How fast an encoder is where it runs.

Shapes: B images, H W input pixels.
"""

import time

import torch

from rice.encoders.base import Encoder

_BATCH = 8
_SECONDS = 1.0
_SLOW_S = 0.5


def images_per_second(encoder: Encoder, size: int) -> float:
    """Forward passes of random pictures (8, 3, size, size) for about a second, after one that is not counted.

    Where one picture alone takes over half a second, passes of one: a batch would be no faster and take minutes.
    """
    images_B3HW = torch.rand(_BATCH, 3, size, size, generator=torch.Generator().manual_seed(0)).to(encoder.device)
    _timed(encoder, images_B3HW[:1])  # loads kernels, fills caches
    if _timed(encoder, images_B3HW[:1]) > _SLOW_S:
        images_B3HW = images_B3HW[:1]
    passes, seconds = 0, 0.0
    while seconds < _SECONDS:
        seconds += _timed(encoder, images_B3HW)
        passes += 1
    return passes * len(images_B3HW) / seconds


def _timed(encoder: Encoder, images_B3HW: torch.Tensor) -> float:
    """Seconds of one forward pass."""
    start = time.perf_counter()
    encoder(images_B3HW)
    _wait(encoder)
    return time.perf_counter() - start


def _wait(encoder: Encoder) -> None:
    if encoder.device.type == "cuda":
        torch.cuda.synchronize(encoder.device)
