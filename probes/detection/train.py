"""Train the detector's heads on frozen tokens. The loop is `probes.fit`; here are its loss, groups and log.

Shapes: B images of this rank, D width, h w the grid.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.detection.config import DetectionConfig
from probes.detection.data import image_counts
from probes.detection.material import Material
from probes.detection.model import Detector, Target, build_detector
from probes.fit import FitConfig, fit
from probes.watch import Evaluate, Watch
from rice.errors import RiceError
from rice.progress import Progress
from rice.train.world import World

CHECKPOINT, METRICS = "training.pt", "metrics.jsonl"

_MOST_WARMUP = 0.1

Batch = tuple[Tensor, list[Target]]


def detector_for(material: Material, seed: int) -> Detector:
    """A fresh detector for this encoder and these categories, on the encoder's device."""
    train, heads, spec = material.train, material.config.heads, material.encoder.spec
    federated = train.split.federated if heads.federated == "auto" else heads.federated == "always"
    counts = image_counts(train.split, train.images).tolist() if federated else None
    detector = build_detector(
        heads,
        patch=spec.patch,
        width=spec.width,
        classes=len(train.split.categories),
        image_counts=counts,
        masks=train.masks,
        seed=seed,
    )
    return detector.to(material.encoder.device)


def train_detector(
    material: Material,
    detector: Detector,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    world: World,
    evaluate: Evaluate | None = None,
    every: int = 0,
) -> None:
    """Train in place. `evaluate(done)` is called on every rank every `every` updates (0: only at the end), and at the
    end; what it returns stands in the log. `folder` holds the checkpoint, which resumes, and a line of losses now and
    then.

    Errors: RiceError where the batch does not divide by the ranks, or training diverges.
    """
    config, updates = material.config, material.train.updates(material.config)
    if config.batch % world.size:
        raise RiceError(f"expected a batch that {world.size} ranks can share, got {config.batch}")
    head: nn.Module = detector
    if world.size > 1:
        devices = [world.device] if world.device.type == "cuda" else None
        head = nn.parallel.DistributedDataParallel(detector, device_ids=devices)
    watch = Watch(folder / METRICS if world.leads else None, evaluate, every or updates, config.batch)
    try:
        fit(
            head,
            lambda start: material.batches(seed, start, world.rank, world.size),
            partial(_loss, watch),
            fit_config(config, updates),
            seed=seed,
            progress=progress,
            label=f"train, {updates} steps of {config.batch}",
            groups=groups(detector, config),
            checkpoint=folder / CHECKPOINT,
            watcher=watch,
            world=world,
        )
    finally:
        watch.close()


def fit_config(config: DetectionConfig, updates: int) -> FitConfig:
    """The schedule in updates; a short training warms up over a tenth of it."""
    return FitConfig(
        updates=updates,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup=min(config.warmup, int(_MOST_WARMUP * updates)),
        milestones=config.milestones,
        clip=config.clip,
        amp=config.amp,
    )


def groups(detector: nn.Module, config: DetectionConfig) -> list[dict[str, Any]]:
    """Normalisation layers have no weight decay, as in the recipe; biases have."""
    norms = {id(p) for m in detector.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    plain = [p for p in detector.parameters() if id(p) not in norms]
    normed = [p for p in detector.parameters() if id(p) in norms]
    return [
        {"params": plain, "lr": config.learning_rate, "weight_decay": config.weight_decay},
        {"params": normed, "lr": config.learning_rate, "weight_decay": 0.0},
    ]


def _loss(watch: Watch, head: nn.Module, batch: Batch) -> Tensor:
    tokens_BDhw, targets = batch
    device = next(head.parameters()).device
    losses = head(tokens_BDhw.to(device), [target.to(device) for target in targets])
    watch.parts = {name: value.detach() for name, value in losses.items()}
    return torch.stack(list(losses.values())).sum()
