"""The ranks of a run as torchrun starts them."""

import socket
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from rice.train.world import join


def test_ranks_wait_while_the_leader_prepares_large_data(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    with join("cpu") as world:
        group = dist.group.WORLD
        assert group is not None
        assert group._get_backend(torch.device("cpu")).options._timeout >= timedelta(hours=6)
        world.wait()
    assert not dist.is_initialized()


def test_groups_one_after_another_leave_the_hook_of_uncaught_errors_as_it_was() -> None:
    before = sys.excepthook
    with join("cpu"):
        assert sys.excepthook is not before, "torch names ranks some other way now"
    assert sys.excepthook is before


def test_an_error_that_leaves_a_group_still_names_its_rank(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.excepthook
    try:
        with pytest.raises(ZeroDivisionError) as caught, join("cpu"):
            raise ZeroDivisionError
        sys.excepthook(caught.type, caught.value, caught.tb)
    finally:
        sys.excepthook = before
    assert "[rank0]: ZeroDivisionError" in capsys.readouterr().err
