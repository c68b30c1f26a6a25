"""Our ViT's forward against transformers' MLCDVisionModel (SDPA): B/16, same weights. Exits 1 where a figure fails.

    python benchmarks/encoder.py [--sizes 224 512] [--batch 8] [--rounds 7] [--threads N] [--device cuda] [--bf16]
                                 [--json FILE]

Outputs are compared first. Rounds alternate the two in one process, the first of each pair in turn, and the median of
their ratios counts. The limit is what the forward's matrix products would take at the best rate that either of torch's
fp32 libraries reaches here on a large product.
"""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.timing import alternate, begin, finish, ratios, shown, spread
from rice.encoders.cost import cost
from rice.encoders.zoo import entries
from rice.model import checkpoint
from rice.model.config import B16, to_json
from rice.model.linear import Linear
from rice.model.names import detect
from rice.model.vit import ViT

RATIO = 1.0
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.05}
"""Largest difference of outputs that are about 1 in size."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured.

    Args:
        sizes: Edges of the square images, in pixels.
        batch: Images per forward.
        rounds: Alternating rounds; the median of their ratios counts.
        depth: Blocks; fewer than B/16's twelve for a quick look.
        threads: Of the CPU; all of them where it is not given.
        device: cpu or cuda.
        bf16: Both in bfloat16, for GPUs.
        json: Write the figures here, too.
    """

    sizes: tuple[int, ...] = (224, 512)
    batch: int = 8
    rounds: int = 7
    depth: int = B16.depth
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
    ours, theirs = (model.to(config.device, dtype) for model in twins(config.depth))
    report = begin(config, config.device)
    sizes: dict[int, Any] = {}
    with torch.no_grad():
        peak = _peak_flops(config.device, dtype)
        for size in config.sizes:
            sizes[size] = _measure(ours, theirs, size, config, dtype, peak)
            _print(size, sizes[size])
    holds = all(figures["holds"] for figures in sizes.values())
    return finish(report | {"sizes": sizes}, config.json, holds=holds)


def twins(depth: int) -> tuple[ViT, Any]:
    """Our tower and transformers', with the same random weights."""
    from transformers import MLCDVisionConfig, MLCDVisionModel

    config = replace(B16, depth=depth)
    fields = {k: v for k, v in to_json(config, "float32").items() if k not in ("architectures", "model_type", "dtype")}
    theirs: Any = MLCDVisionModel._from_config(MLCDVisionConfig(**fields), attn_implementation="sdpa").eval()
    scheme, prefix = detect(theirs.state_dict(), "transformers")  # older releases write a prefix
    tensors = {name.removeprefix(prefix): value for name, value in theirs.state_dict().items()}
    state = checkpoint.from_published(tensors, scheme, config, origin="transformers")
    return checkpoint.build(config, state), theirs


def _measure(ours: ViT, theirs: Any, size: int, config: Config, dtype: torch.dtype, peak: float) -> dict[str, Any]:
    images = torch.randn(config.batch, 3, size, size, device=config.device, dtype=dtype)
    difference = (ours(images).hidden - theirs(images).last_hidden_state).abs().max().item()
    runs = {"ours": lambda: ours(images), "transformers": lambda: theirs(images)}
    seconds = alternate(runs, config.rounds, config.device)
    spec = replace(entries("rice-b16-512")[0].spec, depth=config.depth)
    gflop = config.batch * (cost(spec, size).gflops or 0.0)
    figures = {
        "difference": difference,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": ratios(seconds, "ours", "transformers"),
        "gflop": gflop,
        "gflop_per_s": {name: gflop / statistics.median(values) for name, values in seconds.items()},
        "limit_seconds": gflop * 1e9 / peak,
    }
    return figures | {"holds": difference <= TOLERANCE[dtype] and figures["ratio"]["median"] <= RATIO}


def _peak_flops(device: str, dtype: torch.dtype) -> float:
    """Of the MLP's first product for 4096 tokens, by the better of torch's libraries."""
    rows, layer = 4096, Linear(B16.width, B16.mlp_width, device=device, dtype=dtype)
    x = torch.randn(rows, B16.width, device=device, dtype=dtype)
    products: tuple[Callable[[], Tensor], ...] = (lambda: layer(x), lambda: linear(x, layer.weight, layer.bias))
    seconds = alternate({str(number): product for number, product in enumerate(products)}, 7, device)
    return 2 * rows * B16.width * B16.mlp_width / min(map(min, seconds.values()))


def _print(size: int, figures: dict[str, Any]) -> None:
    print(f"{size} px: largest difference of outputs {figures['difference']:.1e}")
    for name, values in figures["seconds"].items():
        rate = figures["gflop_per_s"][name]
        print(f"  {name:<13} {shown(values)} s  {rate:.0f} GFLOP/s")
    mine = figures["seconds"]["ours"]["median"]
    print(f"  ratio         {shown(figures['ratio'])}")
    print(
        f"  limit         {figures['limit_seconds']:.3f} s  for {figures['gflop']:.0f} GFLOP at the best rate of a "
        f"product here; ours reaches {figures['limit_seconds'] / mine:.0%} of it"
    )
    print(f"  {'holds' if figures['holds'] else 'FAILS'} (ratio at most {RATIO}, outputs equal)")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
