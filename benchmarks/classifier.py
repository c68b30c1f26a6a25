"""One step of the sampled classifier: ours against the dense-gradient one with AdamW, in use today. Exits 1 on failure.

    python benchmarks/classifier.py [--classes 100000] [--width 256] [--regions 512] [--slots 1] [--rho 0.1]
                                    [--rounds 15] [--form softmax] [--threads N] [--device cuda] [--json FILE]
    python benchmarks/classifier.py --classes 1000000 --width 768 --regions 5120 --slots 10 --no-baseline --no-keep

The other side is the sampled classifier of ArcFace's published code (PartialFC, its version 2): positives and random
negatives by a top-k of random numbers, `weight[index]`, normalised, margin, cross entropy; autograd makes a dense K x D
gradient, and torch.optim.AdamW goes over the whole matrix. Three of it:

    dense   as published: the margin by arc cosines and cosines of all logits, torch's default AdamW
    lean    the margin on the positives' logits alone
    fused   lean, with torch's fused AdamW: no published code has it, and no figure here depends on it

First both sides compute loss and gradients on one sampled set, and must agree. Then rounds alternate the sides in one
process and the medians count. Memory is the high water of a process of its own above centres and moments (on CUDA: of
the allocator). A step is sampling, forward, backward to embeddings and centres, update.
"""

import ctypes
import gc
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize, softplus

from benchmarks.timing import alternate, begin, finish, process_mib
from rice.loss import CenterBank, ClusterLoss, region_cluster_loss
from rice.loss.equations import Form

Side = Literal["ours", "dense", "lean", "fused"]

FASTER = 3.0
LEANER = 0.25
TOTAL_GIB = 10.0
TOLERANCE = 1e-4
"""Of loss and gradients in fp32, relative to the largest."""
MARGIN, SCALE = 0.3, 64.0
RATE, DECAY, BETAS = 1e-3, 0.2, (0.9, 0.98)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        classes: K.
        width: Of embeddings and centres.
        regions: Of a step, in all slots together.
        slots: Regions per picture; each slot has a sample of its own.
        rho: Share of the classes in a sample.
        rounds: Alternating rounds; medians count.
        form: Of the loss, on both sides.
        threads: Of the CPU; all of them where it is not given.
        device: cpu or cuda.
        bf16: Ours rounds the inputs of its products.
        keep: Ours keeps the centres' gradients; else it computes them again, in less memory.
        baseline: Measure the other side, too.
        memory_of: Only run one side's steps and print their memory; what the benchmark starts by itself.
        json: Write the figures here, too.
    """

    classes: int = 100_000
    width: int = 256
    regions: int = 512
    slots: int = 1
    rho: float = 0.1
    rounds: int = 15
    form: Form = "softmax"
    threads: int | None = None
    device: str = "cpu"
    bf16: bool = False
    keep: bool = True
    baseline: bool = True
    memory_of: Side | None = None
    json: Path | None = None


class Dense:
    """The classifier in use today."""

    def __init__(self, config: Config, *, published: bool, fused: bool = False) -> None:
        self.config, self.published = config, published
        self.weight = nn.Parameter(torch.empty(config.classes, config.width, device=config.device).normal_(std=0.01))
        self.optimiser = torch.optim.AdamW(
            [self.weight], lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True if fused else None
        )

    def step(self, embeddings_BND: Tensor, labels_BN1: Tensor, number: int) -> None:
        """Sampling to update, slot by slot."""
        self.optimiser.zero_grad(set_to_none=True)
        for slot in range(labels_BN1.shape[1]):
            labels_R = labels_BN1[:, slot, 0]
            torch.autograd.backward(self.loss(embeddings_BND[:, slot], labels_R, self.sample(labels_R)))
        self.optimiser.step()

    def sample(self, labels_R: Tensor) -> Tensor:
        """Every positive and, up to rho K, random others; ascending."""
        chance_K = torch.rand(self.config.classes, device=labels_R.device)
        chance_K[torch.unique(labels_R)] = 2.0
        return chance_K.topk(int(self.config.rho * self.config.classes)).indices.sort().values

    def loss(self, embeddings_RD: Tensor, labels_R: Tensor, index_S: Tensor) -> Tensor:
        """The sum over regions, with the margin straight through, as ArcFace's code has it."""
        logits_RS = linear(normalize(embeddings_RD), normalize(self.weight[index_S])).clamp(-1, 1)
        rows_R, columns_R = torch.arange(len(labels_R), device=labels_R.device), torch.searchsorted(index_S, labels_R)
        with torch.no_grad():
            angles_R = logits_RS[rows_R, columns_R].arccos()
            if self.published:
                logits_RS.arccos_().cos_()
            logits_RS[rows_R, columns_R] = (angles_R + MARGIN).cos()
        logits_RS = logits_RS * SCALE
        if self.config.form == "softmax":
            return cross_entropy(logits_RS, columns_R, reduction="sum")
        own_RS = torch.zeros_like(logits_RS, dtype=torch.bool)
        own_RS[rows_R, columns_R] = True
        rest_R = logits_RS.masked_fill(own_RS, -torch.inf).logsumexp(1)
        return (softplus(-logits_RS[rows_R, columns_R]) + softplus(rest_R)).sum()


class Ours:
    """The bank of class centres."""

    def __init__(self, config: Config) -> None:
        loss = ClusterLoss(margin=MARGIN, scale=SCALE, form=config.form, margin_type="arcface_straight_through")
        self.bank = CenterBank(
            config.classes,
            config.width,
            rho=config.rho,
            loss=loss,
            device=config.device,
            bf16=config.bf16,
            keep_gradients=config.keep,
            betas=BETAS,
            weight_decay=DECAY,
        )

    def step(self, embeddings_BND: Tensor, labels_BN1: Tensor, number: int) -> None:
        """Sampling to update."""
        torch.autograd.backward(self.bank(embeddings_BND, labels_BN1, step=number))
        self.bank.step(RATE)


BUILD: dict[Side, Callable[[Config], Dense | Ours]] = {
    "ours": Ours,
    "dense": lambda config: Dense(config, published=True),
    "lean": lambda config: Dense(config, published=False),
    "fused": lambda config: Dense(config, published=False, fused=True),
}


def main(config: Config) -> int:
    """Run everything; 0 where every figure holds."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.memory_of is not None:
        print(json.dumps(_memory(config, config.memory_of)))
        return 0
    report = begin(config, config.device)
    print(f"{config.regions} regions in {config.slots} slot(s), {config.classes:,} classes x {config.width}")
    sides: list[Side] = ["ours", "dense", "lean", "fused"] if config.baseline else ["ours"]
    report |= {
        "memory": {side: _memory_apart(config, side) for side in sides},
        "difference": _difference(config) if config.baseline else None,
        "seconds": _seconds(config, sides) if config.rounds else {},
    }
    report |= _judge(report)
    _print(report)
    return finish(report, config.json, holds=report["holds"])


def _batch(config: Config, number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    shape = config.regions // config.slots, config.slots
    embeddings_BND = torch.randn(*shape, config.width, generator=generator)
    labels_BN1 = torch.randint(config.classes, (*shape, 1), generator=generator)
    return embeddings_BND.to(config.device).requires_grad_(), labels_BN1.to(config.device)


def _difference(config: Config) -> float:
    """Largest difference of loss and gradients on one sampled set, relative to the largest value of each."""
    config = replace(config, classes=min(config.classes, 20_000), slots=1)
    torch.manual_seed(0)
    dense = Dense(config, published=False)
    embeddings, labels = _batch(config, 0)
    index_S = dense.sample(labels[:, 0, 0])
    theirs = dense.loss(embeddings[:, 0], labels[:, 0, 0], index_S)
    mine = len(labels) * region_cluster_loss(
        embeddings[:, 0],
        dense.weight,
        labels[:, 0],
        index_S,
        margin=MARGIN,
        scale=SCALE,
        form=config.form,
        margin_type="arcface_straight_through",
    )
    pairs = [(theirs, mine)]
    pairs += zip(*(torch.autograd.grad(loss, (embeddings, dense.weight)) for loss in (theirs, mine)), strict=True)
    return max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)


def _seconds(config: Config, sides: list[Side]) -> dict[str, list[float]]:
    """Of every step, on the same batches, a new one each round."""
    batches = [_batch(config, number) for number in range(config.rounds + 1)]

    def steps(side: Side) -> Callable[[], None]:
        built, left = BUILD[side](config), enumerate(batches)

        def run() -> None:
            number, (embeddings, labels) = next(left)
            built.step(embeddings.detach().requires_grad_(), labels, number)

        return run

    return alternate({side: steps(side) for side in sides}, config.rounds, config.device)


def _memory_apart(config: Config, side: Side) -> dict[str, float]:
    """`_memory` of a fresh process."""
    names = ("classes", "width", "regions", "slots", "rho", "form", "threads", "device")
    flags = [f"--{name}={value}" for name in names if (value := getattr(config, name)) is not None]
    flags += [f"--memory-of={side}"] + ["--bf16"] * config.bf16 + ["--no-keep"] * (not config.keep)
    run = subprocess.run([sys.executable, __file__, *flags], stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def _memory(config: Config, side: Side) -> dict[str, float]:
    """MiB: centres and moments, the peak above them in a step, and the sum; `libraries` are in none of them."""
    libraries = _resident(config)
    built = BUILD[side](config)
    first, second = (_batch(config, number) for number in range(2))
    built.step(*first, 0)  # moments and libraries come with the first step
    if isinstance(built, Dense):
        built.optimiser.zero_grad(set_to_none=True)
    first[0].grad = None
    state = 3 * config.classes * config.width * 4 / 2**20
    before = _reset_peak(config)
    built.step(*second, 1)
    extra = _peak(config) - before
    return {"state": state, "extra": extra, "total": state + extra, "libraries": libraries}


def _reset_peak(config: Config) -> float:
    """Give freed memory back to the system, forget the peak; MiB in use now."""
    gc.collect()
    if config.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(config.device)
    else:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _resident(config)


def _resident(config: Config) -> float:
    if config.device.startswith("cuda"):
        return torch.cuda.memory_allocated(config.device) / 2**20
    return process_mib("VmRSS")


def _peak(config: Config) -> float:
    if config.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(config.device) / 2**20
    return process_mib("VmHWM")


def _judge(report: dict[str, Any]) -> dict[str, Any]:
    """Ratios to ours, and whether all hold, against torch's default AdamW and in total."""
    seconds = {side: statistics.median(values) for side, values in report["seconds"].items()}
    memory = {side: figures["extra"] for side, figures in report["memory"].items()}
    faster = {side: seconds[side] / seconds["ours"] for side in seconds if side != "ours"}
    leaner = {side: memory["ours"] / memory[side] for side in memory if side != "ours"}
    holds = report["memory"]["ours"]["total"] <= TOTAL_GIB * 2**10
    if report["difference"] is not None:
        holds = holds and report["difference"] <= TOLERANCE
        for side in ("dense", "lean"):
            holds = holds and leaner[side] <= LEANER and (not faster or faster[side] >= FASTER)
    return {"median": seconds, "faster": faster, "memory_ratio": leaner, "holds": holds}


def _print(report: dict[str, Any]) -> None:
    if report["difference"] is not None:
        print(f"largest relative difference of loss and gradients on one sampled set: {report['difference']:.1e}")
    for side, memory in report["memory"].items():
        values = [1000 * value for value in report["seconds"].get(side, [])]
        timing = f"{statistics.median(values):7.1f} ms ({min(values):.1f} to {max(values):.1f})  " if values else ""
        print(f"  {side:<6} {timing}{memory['extra']:7.0f} MiB over {memory['state']:.0f} MiB of centres and moments")
    for side in report["memory_ratio"]:
        faster = report["faster"].get(side)
        timing = f"{faster:.1f}x faster, " if faster else ""
        print(f"  against {side}: {timing}{report['memory_ratio'][side]:.2f}x the extra memory")
    print(f"  in total {report['memory']['ours']['total'] / 2**10:.2f} GiB")
    print(
        f"  {'holds' if report['holds'] else 'FAILS'} (at least {FASTER}x, at most {LEANER}x, at most {TOTAL_GIB} GiB)"
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
