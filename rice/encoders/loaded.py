"""What every loader gives."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rice.encoders.base import Extract
from rice.encoders.spec import EncoderSpec
from rice.encoders.weights import INIT_SEED


class Loaded(NamedTuple):
    """The raw network, its facts, and how features come out of it."""

    module: nn.Module
    spec: EncoderSpec
    extract: Extract


@contextlib.contextmanager
def seeded_init() -> Iterator[None]:
    """Random initialisation is the same every time and leaves the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INIT_SEED)
        yield


def as_map(tokens_BTD: Tensor, grid: tuple[int, int]) -> Tensor:
    """Row-major patch tokens (B, h*w, D) as a map (B, D, h, w)."""
    batch, _, width = tokens_BTD.shape
    return tokens_BTD.transpose(1, 2).reshape(batch, width, *grid)
