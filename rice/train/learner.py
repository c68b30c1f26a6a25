"""Tower, region layers, class centres and their optimisers: one step of region cluster discrimination (section 3.3).

Shapes: B images of this rank, N regions per image, M positives per region, D width, H W pixels.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.nn.parallel import DistributedDataParallel

from rice.data.stream import Batch
from rice.encoders.spec import CLIP_MEAN, CLIP_STD
from rice.errors import RiceError
from rice.loss import CenterBank
from rice.model.region import RiceModel
from rice.model.vit import Block, ViT
from rice.train.config import TrainConfig
from rice.train.world import World

_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Embedder(nn.Module):
    """(images, boxes) -> embeddings (B, N, D): the regions', or of image-level training (B, 1, D) the class token."""

    def __init__(self, tower: RiceModel | ViT) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images_B3HW: Tensor, boxes_BN4: Tensor) -> Tensor:
        """Normalised images; boxes xyxy in their pixels."""
        if isinstance(self.tower, RiceModel):
            regions_BND: Tensor = self.tower(images_B3HW, boxes_BN4).regions
            return regions_BND
        pooled_BD: Tensor = self.tower(images_B3HW).pooled
        return pooled_BD[:, None]


class Targets(NamedTuple):
    """One bank's labels of this rank's batch: `positives` (B, N, M), padded with -1, and its weight in the loss."""

    bank: CenterBank
    positives: Tensor
    weight: float


class Learner:
    """Everything that learns."""

    def __init__(self, config: TrainConfig, world: World, tower: RiceModel | ViT, banks: dict[str, CenterBank]) -> None:
        """`tower`: on the CPU, equal on every rank; it is moved, and wrapped as the configuration says."""
        self.config, self.world, self.banks = config, world, banks
        self.tower = tower
        self.bf16 = uses_bf16(config, world.device)
        self.embedder = Embedder(tower).to(world.device).train()
        self._wrapped = self._parallel()
        optimiser = config.optimiser
        self.parameters = [p for p in self.embedder.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=optimiser.learning_rate,
            betas=optimiser.betas,
            eps=optimiser.eps,
            weight_decay=optimiser.weight_decay,
            fused=True,
        )
        mean, std = (torch.tensor(v, device=world.device).view(1, 3, 1, 1) * 255 for v in (CLIP_MEAN, CLIP_STD))
        self._mean, self._std = mean, std

    def step(self, batch: Batch, step: int, regions: float) -> Tensor:
        """One update; `regions`: labelled regions of all ranks. Returns loss, each bank's share of it, gradient norm.

        Without a labelled region nothing moves. The mean is over all ranks' regions: eq. 3 and 4 as one loss.
        """
        rate = self.config.optimiser.rate(step, self.config.steps)
        embeddings_BND, device = self.embed(batch.images, batch.boxes), self.world.device
        losses = [
            weight * bank(embeddings_BND, labels.to(device, non_blocking=True), step=step) / max(regions, 1)
            for bank, labels, weight in self._targets(batch)
        ]
        total = torch.stack(losses).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = self._clip_and_update(rate, moves=regions > 0)
        return torch.stack([total.detach(), *(loss.detach() for loss in losses), norm])

    def embed(self, images_B3HW: Tensor, boxes_BN4: Tensor) -> Tensor:
        """Embeddings (B, N, D) of uint8 images."""
        images = images_B3HW.to(self.world.device, non_blocking=True)
        boxes = boxes_BN4.to(self.world.device, non_blocking=True)
        with self._precision():
            embeddings_BND: Tensor = self._wrapped((images - self._mean) / self._std, boxes)
        return embeddings_BND

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """No gradients, and no layer in its training form."""
        self.embedder.eval()
        with torch.no_grad():
            yield
        self.embedder.train()

    def state(self) -> dict[str, Any]:
        """Tensors and DTensors of tower, optimiser and banks, which alias the live ones."""
        return {
            "model": get_model_state_dict(self.embedder),
            "optimiser": get_optimizer_state_dict(self.embedder, self.optimiser, options=_FLAT),
            "banks": {name: bank.state() for name, bank in self.banks.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state of `state`'s form; the banks' tensors are their own already."""
        set_model_state_dict(self.embedder, state["model"])
        set_optimizer_state_dict(self.embedder, self.optimiser, state["optimiser"], options=_FLAT)

    def labelled(self, batch: Batch) -> int:
        """Regions of this rank with a label for any bank: what the loss is the mean over."""
        known_BN = [(target.positives >= 0).any(-1) for target in self._targets(batch)]
        return int(torch.stack(known_BN).any(0).sum())

    def _targets(self, batch: Batch) -> list[Targets]:
        config = self.config
        labels = {"object": batch.object_labels, "ocr": batch.ocr_labels, "image": batch.image_labels[:, None]}
        weights = {"object": config.object_weight, "ocr": config.ocr_weight, "image": config.object_weight}
        return [Targets(bank, labels[name], weights[name]) for name, bank in self.banks.items()]

    def _clip_and_update(self, rate: float, *, moves: bool) -> Tensor:
        """Scale all gradients to the largest norm allowed, each sampled centre counted once; then update."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        squares = [getattr(norm, "full_tensor", lambda: norm)().square()]
        norm = torch.stack([*squares, *(bank.grad_square_norm() for bank in self.banks.values())]).sum().sqrt()
        coefficient = (self.config.optimiser.clip / (norm + 1e-6)).clamp(max=1.0)
        if moves:
            torch._foreach_mul_(gradients, coefficient)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.step()
            for bank in self.banks.values():
                bank.step(rate, coefficient)
        return norm.detach()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.bf16)

    def _parallel(self) -> nn.Module:
        machine, world = self.config.machine, self.world
        if machine.recompute:
            _recompute(self.embedder)
        if machine.compile:
            self.embedder.compile()
        if machine.parallel == "fsdp2":
            return _sharded(self.embedder, world)
        if world.size == 1:
            return self.embedder
        return DistributedDataParallel(
            self.embedder, device_ids=[world.device] if world.device.type == "cuda" else None
        )


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether products take bf16 on this device. Errors: RiceError where it is asked for and there is none."""
    wanted = config.machine.precision
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if wanted == "bf16" and not able:
        raise RiceError(f"--machine.precision bf16: {device} has no fast bf16 products; use fp32")
    return able and wanted != "fp32"


def _recompute(module: nn.Module) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    apply_activation_checkpointing(module, check_fn=lambda part: isinstance(part, Block))


def _sharded(module: nn.Module, world: World) -> nn.Module:
    """FSDP2: parameters, gradients and moments live in shards over the ranks; autocast keeps the products in bf16."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for part in module.modules():
        if isinstance(part, Block):
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module
