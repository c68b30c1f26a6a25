"""A device is what was asked for, or a line that says what is there."""

import pytest
import torch

from rice.device import AUTO, pick_device
from rice.encoders.load import load_encoder
from rice.errors import RiceError


@pytest.fixture(params=[0, 2])
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return int(request.param)


def test_auto_is_the_gpu_where_there_is_one(gpus: int) -> None:
    assert pick_device(AUTO).type == ("cuda" if gpus else "cpu")


def test_what_is_there_is_taken(gpus: int) -> None:
    assert pick_device("cpu") == torch.device("cpu")
    for index in range(gpus):
        assert pick_device(f"cuda:{index}") == torch.device("cuda", index)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:2", "cuda:0"])
def test_what_is_not_there_is_one_line(gpus: int, name: str) -> None:
    if name == "cuda:0" and gpus:
        return
    with pytest.raises(RiceError, match="no device") as error:
        pick_device(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gpu", "cpu:x", ""])
def test_a_device_that_is_not_there_is_told_wherever_an_encoder_is_loaded(name: str) -> None:
    with pytest.raises(RiceError, match="no device"):
        load_encoder("mini-s8-128", device=name)
