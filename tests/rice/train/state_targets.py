"""What the ranks of test_state.py do. K rows of the class-sharded part."""

import dataclasses
import errno
import resource
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ranks import report
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, init_device_mesh

from rice.errors import RiceError
from rice.train import storage
from rice.train.state import Checkpoints

IDENTITY = {"model": {"width": 8, "betas": (0.9, 0.98)}, "seed": 3}
FACTS = {"loss": 1.5}


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
            "empty": torch.zeros(0, 3),
        },
        "bank": rows | {"steps": torch.arange(classes, dtype=torch.int32) + step},
        "optimiser": {"rate": 0.1 + step, "betas": (0.9, 0.98 + 1e-9 * step), "foreach": None},
        "position": step * 1000,
    }


def sharded(full: Tensor, device: str = "cpu") -> DTensor:
    """Rows over the ranks like torch.chunk, with empty shards where there are more ranks than chunks."""
    rank, world = dist.get_rank(), dist.get_world_size()
    chunks = full.chunk(world)
    local = (chunks[rank] if rank < len(chunks) else full[:0]).clone().to(device)
    mesh = init_device_mesh(device, (world,))
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=full.shape, stride=full.stride())


def on_ranks(full: dict[str, Any]) -> dict[str, Any]:
    return full | {"bank": {name: sharded(value) for name, value in full["bank"].items()}}


def gathered(state: Any) -> Any:
    """A copy, whole on every rank."""
    if isinstance(state, dict):
        return {name: gathered(value) for name, value in state.items()}
    if isinstance(state, DTensor):
        state = state.full_tensor()
    return state.clone() if isinstance(state, Tensor) else state


def spoil(state: Any) -> None:
    """What training does to the state while it is being written."""
    for value in state.values():
        if isinstance(value, dict):
            spoil(value)
        elif isinstance(value, DTensor):
            value.to_local().zero_()
        elif isinstance(value, Tensor):
            value.zero_()


def same(one: Any, other: Any) -> bool:
    """Bit for bit, types included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def save(folder: Path, *steps: int, classes: int = 7, keep: int = 3) -> None:
    checkpoints = Checkpoints(folder, identity=IDENTITY, keep=keep)
    for step in steps:
        state = on_ranks(full_state(step, classes))
        checkpoints.save(step, state, FACTS)
        spoil(state)
    saved = checkpoints.finish()
    assert saved is not None
    assert saved.step == steps[-1]


def loaded(checkpoints: Checkpoints, classes: int = 7) -> tuple[int, dict[str, Any]]:
    """Step and state of the latest checkpoint, filled into another step's tensors, in place."""
    saved = checkpoints.latest()
    assert saved is not None
    assert saved.facts == FACTS
    state = on_ranks(full_state(saved.step + 1, classes))
    places = state["bank"]["weight"].to_local().data_ptr(), state["model"]["a.weight"].data_ptr()
    checkpoints.load(saved, state)
    assert places == (state["bank"]["weight"].to_local().data_ptr(), state["model"]["a.weight"].data_ptr())
    return saved.step, state


def hand_on(folder: Path, classes: int) -> None:
    """Load the latest, prove it, and save what was loaded as the next step."""
    checkpoints = Checkpoints(folder, identity=IDENTITY)
    step, state = loaded(checkpoints, classes)
    assert same(gathered(state), full_state(1, classes))
    checkpoints.save(step + 1, state, FACTS)
    checkpoints.finish()


def train(folder: Path, classes: int) -> None:
    """Prove what is there, then save step after step until killed."""
    checkpoints = Checkpoints(folder, identity=IDENTITY, keep=2)
    assert not list(folder.glob(".step-*"))
    step = 0
    if checkpoints.latest() is not None:
        step, state = loaded(checkpoints, classes)
        assert same(gathered(state), full_state(step, classes))
    report("resumed", step)
    while True:
        step += 1
        checkpoints.save(step, on_ranks(full_state(step, classes)), FACTS)
        report("began", step)
        while checkpoints.poll() is None:
            time.sleep(0.001)
        report("complete", step)


def no_space(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def fill_disk(folder: Path, full_on: int, how: str) -> str:
    """Step 1 is saved, step 2 meets a full disk on one rank, step 3 has room again. Returns the error's message."""
    save(folder, 1)
    checkpoints = Checkpoints(folder, identity=IDENTITY)
    state = on_ranks(full_state(2, 50_000))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    write = storage.atomic_write
    if dist.get_rank() == full_on:
        if how == "kernel":  # EFBIG: what the kernel itself says in the middle of a file
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
        else:
            storage.atomic_write = no_space  # type: ignore[assignment]
    try:
        checkpoints.save(2, state, FACTS)
        checkpoints.finish()
        message = "saved"
    except RiceError as error:
        message = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    storage.atomic_write = write
    dist.barrier()
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".lock", "step-00000001"], names
    step, found = loaded(checkpoints)
    assert step == 1
    assert same(gathered(found), full_state(1))
    checkpoints.save(3, on_ranks(full_state(3)), FACTS)
    saved = checkpoints.finish()
    assert saved is not None
    assert saved.step == 3
    return message


def slow_rank(folder: Path, gate: Path) -> None:
    """No rank waits for a slow writer at a step's end, and none finishes before it."""
    checkpoints = Checkpoints(folder, identity=IDENTITY)
    write = storage.atomic_write

    def wait_for_the_gate(*arguments: Any) -> Any:
        while not gate.exists():
            time.sleep(0.001)
        return write(*arguments)

    if dist.get_rank() == 1:
        storage.atomic_write = wait_for_the_gate
    checkpoints.save(1, on_ranks(full_state(1)), FACTS)
    for _ in range(20):
        assert checkpoints.poll() is None
        assert checkpoints.latest() is None
    dist.barrier()
    gate.touch()
    while (saved := checkpoints.poll()) is None:
        pass
    assert saved.step == 1
    assert same(gathered(loaded(checkpoints)[1]), full_state(1))


def fsdp2(folder: Path, step: int) -> dict[str, Any]:
    """A module over all ranks (one rank: plain tensors) takes over step - 1 where there is one, trains, saves `step`.

    Returns the state that was taken over and the one that was saved, whole.
    """
    torch.manual_seed(step)
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    if dist.get_world_size() > 1:
        fully_shard(module, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1 / step, betas=(0.9, 0.98))
    checkpoints = Checkpoints(folder, identity=IDENTITY)
    flat = StateDictOptions(flatten_optimizer_state_dict=True)

    def state() -> dict[str, Any]:
        model, optimiser_state = get_state_dict(module, optimiser, options=flat)
        return {"model": model, "optimiser": optimiser_state}

    before = state()
    saved = checkpoints.latest()
    if saved is not None:
        checkpoints.load(saved, before)
        set_state_dict(
            module,
            optimiser,
            model_state_dict=before["model"],
            optim_state_dict=before["optimiser"],
            options=flat,
        )
        before = gathered(state())
    module(torch.randn(4, 5)).square().sum().backward()
    optimiser.step()
    after = state()
    checkpoints.save(step, after, FACTS)
    checkpoints.finish()
    return {"before": before if saved is not None else None, "after": gathered(after)}


class Late:
    """A save that this rank hears of some polls after the others."""

    def __init__(self, written: Any, polls: int) -> None:
        self.result, self._done, self._polls = written.result, written.done, polls

    def done(self) -> bool:
        self._polls -= 1
        return self._polls < 0 and bool(self._done())


def same_step(folder: Path) -> int:
    """The step at which this rank sees the save complete, while training's own collectives go on."""
    checkpoints = Checkpoints(folder, identity=IDENTITY)
    checkpoints.save(1, on_ranks(full_state(1)), FACTS)
    assert checkpoints._pending is not None
    checkpoints._pending.written.result()
    if dist.get_rank() == 1:
        checkpoints._pending = dataclasses.replace(
            checkpoints._pending,
            written=Late(checkpoints._pending.written, 5),  # type: ignore[arg-type]
        )
    for step in range(20):
        if checkpoints.poll() is not None:
            return step
        dist.all_reduce(torch.ones(1))
    raise AssertionError("never complete")


def clean(folder: Path) -> bool:
    """Whether this rank removed anything at its start."""
    import shutil

    removed = []
    remove = shutil.rmtree
    shutil.rmtree = lambda *a, **k: (removed.append(a), remove(*a, **k))  # type: ignore[assignment]
    Checkpoints(folder, identity=IDENTITY)
    return bool(removed)


def refused(folder: Path) -> str:
    """The message of loading the latest checkpoint on this rank; the state must be untouched."""
    checkpoints = Checkpoints(folder, identity=IDENTITY)
    state = on_ranks(full_state(9))
    try:
        saved = checkpoints.latest()
        assert saved is not None
        checkpoints.load(saved, state)
    except RiceError as error:
        assert same(gathered(state), full_state(9))
        return str(error)
    return "loaded"


def hold(folder: Path) -> None:
    checkpoints = Checkpoints(folder, identity=IDENTITY)
    checkpoints._begin(1, folder / "step-00000001")
    report("holding")
    time.sleep(60)
