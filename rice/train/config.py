"""What a training run is: the fields that decide its numbers, and those that only decide how fast it gets there."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rice.data.captions import LEAST_CONTEXT
from rice.data.stream import StreamConfig
from rice.errors import RiceError, check_ranges, nearest
from rice.loss import ClusterLoss
from rice.model.config import B16, L14, MICRO8, MINI8, TINY16, ViTConfig
from rice.model.region import RegionConfig

_VERB = "rice train"

TOWERS: Mapping[str, ViTConfig] = {
    "l14": L14,
    "b16": B16,
    "tiny16": TINY16,
    "mini8": MINI8,
    "micro8": MICRO8,
}
"""The paper's two towers, and three that train on a laptop."""

Target = Literal["regions", "image", "captions"]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower that learns beside the ViT where captions are the target: open_clip's, as of CLIP's B/16.

    Args:
        width: Channels; also of the embeddings in which pictures and captions meet.
        layers: Transformer blocks.
        heads: Attention heads of each.
        context: Tokens of a caption, its begin and end among them; what is longer is cut.
    """

    width: int = 512
    layers: int = 12
    heads: int = 8
    context: int = 77

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        limits = {name: getattr(self, name) >= 1 for name in ("width", "layers", "heads")}
        check_ranges(self, limits | {"context": self.context >= LEAST_CONTEXT}, _VERB)
        if self.width % self.heads:
            raise RiceError(f"expected --text.heads that divide --text.width, got {self.heads} of {self.width}")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW over the tower, and row-wise over the class centres that a step sampled (section 4.1).

    The paper states rate and decay; the rest follows MLCD's and OneVision-Encoder's training code.

    Args:
        learning_rate: Peak.
        weight_decay: Decoupled; on every parameter, as in the code that RICE descends from. Where captions are the
            target, on matrices alone, as in open_clip's training: neither gains, biases nor the logit scale decay.
        betas: Decay of the first and second moments.
        eps: Added to the root of the second moment.
        warmup: Share of the steps that warms up linearly; a cosine to zero follows.
        clip: Largest gradient norm over the tower and the sampled centres together.
        muon: Peak rate of Muon, which then moves the matrices of blocks and region layers instead of AdamW (0.02 is
            common); 0: AdamW moves all.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.2
    muon: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    warmup: float = 0.1
    clip: float = 5.0

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        limits = {
            "learning_rate": 0 < self.learning_rate < math.inf,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "muon": 0 <= self.muon < math.inf,
            "betas": all(0 <= beta < 1 for beta in self.betas),
            "eps": 0 < self.eps < math.inf,
            "warmup": 0 <= self.warmup <= 1,
            "clip": self.clip > 0,
        }
        check_ranges(self, limits, _VERB)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of `step`, counted from 0, of `steps`."""
        warmup = round(self.warmup * steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """How the run is executed; a resumed run may change every field.

    Args:
        device: "auto" is the GPU of this rank where there is one, else the CPU.
        precision: "auto" is bf16 products with fp32 weights on a GPU that has them, fp32 elsewhere.
        parallel: Whether several ranks each hold the tower (ddp) or share it (fsdp2).
        compile: torch.compile the tower.
        recompute: Keep each block's input only and compute it again in the backward: less memory, a third more work.
        recompute_centers: Compute the centres' gradients again instead of keeping them: 7 products for 4, and at a
            million classes on one device 1.3 GiB less.
        save_every: Steps between checkpoints.
        keep: Checkpoints that stay.
        log_every: Steps between lines of metrics.jsonl.
        validate_every: Steps between validations; 0: before the first step and after the last only.
        tensorboard: Write TensorBoard events beside metrics.jsonl, too (needs the extra `train`).
        wandb: Weights & Biases project to log to, too (needs the extra `train`).
    """

    device: str = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    compile: bool = False
    recompute: bool = False
    recompute_centers: bool = False
    save_every: int = 1000
    keep: int = 3
    log_every: int = 10
    validate_every: int = 0
    tensorboard: bool = False
    wandb: str | None = None

    def __post_init__(self) -> None:
        """Errors: RiceError naming the fields."""
        least_one = ("save_every", "keep", "log_every")
        limits = {name: getattr(self, name) >= 1 for name in least_one} | {"validate_every": self.validate_every >= 0}
        check_ranges(self, limits, _VERB)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run.

    Args:
        tower: l14 and b16 are the paper's, tiny16 and mini8 a laptop's.
        target: "regions": RICE. "image": the class token learns the image's own labels (MLCD, UNICOM). "captions": it
            learns to find the picture's caption among those of the batch (CLIP).
        begin: Random start of the tower: mlcd, its published code's; contrast: one that a tower of few channels learns
            textures from in far fewer steps.
        classes: Object classes that the data must have (the paper's K); None: what it has.
        rho: Share of the object centres that each region slot samples as negatives (Table 5c).
        ocr_rho: The same for token centres.
        object_weight: Weight of eq. 3's loss.
        ocr_weight: Weight of eq. 4's loss.
        samples: Images seen in the whole run.
        batch: Images per step over all ranks together.
        seed: Decides initial weights, order, augmentation and sampled classes.
    """

    stream: StreamConfig
    tower: str = "b16"
    target: Target = "regions"
    begin: Literal["mlcd", "contrast"] = "mlcd"
    region: RegionConfig = field(default_factory=RegionConfig)
    loss: ClusterLoss = field(default_factory=ClusterLoss)
    text: TextConfig = field(default_factory=TextConfig)
    classes: int | None = None
    rho: float = 0.1
    ocr_rho: float = 0.1
    object_weight: float = 1.0
    ocr_weight: float = 1.0
    samples: int = 13_000_000_000
    batch: int = 32_768
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    seed: int = 0
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        """Errors: RiceError naming the field."""
        if self.tower not in TOWERS:
            raise RiceError(
                f"no tower {self.tower!r}; expected one of {', '.join(TOWERS)}.{nearest(self.tower, TOWERS)}"
            )
        if self.target not in get_args(Target):
            raise RiceError(f"expected target {' or '.join(get_args(Target))}, got {self.target!r}")
        for name in ("samples", "batch"):
            if getattr(self, name) < 1:
                raise RiceError(f"expected {name} of at least 1, got {getattr(self, name)}")
        weights = ("object_weight", "ocr_weight")
        check_ranges(self, {name: 0 <= getattr(self, name) < math.inf for name in weights}, _VERB)
        for name in ("rho", "ocr_rho"):
            if not 0 < getattr(self, name) <= 1:
                raise RiceError(f"expected {name} in (0, 1], got {getattr(self, name)}")
        if self.stream.size % self.vit.patch:
            raise RiceError(f"expected a size that is a multiple of the patch, {self.vit.patch} px, got {self.size}")
        context = self.text.context if self.target == "captions" else 0
        object.__setattr__(self, "stream", dataclasses.replace(self.stream, context=context))

    @property
    def vit(self) -> ViTConfig:
        """The tower, with the size it is trained at."""
        return dataclasses.replace(TOWERS[self.tower], image_size=self.size)

    @property
    def size(self) -> int:
        """Edge of the square crops, in pixels."""
        return self.stream.size

    @property
    def steps(self) -> int:
        """Optimiser steps; the last one may go past `samples`."""
        return -(-self.samples // self.batch)

    def rho_of(self, bank: str) -> float:
        """The share that each region slot samples of a bank's centres."""
        return self.ocr_rho if bank == "ocr" else self.rho

    def identity(self) -> dict[str, Any]:
        """The fields that decide the numbers: what a checkpoint and its resumption must agree on."""
        fields = dataclasses.asdict(self)
        del fields["machine"]
        if self.target != "captions":
            del fields["text"]
        if self.begin == "mlcd":  # runs are older than this choice and the next
            del fields["begin"]
        if not self.optimiser.muon:
            del fields["optimiser"]["muon"]
        for name in ("workers", "prefetch", "pin_memory", "context"):  # the last is the text tower's
            del fields["stream"][name]
        return fields
