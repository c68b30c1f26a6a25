"""What the ranks of test_centers.py do. G pictures in all, N slots, M positives, K classes, D width."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rice.errors import RiceError
from rice.loss import CenterBank, ClusterLoss

PICTURES, SLOTS, MOST, WIDTH = 6, 3, 4, 7


def batch(step: int, classes: int, *, bare: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings (G, N, D) in float64 and labels (G, N, M); the first `bare` pictures and slot 1 have no label."""
    generator = torch.Generator().manual_seed(step)
    embeddings_GND = torch.randn(PICTURES, SLOTS, WIDTH, generator=generator, dtype=torch.float64)
    labels_GNM = torch.randint(-1, classes, (PICTURES, SLOTS, MOST), generator=generator)
    labels_GNM[:bare], labels_GNM[:, 1] = -1, -1
    return embeddings_GND, labels_GNM


def train(
    classes: int,
    rho: float,
    steps: int,
    *,
    bare: int = 0,
    form: str = "eq34",
    keep_gradients: bool = True,
) -> dict[str, Any]:
    """Some steps with clipping, in this process's part of the batch; what every rank found, whole on rank 0's side."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    loss = ClusterLoss(form=form)  # type: ignore[arg-type]
    options: dict[str, Any] = {"dtype": torch.float64, "keep_gradients": keep_gradients}
    bank = CenterBank(classes, WIDTH, rho=rho, seed=4, name="ocr", loss=loss, **options)
    found: dict[str, Any] = {"losses": [], "norms": [], "gradients": []}
    mine = slice(rank * PICTURES // world, (rank + 1) * PICTURES // world)
    for step in range(steps):
        embeddings, labels = (tensor[mine] for tensor in batch(step, classes, bare=bare))
        total = bank(embeddings.requires_grad_(), labels, step=step)
        (total / 10).backward()
        norm = bank.grad_square_norm().sqrt()
        bank.step(0.01, (5 / norm).clamp(max=1))
        found["losses"].append(total.item())
        found["norms"].append(norm.item())
        found["gradients"].append((embeddings.grad / bank.ranks.size).tolist())
    state = {name: getattr(tensor, "full_tensor", lambda t=tensor: t)() for name, tensor in bank.state().items()}
    return found | {name: tensor.tolist() for name, tensor in state.items()}


def refuse_a_label() -> str:
    """A label too large on the last rank only; every rank's message."""
    bank = CenterBank(10, WIDTH)
    embeddings, labels = batch(0, 10)
    labels[0, 0, 0] = 10 if dist.get_rank() == dist.get_world_size() - 1 else 3
    try:
        bank(embeddings.float(), labels, step=0)
    except RiceError as error:
        return str(error)
    return "nothing"


def load_in_place() -> tuple[list[float], list[float]]:
    """This rank's first centres before and after its state's tensors are written to."""
    bank = CenterBank(5, WIDTH, rho=1.0)
    weight: Any = bank.state()["weight"]
    before = bank.local.weight[:, 0].tolist()
    weight.to_local().fill_(2.0)
    return before, bank.local.weight[:, 0].tolist()
