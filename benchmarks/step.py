"""A whole RICE step over a plain ViT step: same tower, pictures, optimiser and clipping. Exits 1 where the goal fails.

    python benchmarks/step.py [--tower b16] [--size 224] [--batch 8] [--regions 10] [--classes 10000] [--rho 0.1]
                              [--device cuda --bf16] [--goal 1.1] [--json FILE]

The plain step is forward, backward, clipping and fused AdamW of the tower alone, its loss the mean of the pooled
output. RICE adds region layers, sampled classes, loss, centre gradients and the rows' AdamW: `rice.train.learner`
takes the step. Data is on the device already. The limit is the ratio of both steps' matrix products; on a CPU, where
rows of centres weigh as much as products, a batch of 512 would be needed to come near it.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn

from benchmarks.timing import alternate, begin, finish, ratios, shown, spread
from rice.data.stream import Batch, StreamConfig
from rice.loss import CenterBank
from rice.model.region import RiceModel
from rice.model.vit import ViT
from rice.train.config import MachineConfig, TrainConfig
from rice.train.cost import classifier_gflops, forward_gflops
from rice.train.learner import Learner
from rice.train.world import World, join


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        tower: As of rice train.
        size: Edge of the pictures, in pixels.
        batch: Pictures per step.
        regions: N.
        classes: K of the object centres.
        rho: Share of them that each region slot samples.
        rounds: Alternating rounds; the median of their ratios counts.
        device: cpu or cuda.
        bf16: bf16 products on both sides.
        compile: torch.compile both towers.
        goal: Largest ratio.
        json: Write the figures here, too.
    """

    tower: str = "b16"
    size: int = 224
    batch: int = 8
    regions: int = 10
    classes: int = 10_000
    rho: float = 0.1
    rounds: int = 5
    device: str = "cpu"
    bf16: bool = False
    compile: bool = False
    goal: float = 1.1
    json: Path | None = None


class PlainStep:
    """A ViT, its optimiser, and a step."""

    def __init__(self, config: TrainConfig, device: torch.device, bf16: bool) -> None:
        self.vit = ViT(config.vit).to(device).train()
        if config.machine.compile:
            self.vit.compile()
        rate, decay = config.optimiser.learning_rate, config.optimiser.weight_decay
        self.optimiser = torch.optim.AdamW(self.vit.parameters(), lr=rate, weight_decay=decay, fused=True)
        self.device, self.bf16, self.clip = device, bf16, config.optimiser.clip

    def __call__(self, images_B3HW: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            pooled_BD = self.vit(images_B3HW.float() / 255).pooled
        self.optimiser.zero_grad(set_to_none=True)
        pooled_BD.float().mean().backward()
        nn.utils.clip_grad_norm_(self.vit.parameters(), self.clip)
        self.optimiser.step()


def main(config: Config) -> int:
    """Run everything; 0 where the goal is met."""
    with join(config.device) as world:
        report = begin(config, config.device) | measure(config, world)
    print(f"{config.tower} at {config.size}, {config.batch} pictures, N {config.regions}, rho K {report['sampled']:,}")
    for name, values in report["seconds"].items():
        print(f"  {name:<6} {shown(values, '.4f')} s")
    print(f"  ratio  {shown(report['ratio'])}, of the products alone {report['limit']:.3f}, goal {config.goal}")
    print(f"  {'meets' if report['meets'] else 'MISSES'} the goal")
    return finish(report, config.json, holds=report["meets"])


def measure(config: Config, world: World) -> dict[str, Any]:
    """All figures."""
    settings = TrainConfig(
        tower=config.tower,
        stream=StreamConfig(size=config.size, regions=config.regions),
        rho=config.rho,
        batch=config.batch,
        samples=10**9,
        machine=MachineConfig(
            device=config.device, precision="bf16" if config.bf16 else "fp32", compile=config.compile
        ),
    )
    bank = CenterBank(config.classes, settings.vit.width, rho=config.rho, device=world.device, bf16=config.bf16)
    learner = Learner(settings, world, RiceModel(settings.vit, settings.region), {"object": bank})
    plain, batch = PlainStep(settings, world.device, config.bf16), _batch(config, world.device)
    runs = {
        "rice": lambda: learner.step(batch, 1000, config.batch * config.regions),
        "plain": lambda: plain(batch.images),
    }
    seconds = alternate(runs, config.rounds, config.device)
    tower = forward_gflops(replace(settings, target="image"))
    products = forward_gflops(settings) + classifier_gflops(settings, {"object": config.classes})
    ratio = ratios(seconds, "rice", "plain")
    return {
        "sampled": int(config.rho * config.classes),
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": ratio,
        "limit": products / tower,
        "meets": ratio["median"] <= config.goal,
    }


def _batch(config: Config, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch, config.regions)
    corners = torch.rand(*shape, 2, 2, generator=generator).sort(2).values * (config.size - 16)
    corners[:, :, 1] += 16
    labels = torch.randint(config.classes, (*shape, 1), generator=generator)
    none = torch.full((*shape, 1), -1)
    batch = Batch(
        images=torch.randint(256, (config.batch, 3, config.size, config.size), dtype=torch.uint8, generator=generator),
        boxes=corners.flatten(2),
        object_labels=labels,
        ocr_labels=none,
        image_labels=none[:, 0],
        captions=torch.zeros(config.batch, 0, dtype=torch.int64),
        samples=torch.arange(config.batch),
        corrupt=torch.zeros(config.batch, dtype=torch.bool),
        reasons=(),
    )
    return batch._replace(images=batch.images.to(device), boxes=batch.boxes.to(device))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
