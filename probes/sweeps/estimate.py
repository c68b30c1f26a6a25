"""What `rice sweep --dry-run` prints: cells, missing results, tokens, GFLOPs, disk."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from probes.sweeps.plan import Cell
from probes.sweeps.sweepfile import Sweep
from rice.files import format_bytes

_FEATURE_BYTES = 2  # probes keep fp16 features


def print_estimate(
    sweep: Sweep, cells: Sequence[Cell], missing: Sequence[Cell], out: Path, seeds_missing: int, console: Console
) -> None:
    """Print the plan: one row per encoder and input size, then what it costs in all. `missing`: the cells to run."""
    console.print(_encoder_table(cells, missing))
    lines = [
        f"sweep {sweep.name}: {len(cells)} cells, {len(sweep.seeds)} seeds each",
        f"to compute: {len(missing)} cells, {seeds_missing} of {len(cells) * len(sweep.seeds)} results",
        *_costs(missing),
        f"disk: {format_bytes(_free(out))} free at {out}{_largest_cache(missing)}",
        "nothing was written (--dry-run)",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _encoder_table(cells: Sequence[Cell], missing: Sequence[Cell]) -> Table:
    name = Column("encoder", overflow="fold")  # never cut a name short
    table = Table(name, "weights", "pixels", "tokens", "GFLOPs/image", "cells", "to run")
    rows: dict[tuple[str, ...], list[int]] = {}
    to_run = {cell.key for cell in missing}
    for cell in cells:
        gflops = "unknown" if cell.gflops is None else f"{cell.gflops:.1f}"
        weights = "random" if cell.encoder.weights is None else cell.encoder.weights
        counts = rows.setdefault(
            (cell.encoder.label, weights, str(cell.identity.size), str(cell.tokens), gflops), [0, 0]
        )
        counts[0] += 1
        counts[1] += cell.key in to_run
    for row, counts in rows.items():
        table.add_row(*(Text(word) for word in row), *map(str, counts))
    return table


def _costs(missing: Sequence[Cell]) -> list[str]:
    """Each picture passes once per cell: all seeds read the same features."""
    known = [(cell.gflops, images) for cell in missing if cell.gflops is not None and (images := cell.images())]
    total = sum(gflops * images for gflops, images in known)
    images = sum(images for _, images in known)
    lines = [f"forward passes: up to {images:,} images, {total / 1e3:,.1f} TFLOPs"] if known or not missing else []
    if len(known) < len(missing):
        lines.append(f"not counted: {len(missing) - len(known)} cells whose images or GFLOPs are not known beforehand")
    return lines


def _largest_cache(missing: Sequence[Cell]) -> str:
    sizes = [min(cell.cache_gb * 1e9, _features(cell)) for cell in missing]
    return f"; features of the largest cell take up to {format_bytes(int(max(sizes)))}" if any(sizes) else ""


def _features(cell: Cell) -> int:
    return cell.tokens * cell.spec.width * _FEATURE_BYTES * (cell.images() or 0)


def _free(out: Path) -> int:
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free
