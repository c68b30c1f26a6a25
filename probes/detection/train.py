"""Train the detector's heads on frozen tokens. The loop is `probes.fit`; here are its loss, groups and log.

Shapes: B images of this rank, D width, h w the grid.
"""

from typing import Any

from torch import Tensor, nn

from probes.detection.config import DetectionConfig
from probes.detection.material import Material
from probes.detection.model import Detector, Target, build_detector
from probes.fit import FitConfig
from probes.watch import Run, fit_watched

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


def train_detector(material: Material, detector: Detector, run: Run) -> None:
    """Train in place; errors: see `fit_watched`."""
    config = material.config
    fit_watched(
        detector,
        lambda start: material.batches(run.seed, start, run.world.rank, run.world.size),
        _losses,
        fit_config(config, material.train.updates(config)),
        run,
        batch=config.batch,
        groups=groups(detector, config),
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
