"""The detection probe's three figures: a training step over detectron2's, a cached epoch over an uncached one, and
pycocotools' time over the default evaluator's. Exits 1 where a goal fails.

    python benchmarks/detection.py [--encoder timm:vit_tiny_patch16_224@256] [--batch 2] [--paper] [--device cuda]
                                   [--parts step cache evaluator] [--json FILE]

step       both have the same frozen encoder, weights, pictures, targets and draws; encoder, losses, backward, AdamW.
           Their losses are compared first. Needs detectron2; without it the part is left out, and says so.
           The limit: the matrix products are the same on both sides, so a ratio near 1 less what detectron2 spends
           beside them: its LayerNorm in seven passes, the decoding of every anchor, masks of all categories.
cache      an epoch of the heads over features from disk, and over features that the encoder computes. The limit is
           1 - e for an encoder that takes the share e of a step.
evaluator  faster-coco-eval behind our checks, and pycocotools, on random detections at --images pictures of 80
           categories with 100 detections each; both AP are compared.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from benchmarks.timing import alternate, begin, finish, ratios, shown, spread
from probes.detection.config import DetectionConfig, HeadsConfig
from probes.detection.material import prepare
from probes.detection.model import Detector, Target, build_detector
from probes.detection.pyramid import normalise_tokens
from probes.detection.recipe import small
from probes.detection.score import evaluate
from probes.detection.train import detector_for, groups, train_detector
from probes.watch import Run
from rice.data.coco import open_split
from rice.data.world import WorldConfig, materialise
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.progress import SilentProgress
from rice.train.world import World

CLASSES, OBJECTS = 80, 7
Part = Literal["step", "cache", "evaluator"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        encoder: Frozen, with random weights; patch 16 for the step, whose size both sides share.
        batch: Pictures per step.
        paper: The recipe's own heads (256 channels, 512 regions) instead of the laptop's.
        rounds: Alternating rounds; the median of their ratios counts.
        images: Pictures of the evaluator's part.
        device: cpu or cuda.
        parts: Which figures.
        json: Write the figures here, too.
    """

    encoder: str = "timm:vit_tiny_patch16_224@256"
    batch: int = 2
    paper: bool = False
    rounds: int = 5
    images: int = 1000
    device: str = "cpu"
    parts: tuple[Part, ...] = ("step", "cache", "evaluator")
    json: Path | None = None


def main(config: Config) -> int:
    """Run everything; 0 where every goal is met."""
    report = begin(config, config.device)
    measures = {"step": step, "cache": cache, "evaluator": evaluator}
    for part in config.parts:
        found = report[part] = measures[part](config)
        print(f"  {part:<10} {found['said']}")
    return finish(report, config.json, holds=all(report[part].get("meets", True) for part in config.parts))


def step(config: Config) -> dict[str, Any]:
    """Our training step over detectron2's."""
    try:
        from detectron2.config import instantiate
        from detectron2.utils.events import EventStorage

        from probes.detection.detectron2 import as_instances, canvas_edge, lazy_model, to_detectron2
    except ImportError as error:
        return {"said": f"left out: {error.name} is not installed", "seconds": None}
    encoder = load_encoder(config.encoder, weights=None, device=config.device).requires_grad_(False)
    heads = HeadsConfig() if config.paper else small().heads
    ours = build_detector(heads, patch=encoder.spec.patch, width=encoder.spec.width, classes=CLASSES)
    theirs = instantiate(lazy_model(encoder, heads, classes=CLASSES))
    theirs.load_state_dict(to_detectron2(ours), strict=False)
    ours, theirs = ours.to(config.device).train(), theirs.to(config.device).train()
    edge = canvas_edge(encoder)
    images, targets = _scenes(config.batch, edge, config.device)
    batch = [{"image": i, "instances": t} for i, t in zip(images, as_instances(targets), strict=True)]

    def our_losses() -> dict[str, Tensor]:
        tokens = normalise_tokens(encoder(torch.stack(images).float() / 255).patches)
        losses: dict[str, Tensor] = ours(tokens, targets)
        return losses

    storage = EventStorage()
    runs = {
        "ours": _stepper(our_losses, groups(ours, DetectionConfig())),
        "detectron2": _stepper(lambda: theirs(batch), _decayed(theirs)),
    }
    with storage:
        compared = _same_losses(our_losses, lambda: theirs(batch))
        seconds = alternate(runs, config.rounds, config.device)
    ratio = ratios(seconds, "ours", "detectron2")
    return {
        "said": f"{shown(ratio)} of detectron2's step; losses {compared:.1e} apart",
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": ratio,
        "losses_apart": compared,
        "goal": 1.0,
        "meets": ratio["median"] <= 1.0 and compared < 1e-3,
    }


def _stepper(losses: Callable[[], dict[str, Tensor]], parameters: Any) -> Callable[[], None]:
    """A step of AdamW; rate 0, so that every round does the same work."""
    optimiser = torch.optim.AdamW([group | {"lr": 0.0} for group in parameters])

    def run() -> None:
        torch.manual_seed(0)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses().values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return run


def _decayed(model: nn.Module) -> list[dict[str, Any]]:
    return [{"params": [p for p in model.parameters() if p.requires_grad], "weight_decay": 0.1}]


def _same_losses(ours: Callable[[], dict[str, Tensor]], theirs: Callable[[], dict[str, Tensor]]) -> float:
    """Relative difference of the summed losses under the same draws."""
    totals = []
    for losses in (ours, theirs):
        torch.manual_seed(0)
        with torch.no_grad():
            totals.append(sum(float(value) for value in losses().values()))
    return abs(totals[0] - totals[1]) / abs(totals[1])


def _scenes(batch: int, edge: int, device: str) -> tuple[list[Tensor], list[Target]]:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, edge, edge), generator=generator, dtype=torch.uint8) for _ in range(batch)]
    targets = []
    for _ in range(batch):
        corner = torch.rand(OBJECTS, 2, generator=generator) * edge * 0.6
        boxes = torch.cat([corner, corner + torch.rand(OBJECTS, 2, generator=generator) * edge * 0.35 + 8], 1)
        masks = torch.zeros(OBJECTS, edge, edge, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = True
        labels = torch.randint(CLASSES, (OBJECTS,), generator=generator)
        targets.append(Target(boxes, labels, masks, (edge, edge)).to(torch.device(device)))
    return [image.to(device) for image in images], targets


def cache(config: Config) -> dict[str, Any]:
    """An epoch with cached features over one without."""
    encoder = load_encoder(config.encoder, weights=None, device=config.device).requires_grad_(False)
    size, world = encoder.spec.native_size, World(0, 1, encoder.device)
    heads = HeadsConfig() if config.paper else small().heads
    settings = dataclasses.replace(small(), epochs=1, batch=config.batch, heads=heads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = materialise(WorldConfig(size=size, train=8 * config.batch, test=1), folder / "world")
        splits = open_split(root, "train"), open_split(root, "val")

        def epoch(cache_gb: float) -> Callable[[], None]:
            changed = dataclasses.replace(settings, cache_gb=cache_gb)
            material = prepare(encoder, *splits, size, changed, folder / "features", SilentProgress())

            def run() -> None:
                with tempfile.TemporaryDirectory() as out:
                    detector = detector_for(material, 0)
                    here = Run(seed=0, folder=Path(out), progress=SilentProgress(), world=world)
                    train_detector(material, detector, here)
                    weights.append(_checksum(detector))

            return run

        weights: list[float] = []
        seconds = alternate({"cached": epoch(10.0), "computed": epoch(0.0)}, max(3, config.rounds // 2), config.device)
    ratio, share = ratios(seconds, "cached", "computed"), _encoder_share(encoder, config)
    equal = len(set(weights)) == 1
    return {
        "said": f"{shown(ratio)} of the uncached epoch; encoder {share:.0%} of a step; weights equal: {equal}",
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": ratio,
        "weights_equal": equal,
        "meets": equal or config.device != "cpu",  # on CUDA index_add is not deterministic
    }


def _checksum(detector: Detector) -> float:
    return float(sum(value.double().sum() for value in detector.state_dict().values()))


def _encoder_share(encoder: Encoder, config: Config) -> float:
    """What of an uncached step's time the encoder's forward takes."""
    edge = encoder.spec.native_size
    heads = HeadsConfig() if config.paper else small().heads
    spec = encoder.spec
    detector = build_detector(heads, patch=spec.patch, width=spec.width, classes=24).to(config.device).train()
    images, targets = _scenes(config.batch, edge, config.device)
    targets = [target._replace(labels=target.labels % 24) for target in targets]
    pictures = torch.stack(images).float() / 255
    tokens = normalise_tokens(encoder(pictures).patches)
    runs = {
        "encoder": lambda: encoder(pictures),
        "heads": _stepper(lambda: detector(tokens, targets), groups(detector, DetectionConfig())),
    }
    seconds = alternate(runs, 3, config.device)
    encoding, learning = (spread(seconds[name])["median"] for name in ("encoder", "heads"))
    return encoding / (encoding + learning)


def evaluator(config: Config) -> dict[str, Any]:
    """pycocotools' time over the default's, on boxes."""
    truth, results = _judged(config.images)
    values: dict[str, float] = {}

    def run(name: Literal["faster", "pycocotools"]) -> None:
        values[name] = evaluate(truth, results, iou="bbox", evaluator=name).values["AP"]

    seconds = alternate({"pycocotools": lambda: run("pycocotools"), "default": lambda: run("faster")}, 3)
    ratio = ratios(seconds, "pycocotools", "default")
    apart = abs(values["faster"] - values["pycocotools"])
    return {
        "said": f"{shown(ratio, '.2f')} times as fast as pycocotools, {config.images:,} images; AP {apart:.1e} apart",
        "seconds": {name: spread(times) for name, times in seconds.items()},
        "ratio": ratio,
        "ap_apart": apart,
        "meets": apart < 1e-6,
    }


def _judged(images: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A truth of 7 boxes an image, found with errors, and 93 false alarms."""
    dice = np.random.default_rng(0)
    truth: dict[str, Any] = {
        "images": [{"id": i, "width": 640, "height": 480, "file_name": f"{i}.jpg"} for i in range(1, images + 1)],
        "categories": [{"id": k, "name": str(k)} for k in range(1, CLASSES + 1)],
        "annotations": [],
    }
    results = []
    for image in range(1, images + 1):
        boxes = np.concatenate([dice.uniform(0, 400, (100, 2)), dice.uniform(5, 200, (100, 2))], 1)
        labels = dice.integers(1, CLASSES + 1, 100)
        scores = dice.random(100)
        for k in range(OBJECTS):
            x, y, w, h = boxes[k].tolist()
            number = len(truth["annotations"]) + 1
            box = [x + dice.normal(0, 5), y + dice.normal(0, 5), w, h]
            entry = {"id": number, "image_id": image, "category_id": int(labels[k]), "bbox": box}
            truth["annotations"].append(entry | {"area": w * h, "iscrowd": 0})
        for box, label, score in zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True):
            results.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    return truth, results


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
