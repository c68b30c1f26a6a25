import time

import pytest
import torch
from torch import nn

from probes.sweeps.speed import images_per_second
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec

SPEC = EncoderSpec(name="sleeper", source="fake", patch=16, size_multiple=16, width=4, native_size=32)


def sleeper(per_pass: float, per_image: float) -> tuple[Encoder, list[int]]:
    """An encoder that takes a known time, and the batch sizes that it saw."""
    batches: list[int] = []

    def extract(module: nn.Module, images_B3HW: torch.Tensor, layer: int) -> Features:
        batches.append(len(images_B3HW))
        time.sleep(per_pass + per_image * len(images_B3HW))
        return Features(torch.zeros(len(images_B3HW), 4, 2, 2), None)

    return Encoder(nn.Identity(), SPEC, extract, weights="random"), batches


def test_speed_is_images_over_seconds() -> None:
    encoder, batches = sleeper(per_pass=0.02, per_image=0.01)
    assert images_per_second(encoder, 32) == pytest.approx(8 / 0.1, rel=0.2)
    assert batches[:2] == [1, 1]
    assert set(batches[2:]) == {8}


def test_a_slow_encoder_is_measured_on_single_images() -> None:
    encoder, batches = sleeper(per_pass=0.0, per_image=0.6)
    assert images_per_second(encoder, 32) == pytest.approx(1 / 0.6, rel=0.2)
    assert set(batches) == {1}


def test_measuring_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    images_per_second(sleeper(per_pass=0.5, per_image=0.0)[0], 32)
    assert torch.equal(torch.get_rng_state(), before)
