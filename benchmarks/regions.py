"""What regions cost at B/16: a region layer against a block of the tower, ten regions against ten crops.

    python benchmarks/regions.py [--batch 8] [--regions 10] [--rounds 9] [--threads N] [--device cuda] [--bf16]
                                 [--json FILE]

First both forms of the layer must agree, values and all gradients. Then rounds alternate all sides in one process, each
going first in turn, and medians of the ratios within a round count. Exits 1 where a figure fails.

    layer      forward and backward of one region layer over those of one block (196 patches; the block's class token,
               too): by FLOPs 0.074 at ten regions. Grows with neither depth nor the number of layers.
    growth     the same layer with ten regions over one. By FLOPs alone 10; weights, their gradients and the tokens'
               are touched once however many regions ask, so that it falls with smaller batches (images x regions).
    model      forward and backward of the whole network, ten regions over one.
    crops      encoding ten crops of 224 pixels by the tower over one pass with ten boxes: 9.9 by FLOPs.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn

from benchmarks.timing import alternate, begin, finish, ratios, shown, spread
from rice.model.config import B16
from rice.model.region import Form, RegionLayer, RiceModel, cheaper_form, region_visibility
from rice.model.rope import turns
from rice.model.vit import Block

SIZE = 224
GRID = (SIZE // B16.patch, SIZE // B16.patch)
LAYER, GROWTH, CROPS = 0.15, 3.0, 9.0
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.05}
"""Largest difference of the forms, over the largest value of what is compared."""
Run = Callable[[], Any]
Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        batch: Images of a training step.
        regions: Boxes an image, and crops.
        crop_images: Images of which crops are encoded.
        rounds: Alternating rounds; the medians of their ratios count.
        threads: Of the CPU; all of them where it is not given.
        device: cpu or cuda.
        bf16: Everything in bfloat16, for GPUs.
        json: Write the figures here, too.
    """

    batch: int = 8
    regions: int = 10
    crop_images: int = 2
    rounds: int = 9
    threads: int | None = None
    device: str = "cpu"
    bf16: bool = False
    json: Path | None = None


def main(config: Config) -> int:
    """Run everything; 0 where every figure holds."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    dtype = torch.bfloat16 if config.bf16 else torch.float32
    torch.manual_seed(0)
    report = begin(config, config.device)
    print(f"{dtype}, batch {config.batch}, {config.regions} regions")
    figures: Figures = {"forms": _forms(config, dtype)}
    figures |= _layers(config, dtype) | _models(config, dtype)
    for name, figure in figures.items():
        _print(name, figure)
    holds = all(figure["holds"] for figure in figures.values())
    return finish(report | {"figures": figures}, config.json, holds=holds)


def _forms(config: Config, dtype: torch.dtype) -> Figures:
    """Both forms' output and gradients on the same input."""
    layer = RegionLayer(B16.width, B16.heads).to(config.device, dtype)
    inputs = [_random(config, dtype, rows) for rows in (config.regions, GRID[0] * GRID[1])]
    visible_BNT = region_visibility(_boxes(config, config.regions), GRID, B16.patch)
    upstream_BND = torch.randn_like(inputs[0])
    forms: tuple[Form, Form] = ("reference", "absorbed")
    results = []
    for form in forms:
        y_BND = layer(*inputs, visible_BNT, form)
        results.append([y_BND, *torch.autograd.grad(y_BND, [*inputs, *layer.parameters()], upstream_BND)])
    pairs = zip(*results, strict=True)
    worst = max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)
    return {"difference": worst, "limit": TOLERANCE[dtype], "holds": worst <= TOLERANCE[dtype]}


def _layers(config: Config, dtype: torch.dtype) -> Figures:
    """One block, and one region layer with many regions, in each form, and with one."""
    block = Block(B16).to(config.device, dtype)
    layer = RegionLayer(B16.width, B16.heads).to(config.device, dtype)
    x_BTD = _random(config, dtype, 1 + GRID[0] * GRID[1])
    angles = turns(GRID, torch.zeros(1, B16.head_dim // 2, device=config.device), B16.theta)

    def of(regions: int, form: Form | None) -> Run:
        tokens_BTD, queries_BND = _random(config, dtype, GRID[0] * GRID[1]), _random(config, dtype, regions)
        visible_BNT = region_visibility(_boxes(config, regions), GRID, B16.patch)
        inputs = [tokens_BTD, queries_BND]
        return _step(layer, inputs, lambda: layer(queries_BND, tokens_BTD, visible_BNT, form, check=False))

    runs = {
        "block": _step(block, [x_BTD], lambda: block(x_BTD, *angles)),
        "many": of(config.regions, None),
        "reference": of(config.regions, "reference"),
        "one": of(1, None),
    }
    seconds = alternate(runs, config.rounds, config.device)
    chosen = cheaper_form(config.regions, GRID[0] * GRID[1], B16.width, B16.heads)
    return {
        "layer": _ratio(seconds, "many", "block", at_most=LAYER) | {"form": chosen},
        "layer, reference form": _ratio(seconds, "reference", "block"),
        "growth": _ratio(seconds, "many", "one", at_most=GROWTH),
    }


def _models(config: Config, dtype: torch.dtype) -> Figures:
    """The whole network: training with many regions and with one, and inference against crops."""
    model = RiceModel(B16).to(config.device, dtype)
    images = torch.randn(config.crop_images, 3, SIZE, SIZE, device=config.device, dtype=dtype)
    crops = torch.randn(config.regions * len(images), 3, SIZE, SIZE, device=config.device, dtype=dtype)
    boxes = {number: _boxes(config, number)[:1].expand(len(images), -1, -1) for number in (1, config.regions)}

    def train(regions: int) -> Run:
        return _step(model, [], lambda: model(images, boxes[regions]).regions)

    def infer(run: Run) -> Run:
        return torch.no_grad()(run)

    runs = {
        "many": train(config.regions),
        "one": train(1),
        "crops": infer(lambda: model.vit(crops)),
        "pass": infer(lambda: model(images, boxes[config.regions])),
    }
    seconds = alternate(runs, max(config.rounds // 2, 3), config.device)
    return {
        "model": _ratio(seconds, "many", "one", at_most=GROWTH),
        "crops": _ratio(seconds, "crops", "pass", at_least=CROPS),
    }


def _step(module: nn.Module, inputs: list[Tensor], forward: Run) -> Run:
    """Forward and backward, gradients of parameters and inputs made anew as in a training step."""
    upstream = torch.randn_like(forward())

    def run() -> None:
        module.zero_grad()
        for tensor in inputs:
            tensor.grad = None
        forward().backward(upstream)

    return run


def _random(config: Config, dtype: torch.dtype, rows: int) -> Tensor:
    return torch.randn(config.batch, rows, B16.width, device=config.device, dtype=dtype, requires_grad=True)


def _boxes(config: Config, regions: int) -> Tensor:
    """Uniform corners: boxes of a ninth of the picture on average."""
    corners = torch.rand(config.batch, regions, 2, 2, device=config.device) * SIZE
    return torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=-1)


def _ratio(
    seconds: Mapping[str, list[float]], over: str, under: str, *, at_most: float | None = None, at_least: float = 0.0
) -> Figures:
    ratio = ratios(seconds, over, under)
    middle = ratio["median"]
    return {
        "seconds": {name: spread(seconds[name]) for name in (over, under)},
        "ratio": ratio,
        "limit": at_most if at_most is not None else at_least or None,
        "holds": (at_most is None or middle <= at_most) and middle >= at_least,
    }


def _print(name: str, figure: Figures) -> None:
    verdict = "" if figure["limit"] is None else f"  limit {figure['limit']}: {'holds' if figure['holds'] else 'FAILS'}"
    if "difference" in figure:
        print(f"  {name:<22} {figure['difference']:.1e} apart{verdict}")
        return
    times = " over ".join(f"{values['median'] * 1e3:.1f} ms" for values in figure["seconds"].values())
    print(f"  {name:<22} {shown(figure['ratio'])}  {times}{verdict}")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
