"""Turn encoders of a miniature into those that are shipped: rice-mini, mlcd-mini, unicom-mini, clip-mini.

    rice reproduce mini --out OUT
    python benchmarks/ship_miniature.py OUT --to rice/encoders/shipped

The tower of seed 0 at equal updates, in half precision, without region layers and centres, with a card that states its
recipe and its scores. What is shipped is never the best of several seeds.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from reports.miniature.arms import folder
from reports.miniature.claims import NAMES
from reports.miniature.run import RUNS, SWEEP
from reports.miniature.scores import Scores, Trained, mean_of, scores_of
from reports.miniature.shipped import SHIPPED
from reports.miniature.tables import columns_of
from reports.reading import read_frame
from rice.encoders.region_checkpoint import load_vit
from rice.files import atomic_folder, read_object
from rice.model import checkpoint

SEED = 0


def main(out: Annotated[Path, tyro.conf.Positional], *, to: Path) -> None:
    """Write TO/ARM-mini for each arm that is shipped.

    Args:
        out: Folder of `rice reproduce mini`.
        to: Folder of shipped encoders.
    """
    frame, _ = read_frame(out / SWEEP)
    scores = scores_of(frame)
    for arm in SHIPPED:
        run = out / RUNS / folder(Trained(arm, "updates", SEED))
        tower = load_vit(run / "final")
        config: dict[str, Any] = read_object(run / "run.json")["config"]
        with atomic_folder(to / f"{arm}-mini") as place:
            checkpoint.save(tower.to(torch.float16), place)
            (place / "README.md").write_text(card(arm, config, scores))
        print(to / f"{arm}-mini")


def card(arm: str, config: dict[str, Any], scores: Scores) -> str:
    """What it is, how it was made, and what it scored beside the other seeds."""
    lines = [
        f"# {arm}-mini",
        "",
        f"{NAMES[arm]} in miniature: a ViT of 64 channels, 4 blocks and patch 8, trained from scratch at 64 pixels",
        "on generated scenes alone (docs/miniature.md). It has seen no photograph; it is for comparing ways to train.",
        "",
        "- licence: Apache-2.0",
        "- made by: `rice reproduce mini --out OUT`, then `python benchmarks/ship_miniature.py OUT --to DIR`",
        f"- is: the pretraining of seed {SEED} at equal updates, fp16, without region layers and class centres",
        f"- learnt from {config['samples']:,} pictures, {config['batch']} an update, peak rate "
        f"{config['optimiser']['learning_rate']:g}, Muon {config['optimiser']['muon']:g}",
        "",
        f"| probe | dataset | measure | seed {SEED} | all seeds |",
        "|---|---|---|---|---|",
    ]
    for column in columns_of(scores):
        if column.cell is None:
            continue
        runs = scores.pretrainings(arm, "updates", column.cell)
        values = {seed: mean_of(found.values()) for seed, found in runs.items()}
        if SEED in values:
            all_seeds = ", ".join(f"{values[seed]:.1f}" for seed in sorted(values))
            cell = column.cell
            lines.append(
                f"| {cell.probe} | {scores.dataset(cell)} | {cell.metric} | {values[SEED]:.1f} | {all_seeds} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(main)
