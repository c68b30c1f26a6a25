"""What the ranks of test_state.py do. K rows, D wide."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, init_device_mesh

from rice.train.state import Checkpoints

IDENTITY = {"model": {"width": 8, "rate": 0.1}, "seed": 3}


def sharded(full_KD: Tensor) -> DTensor:
    """Rows over the ranks like torch.chunk, with empty shards where there are more ranks than chunks."""
    rank, world = dist.get_rank(), dist.get_world_size()
    chunks = full_KD.chunk(world)
    local = chunks[rank].clone() if rank < len(chunks) else full_KD.new_zeros(0, *full_KD.shape[1:])
    mesh = init_device_mesh("cpu", (world,))
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=full_KD.shape, stride=full_KD.stride())


def full_state(step: int, classes: int = 7) -> dict[str, Any]:
    """What every number of ranks must agree on, as a function of the step."""
    generator = torch.Generator().manual_seed(step)
    rows = {name: torch.randn(classes, 5, generator=generator) for name in ("weight", "exp_avg")}
    return {
        "model": {
            "a.weight": torch.randn(4, 3, generator=generator),
            "half": torch.randn(3, generator=generator).bfloat16(),
            "scalar": torch.tensor(0.1 * step, dtype=torch.float64),
            "flag": torch.tensor([True, False, step % 2 == 0]),
            "strided": torch.randn(3, 4, generator=generator).t(),
        },
        "bank": rows | {"steps": torch.arange(classes, dtype=torch.int32) + step},
        "optimiser": {"rate": 0.1 + step, "betas": (0.9, 0.98 + 1e-9 * step), "foreach": None},
        "position": step * 1000,
    }


def on_ranks(full: dict[str, Any]) -> dict[str, Any]:
    return full | {"bank": {name: sharded(value) for name, value in full["bank"].items()}}


def gathered(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: gathered(value)
        if isinstance(value, dict)
        else value.full_tensor()
        if isinstance(value, DTensor)
        else value
        for name, value in state.items()
    }


def same(one: Any, other: Any) -> bool:
    """Bit for bit, types included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and one == other


def save_one(folder: Path, step: int, classes: int = 7, identity: Any = IDENTITY, keep: int = 3) -> None:
    checkpoints = Checkpoints(folder, identity=identity, keep=keep)
    state = on_ranks(full_state(step, classes))
    checkpoints.save(step, state, {"loss": 1.5})
    state["model"]["a.weight"].zero_()  # training goes on at once
    saved = checkpoints.finish()
    assert saved is not None and saved.step == step


def load_one(folder: Path, step: int, classes: int = 7, identity: Any = IDENTITY) -> None:
    """Fills a state of another step's values and compares with the step's own."""
    checkpoints = Checkpoints(folder, identity=identity)
    saved = checkpoints.latest()
    assert saved is not None and saved.step == step and saved.facts == {"loss": 1.5}
    state = on_ranks(full_state(step + 1, classes))
    held = state["bank"]["weight"].to_local().data_ptr(), state["model"]["a.weight"].data_ptr()
    checkpoints.load(saved, state)
    assert held == (state["bank"]["weight"].to_local().data_ptr(), state["model"]["a.weight"].data_ptr())
    assert same(gathered(state), full_state(step, classes))
