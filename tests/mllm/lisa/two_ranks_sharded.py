"""What each of two ranks runs: `python -m torch.distributed.run two_ranks_sharded.py ROOT OUT`: forward and backward of
a model that FSDP keeps in parts, with pictures to segment on the first rank alone."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate.utils.fsdp_utils import get_module_children_bottom_up
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

_HERE = Path(__file__).parent
sys.path[:0] = [str(folder) for folder in (_HERE, _HERE.parent, _HERE.parent / "llava")]

from tiny_training import built, losses  # noqa: E402


def main(root: Path, out: Path) -> None:
    """As accelerate wraps it."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    mesh, rank = init_device_mesh("cpu", (2,)), dist.get_rank()
    lisa, examples = built(root, out / str(rank))
    for module in get_module_children_bottom_up(lisa)[:-1]:
        if type(module).__name__ in lisa._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(lisa, mesh=mesh)
    found = [examples[i] for i in range(len(examples))]
    row = next(one for one in found if (len(one.get("masks", ())) > 0) is (rank == 0))
    losses(lisa, [row], tokens=10, masks=3)["loss"].backward()
    lacking = [n for n, v in lisa.named_parameters() if n.startswith(("projection", "segmenter")) and v.requires_grad]
    lacking = [name for name in lacking if dict(lisa.named_parameters())[name].grad is None]
    assert not lacking, lacking
    dist.barrier()
    sys.stdout.flush()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)
