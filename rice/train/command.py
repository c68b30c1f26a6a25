"""`rice train`."""

from pathlib import Path
from typing import Annotated

from rice.recipes import choice
from rice.train.config import TrainConfig
from rice.train.recipe import recipes


def train(
    recipe: Annotated[TrainConfig, choice(recipes())],
    *,
    data: Path,
    out: Path,
    val: Path | None = None,
    init: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Train RICE on shards, by a recipe whose every field is a flag: rice train RECIPE --help lists them.

    rice pack COCO --out SHARDS makes shards. Several GPUs or machines: torchrun --nproc-per-node 8 -m rice.cli train
    RECIPE ... with the same flags. Killed at any instant, the same command resumes, on any number of ranks.

    OUT/metrics.jsonl: a line a step; OUT/checkpoints: the last few; OUT/final: the trained encoder with its region
    layers and centres, or text tower, which rice:OUT/final loads, rice regions uses and a later stage starts from
    (--init).
    Two stages: rice train b16-224 --data SHARDS --out A; rice train b16-512 --init A/final --data SHARDS --out B.

    Args:
        data: Folder of shards (dataset.json, *.tar, *.parquet).
        out: Folder to write; the same one resumes.
        val: Shards whose regions are to be retrieved from one another, before and after training.
        init: Tower, region layers and centres, or text tower, to start from: the `final` folder of another run.
        dry_run: Say what would run and what it would cost, and write nothing.
    """
    from rice.train.build import plan, run

    if dry_run:
        print(plan(recipe, data, out, val, init))  # noqa: T201
        return
    run(recipe, data, out, val, init)
