"""The ranks of a run: torchrun's, or one alone. The same code serves both."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from rice.device import pick_device
from rice.errors import RiceError

_PATIENCE = timedelta(hours=12)
"""For which ranks wait for one another: the leader may prepare large data alone. torch's own is half an hour."""
_LOST = re.compile(r"(?:gloo/transport/\S+\] |(?=Application timeout caused pair))(.+?)(?:\. This is typically|\n|$)")
"""What gloo says where another rank has ended, or was waited for in vain."""


@dataclass(frozen=True)
class World:
    """This process among its run's."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.rank == 0

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """What is inside runs on the leader, then on all others, who find what it wrote."""
        if not self.leads:
            dist.barrier()
        yield
        if self.leads and self.size > 1:
            dist.barrier()

    def wait(self) -> None:
        """Until all ranks have come here."""
        if self.size > 1:
            dist.barrier()

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the leader's values, in place."""
        for tensor in tensors:
            if self.size > 1:
                dist.broadcast(tensor, src=0)

    def total(self, *values: float) -> list[float]:
        """Each value summed over all ranks; every rank gets the sums. Waits for the device, so on the CPU's group."""
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.tolist()


@contextlib.contextmanager
def join(device: str = "auto", patience: timedelta = _PATIENCE) -> Iterator[World]:
    """Join torchrun's group, or form a group of one; leave it at the end. An outer group is used and left alone.

    patience: for which ranks wait for one another.
    Errors: RiceError for a device that is not there; where another rank has ended, or hangs for longer than `patience`.
    """
    chosen = _device(device)
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), chosen)
        return
    # Tensors on the CPU go by gloo even in a run on GPUs: counts, and the copies that checkpoints are written from.
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    hook = sys.excepthook
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend, timeout=patience)
    else:
        dist.init_process_group(backend, store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), chosen)
        sys.excepthook = hook  # each group wraps the last one's, which names the rank that failed
    except RuntimeError as error:
        said = _LOST.search(str(error))
        if said is None:
            raise
        raise RiceError(
            f"another rank of this run has ended, or does not answer ({said[1]}); it may have said why. "
            "The same command resumes"
        ) from error
    finally:
        dist.destroy_process_group()


def _device(name: str) -> torch.device:
    device = pick_device(name)
    if device.type != "cuda":
        return device
    if device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


class Later:
    """Numbers on their way from the device: reading them waits for their own copy, not for what was queued since."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.detach().to("cpu", non_blocking=True)
        self._copied: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def read(self) -> list[float]:
        """The numbers."""
        if self._copied is not None:
            self._copied.synchronize()
        return [float(value) for value in self._values.tolist()]
