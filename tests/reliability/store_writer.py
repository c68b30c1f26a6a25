"""One of many writers: `python store_writer.py OUT NUMBER WRITERS CELLS` stores its cells by `probes.results.store`.

Cell c belongs to writer c modulo WRITERS; every fourth belongs to the next one, too. Those that are there already are
left alone, as a sweep leaves them. Prints how many it wrote.
"""

import random
import sys
from pathlib import Path

from probes.protocol import Metric
from probes.results import Identity, Result, result_path, store

SPEC = {
    "name": "vit",
    "source": "none",
    "patch": 16,
    "size_multiple": 16,
    "width": 8,
    "native_size": 64,
    "norm": "none",
}


def owners(cell: int, writers: int) -> set[int]:
    """Who writes it."""
    return {cell % writers} | ({(cell + 1) % writers} if cell % 4 == 0 else set())


def value(cell: int) -> float:
    """The number that must stand in it; another for each."""
    return (cell * 7919 % 10_007) / 10_007


def result(cell: int, writer: int) -> Result:
    """A result of the usual length; `device` tells who wrote it, and is no part of what it measured."""
    identity = Identity(
        encoder_fingerprint=f"{cell // 10:064x}",
        size=64,
        layer=-1,
        probe="fake",
        protocol_version=1,
        dataset_fingerprint="d" * 64,
        config={"grid": "native"},
    )
    of = {"unit": "fraction", "higher_is_better": True, "split": "val", "protocol": "by hand", "n": 10}
    return Result(
        encoder=f"encoder-{cell // 10}",
        reference=f"encoder-{cell // 10}",
        weights="default",
        trained=True,
        encoder_spec=SPEC,
        identity=identity,
        seed=cell % 10,
        dataset="scenes",
        tokens=16,
        gflops=0.5,
        images_per_s=100.0,
        resolved_config={f"setting {k}": k for k in range(60)},
        metrics=[Metric(name=name, value=value(cell), **of) for name in ("mIoU", "accuracy", "top-1")],  # type: ignore[arg-type]
        versions={f"package {k}": f"{k}.0" for k in range(20)},
        commit=None,
        device=f"writer {writer}",
        seconds=1.0,
        peak_memory={},
        finished="2026-01-01T00:00:00+00:00",
    )


def main(out: Path, number: int, writers: int, cells: int) -> None:
    """Write what is this writer's, in an order of its own."""
    mine = [cell for cell in range(cells) if number in owners(cell, writers)]
    random.Random(number).shuffle(mine)
    written = 0
    for cell in mine:
        found = result(cell, number)
        if not result_path(out, found.key).exists():
            store(out, found)
            written += 1
    print(written)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
