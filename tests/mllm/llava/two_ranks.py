"""What each of several ranks runs: `python -m torch.distributed.run two_ranks.py OUT`. Rank 0 keeps the weights.

test_trainer trains the same in one process.
"""

import dataclasses
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_llava import example, lengths_of, llava
from torch import Tensor

from mllm.llava.settings import TrainSettings
from mllm.llava.trainer import train
from rice.progress import SilentProgress

RATES = {"model.vision_tower": 2e-4, "model": 5e-4, "lm_head": 5e-4}
SETTINGS = TrainSettings(batch=6, micro_batches=4, epochs=2, amp=False, workers=0, device="cpu", save_every=0)
IMAGES = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]
"""So few that most steps have bins without any, and an epoch's last step has fewer samples than bins."""


def trained(out: Path, checkpointing: bool = False) -> dict[str, Tensor]:
    """The weights after training."""
    data = [example(i, images=images) for i, images in enumerate(IMAGES)]
    model = llava()
    settings = dataclasses.replace(SETTINGS, checkpointing=checkpointing)
    train(
        model,
        data,
        lengths_of(data),
        settings=settings,
        groups=RATES,
        out=out,
        progress=SilentProgress(),
        images=IMAGES,
    )
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def main(out: Path) -> None:
    """Train twice, with activations kept and recomputed, into OUT/plain.safetensors and OUT/recompute.safetensors."""
    for name in ("plain", "recompute"):
        weights = trained(out / name, checkpointing=name == "recompute")
        if os.environ["RANK"] == "0":
            save_file(weights, out / f"{name}.safetensors")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
