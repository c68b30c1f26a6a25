"""What the ranks of test_read_tower.py do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rice.files import write_json
from rice.train.build import start
from rice.train.config import MachineConfig, Target
from rice.train.final import write_final
from rice.train.learner import Learner
from rice.train.recipe import tiny
from rice.train.state import Checkpoints
from rice.train.world import join

SIZE, STEPS = 64, 2


def keep_both(folder: Path) -> None:
    """`regions` under FSDP2 and `image` under DDP, in folders named after them, by these ranks."""
    keep(folder / "regions", "regions", "fsdp2")
    keep(folder / "image", "image", "ddp")


def keep(out: Path, target: Target, parallel: Any) -> None:
    """A run's folder with two checkpoints and `final`; truth-N.safetensors: the parameters after step N, gathered."""
    base, machine = tiny(), MachineConfig(device="cpu", parallel=parallel)
    stream = replace(base.stream, size=SIZE)
    config = replace(base, tower="mini8", target=target, stream=stream, samples=STEPS * base.batch, machine=machine)
    classes = {"image": 5} if target == "image" else {"object": 5, "ocr": 3}
    with join("cpu") as world:
        learner = Learner(config, world, *start(config, classes, None, world))
        identity = {"config": config.identity(), "classes": classes}
        checkpoints = Checkpoints(out / "checkpoints", identity=identity)
        for step in range(1, STEPS + 1):
            with torch.no_grad():
                for parameter in learner.embedder.parameters():
                    parameter.add_(0.25 * step)
            checkpoints.save(step, learner.state(), {})
            checkpoints.finish()
            whole = {name: _whole(value) for name, value in learner.embedder.named_parameters()}
            if world.leads:
                save_file(whole, out / f"truth-{step}.safetensors")
                write_json(out / "run.json", identity)
        write_final(learner, out / "final")


def _whole(value: Any) -> torch.Tensor:
    whole: torch.Tensor = getattr(value, "full_tensor", lambda: value)()
    return whole.detach().contiguous()
