"""The ranks of a run as torchrun starts them."""

import socket
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
