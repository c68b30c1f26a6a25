"""Train the detector's heads on frozen tokens. The loop is `probes.fit`; here are its loss, groups and log.

Shapes: B images of this rank, D width, h w the grid.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from probes.detection.config import DetectionConfig
from probes.detection.material import Material
from probes.detection.model import Detector, Target, build_detector
from probes.fit import FitConfig
from probes.watch import Evaluate, fit_watched
from rice.progress import Progress
from rice.train.world import World

_MOST_WARMUP = 0.1

Batch = tuple[Tensor, list[Target]]


def detector_for(material: Material, seed: int) -> Detector:
    """A fresh detector for this encoder and these categories, on the encoder's device."""
    train, heads, spec = material.train, material.config.heads, material.encoder.spec
    federated = train.split.federated if heads.federated == "auto" else heads.federated == "always"
    counts = train.image_counts().tolist() if federated else None
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
    """Train in place; `folder`, `evaluate`, `every`, errors: see `fit_watched`."""
    config, updates = material.config, material.train.updates(material.config)
    fit_watched(
        detector,
        lambda start: material.batches(seed, start, world.rank, world.size),
        _losses,
        fit_config(config, updates),
        batch=config.batch,
        seed=seed,
        folder=folder,
        progress=progress,
        world=world,
        groups=groups(detector, config),
        evaluate=evaluate,
        every=every,
    )


def fit_config(config: DetectionConfig, updates: int) -> FitConfig:
    """The schedule in updates; a short training warms up over a tenth of it."""
    warmup = min(config.warmup, int(_MOST_WARMUP * updates))
    return config.schedule(updates, warmup=warmup, milestones=config.milestones)


def groups(detector: nn.Module, config: DetectionConfig) -> list[dict[str, Any]]:
    """Normalisation layers have no weight decay, as in the recipe; biases have."""
    norms = {id(p) for m in detector.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    plain = [p for p in detector.parameters() if id(p) not in norms]
    normed = [p for p in detector.parameters() if id(p) in norms]
    return [
        {"params": plain, "lr": config.learning_rate, "weight_decay": config.weight_decay},
        {"params": normed, "lr": config.learning_rate, "weight_decay": 0.0},
    ]


def _losses(head: nn.Module, batch: Batch) -> dict[str, Tensor]:
    tokens_BDhw, targets = batch
    device = next(head.parameters()).device
    losses: dict[str, Tensor] = head(tokens_BDhw.to(device), [target.to(device) for target in targets])
    return losses
