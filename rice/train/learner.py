"""Tower, region layers, class centres and their optimisers: one step of region cluster discrimination (section 3.3).

Or of its rivals: image-level clusters, or captions, where a text tower takes the place of centres.
Shapes: B images of this rank, N regions per image, M positives per region, D width, H W pixels, L tokens of a caption.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.nn.parallel import DistributedDataParallel

from rice.data.captions import has_text
from rice.data.stream import Batch
from rice.encoders.spec import CLIP_MEAN, CLIP_STD
from rice.errors import RiceError
from rice.loss import CenterBank
from rice.model.region import RiceModel
from rice.model.vit import Block, ViT
from rice.train.captions import CaptionModel, Pairs
from rice.train.config import TrainConfig
from rice.train.optimiser import TowerOptimiser
from rice.train.world import World

Tower = RiceModel | ViT | CaptionModel


class Embedder(nn.Module):
    """(images, boxes) -> embeddings (B, N, D): the regions', or of other training (B, 1, D) the class token."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images_B3HW: Tensor, boxes_BN4: Tensor, captions_BL: Tensor | None = None) -> Tensor | Pairs:
        """Normalised images; boxes xyxy in their pixels; with captions, which a CaptionModel takes, its pairs."""
        if isinstance(self.tower, RiceModel):
            regions_BND: Tensor = self.tower(images_B3HW, boxes_BN4).regions
            return regions_BND
        if captions_BL is not None:
            pairs: Pairs = self.tower(images_B3HW, captions_BL)
            return pairs
        vit = self.tower.vit if isinstance(self.tower, CaptionModel) else self.tower
        pooled_BD: Tensor = vit(images_B3HW).pooled
        return pooled_BD[:, None]


class Targets(NamedTuple):
    """One bank's labels of this rank's batch: `positives` (B, N, M), padded with -1, and its weight in the loss."""

    bank: CenterBank
    positives: Tensor
    weight: float


class Learner:
    """Everything that learns."""

    def __init__(self, config: TrainConfig, world: World, tower: Tower, banks: dict[str, CenterBank]) -> None:
        """`tower`: on the CPU, equal on every rank; it is moved, and wrapped as the configuration says."""
        self.config, self.world, self.banks = config, world, banks
        self.terms = ("captions",) if isinstance(tower, CaptionModel) else tuple(banks)
        self.tower = tower
        self.bf16 = uses_bf16(config, world.device)
        self.embedder = Embedder(tower).to(world.device).train()
        self._wrapped = self._parallel()
        self.parameters = [p for p in self.embedder.parameters() if p.requires_grad]
        captions = isinstance(tower, CaptionModel)
        self.optimiser = TowerOptimiser(self.embedder, config.optimiser, spare_vectors=captions)
        mean, std = (torch.tensor(v, device=world.device).view(1, 3, 1, 1) * 255 for v in (CLIP_MEAN, CLIP_STD))
        self._mean, self._std = mean, std

    def step(self, batch: Batch, step: int, regions: float) -> Tensor:
        """One update; `regions`: what `labelled` counts, of all ranks. Returns loss, its `terms`, gradient norm.

        Without a label nothing moves. The mean is over all ranks' regions: eq. 3 and 4 as one loss.
        """
        rate = self.config.optimiser.rate(step, self.config.steps)
        captions = self.config.target == "captions"
        losses = [self._contrast(batch)] if captions else self._discriminate(batch, step, regions)
        total = torch.stack(losses).sum()
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        norm = self._clip_and_update(rate, moves=regions > 0)
        return torch.stack([total.detach(), *(loss.detach() for loss in losses), norm])

    def embed(self, images_B3HW: Tensor, boxes_BN4: Tensor) -> Tensor:
        """Embeddings (B, N, D) of uint8 images."""
        embeddings_BND: Tensor = self._forward(images_B3HW, boxes_BN4)
        return embeddings_BND

    def pairs(self, batch: Batch) -> Pairs:
        """This rank's pictures and captions, of a CaptionModel."""
        pairs: Pairs = self._forward(batch.images, batch.boxes, batch.captions)
        return pairs

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
            "optimiser": self.optimiser.state(self.embedder),
            "banks": {name: bank.state() for name, bank in self.banks.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state of `state`'s form; the banks' tensors are their own already."""
        set_model_state_dict(self.embedder, state["model"])
        self.optimiser.restore(self.embedder, state["optimiser"])

    def labelled(self, batch: Batch) -> int:
        """Regions of this rank with a label for any bank: what the loss is the mean over; or captioned pictures."""
        if self.config.target == "captions":
            return int(has_text(batch.captions).sum())
        known_BN = [(target.positives >= 0).any(-1) for target in self._targets(batch)]
        return int(torch.stack(known_BN).any(0).sum())

    def _discriminate(self, batch: Batch, step: int, regions: float) -> list[Tensor]:
        """Each bank's share of eq. 3 and 4."""
        embeddings_BND, device = self.embed(batch.images, batch.boxes), self.world.device
        return [
            weight * bank(embeddings_BND, labels.to(device, non_blocking=True), step=step) / max(regions, 1)
            for bank, labels, weight in self._targets(batch)
        ]

    def _contrast(self, batch: Batch) -> Tensor:
        """CLIP's loss over the pairs of all ranks, the same on each; those without a caption have the empty text's.

        As gathered embeddings get their gradients from every rank, and parameters the mean over ranks, an update is
        that of one rank with the whole batch.
        """
        from open_clip.loss import ClipLoss

        pairs = self.pairs(batch)
        loss = ClipLoss(gather_with_grad=True, rank=self.world.rank, world_size=self.world.size)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*all_gather is deprecated", FutureWarning)  # open_clip's to replace
            value: Tensor = loss(pairs.images, pairs.texts, pairs.scale)
        return value

    def _forward(self, *inputs: Tensor) -> Any:
        """What the wrapped embedder makes of uint8 images and the rest."""
        images, *others = (x.to(self.world.device, non_blocking=True) for x in inputs)
        with self._precision():
            return self._wrapped((images - self._mean) / self._std, *others)

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
            self.optimiser.step(rate)
            for bank in self.banks.values():
                bank.step(rate, coefficient)
            if isinstance(self.tower, CaptionModel):
                self.tower.limit_scale()
        return norm.detach()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.bf16)

    def _parallel(self) -> nn.Module:
        machine, world = self.config.machine, self.world
        if machine.recompute:
            _recompute(self.embedder)
            if isinstance(self.tower, CaptionModel):
                self.tower.text.set_grad_checkpointing()
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
