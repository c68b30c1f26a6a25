"""What the class centres need of torch.distributed; one process without a group is a group of one."""

import torch
import torch.distributed as dist
from torch import Tensor

from rice.loss.streaming import Sums


class Ranks:
    """The ranks that share the classes: all of torch.distributed's, where it is initialised."""

    def __init__(self) -> None:
        self._group = dist.group.WORLD if dist.is_initialized() else None
        self.size = 1 if self._group is None else dist.get_world_size()
        self.rank = 0 if self._group is None else dist.get_rank()

    def shard(self, classes: int) -> range:
        """This rank's classes, split as `torch.chunk` and DTensor's Shard(0) do: the last shards smaller or empty."""
        size = -(-classes // self.size)
        start = min(self.rank * size, classes)
        return range(start, min(start + size, classes))

    def gather(self, tensor_B: Tensor) -> Tensor:
        """All ranks' tensors of one shape, one after the other."""
        if self._group is None or self.size == 1:
            return tensor_B
        gathered = tensor_B.new_empty(self.size * len(tensor_B), *tensor_B.shape[1:])
        dist.all_gather_into_tensor(gathered, tensor_B.contiguous(), group=self._group)
        return gathered

    def scatter_sum(self, tensor_G: Tensor) -> Tensor:
        """This rank's part of the sum over ranks: `gather` backwards."""
        if self._group is None or self.size == 1:
            return tensor_G
        mine = tensor_G.new_empty(len(tensor_G) // self.size, *tensor_G.shape[1:])
        dist.reduce_scatter_tensor(mine, tensor_G.contiguous(), group=self._group)
        return mine

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        return self.reduce(tensor, dist.ReduceOp.SUM)

    def reduce(self, tensor: Tensor, op: dist.ReduceOp.RedOpType) -> Tensor:
        """The largest, the least, ... over ranks, in place."""
        if self._group is not None and self.size > 1:
            dist.all_reduce(tensor, op, group=self._group)
        return tensor

    def logsumexp(self, sums: Sums) -> Tensor:
        """Of the summands of all ranks; -inf of none. Only a maximum and a sum travel per region."""
        top, total = sums
        if self._group is not None and self.size > 1:
            top = self.reduce(top.clone(), dist.ReduceOp.MAX)
            finite = top.where(top != -torch.inf, 0.0)
            total = self.add(total * (sums.top - finite).exp())
        return Sums(top, total).logarithm()

    def named(self, local: Tensor, length: int) -> Tensor:
        """A DTensor, sharded by rows as `shard` says, over a shard's own memory; the tensor itself without a group."""
        if self._group is None:
            return local
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.tensor import DTensor, Shard

        mesh = DeviceMesh.from_group(self._group, local.device.type)
        shape = torch.Size((length, *local.shape[1:]))
        return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape, stride=_strides(shape))


def _strides(shape: torch.Size) -> tuple[int, ...]:
    return tuple(shape[axis + 1 :].numel() for axis in range(len(shape)))
