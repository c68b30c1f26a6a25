"""What the ranks of test_loop.py do: whole runs of a small tower on two shards of small pictures."""

import io
import json
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from ranks import report
from safetensors.torch import load_file

from rice.data.shards import DatasetInfo, Sample, write_dataset, write_shard
from rice.data.stream import StreamConfig
from rice.errors import RiceError
from rice.loss import ClusterLoss
from rice.model.config import ViTConfig
from rice.model.region import RegionConfig
from rice.train import config as configs
from rice.train import loop
from rice.train.build import run
from rice.train.config import MachineConfig, OptimiserConfig, TrainConfig

SAMPLES, CLASSES, TOKENS = 20, 7, 11
configs.TOWERS |= {"test": ViTConfig(width=16, depth=2, heads=2, patch=8, image_size=32)}  # type: ignore[operator]


def sample(index: int, corrupt: bool = False) -> Sample:
    """Pictures of noise; one in five without regions, object and text regions in the others."""
    draws = np.random.default_rng(index)
    height, width = draws.integers(40, 64, 2).tolist()
    file = io.BytesIO()
    Image.fromarray(draws.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "JPEG")
    count = 0 if index % 5 == 4 else 1 + index % 4
    corners = np.sort(draws.integers(0, 40, (count, 2, 2)), axis=1)
    corners[:, 1] += 1
    return Sample(
        key=f"picture{index:03d}",
        image=file.getvalue()[:40] if corrupt else file.getvalue(),
        suffix="jpg",
        width=width,
        height=height,
        boxes=corners.reshape(-1, 4).astype(np.uint16),
        labels=[-1 if index % 3 == 2 else int(k) for k in draws.integers(0, CLASSES, count)],
        tokens=[draws.integers(0, TOKENS, 4).tolist() if index % 3 == 2 else [] for _ in range(count)],
        scores=[1.0] * count,
        image_labels=draws.permutation(CLASSES)[:3].tolist(),
    )


def write_shards(folder: Path, corrupt: int | None = None) -> Path:
    """SAMPLES pictures in two shards; the one numbered `corrupt` is cut short."""
    folder.mkdir()
    halves = np.array_split(np.arange(SAMPLES), 2)
    shards = tuple(
        write_shard(folder, f"test-{number:06d}", (sample(i, i == corrupt) for i in half.tolist()))
        for number, half in enumerate(halves)
    )
    write_dataset(folder, DatasetInfo(object_classes=CLASSES, ocr_classes=TOKENS, shards=shards))
    return folder


def config(**changes: Any) -> TrainConfig:
    base = TrainConfig(
        tower="test",
        stream=StreamConfig(size=32, regions=3, positives=3, window=1),
        region=RegionConfig(layers=1),
        loss=ClusterLoss(scale=8.0, margin=0.2),
        rho=0.5,
        ocr_rho=0.5,
        samples=6 * 12,
        batch=6,
        optimiser=OptimiserConfig(clip=0.5),
        machine=MachineConfig(device="cpu", save_every=2, log_every=1),
    )
    return replace(base, **changes)


def train(data: Path, out: Path, settings: TrainConfig, val: Path | None = None, init: Path | None = None) -> None:
    """A run; tells its parent of each step and of the step it resumed from."""
    step, resume = loop.Run._step, loop.resume

    def told(self: loop.Run, number: int, *arguments: Any, **named: Any) -> bool:
        report("step", number)
        return step(self, number, *arguments, **named)

    def resumed(*arguments: Any) -> Any:
        saved = resume(*arguments)
        report("resumed", 0 if saved is None else saved.step)
        return saved

    loop.Run._step = told  # type: ignore[method-assign]
    from rice.train import build

    build.resume = resumed
    run(settings, data, out, val, init)


def lose(data: Path, out: Path, settings: TrainConfig, rank: int, how: int, patience: float) -> None:
    """A run whose `rank` gets a signal from itself before its sixth step; what the others say of it, and when."""
    step = loop.Run._step

    def signalled(self: loop.Run, number: int, *arguments: Any, **named: Any) -> bool:
        if number == 5:  # once all have met: that may take long on a busy machine
            group = dist.group.WORLD
            assert group is not None
            report("patience", group._get_backend(torch.device("cpu")).options._timeout.total_seconds())
            dist.distributed_c10d._set_pg_timeout(timedelta(seconds=patience), group)
        if number == 5 and self.world.rank == rank:
            report("lost", time.monotonic())
            os.kill(os.getpid(), how)
        return step(self, number, *arguments, **named)

    loop.Run._step = signalled  # type: ignore[method-assign]
    try:
        run(settings, data, out, None, None)
    except RiceError as error:
        report("said", time.monotonic(), str(error))


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def curve(out: Path) -> list[tuple[float, float, float]]:
    """(loss, gradient norm, regions) of each step."""
    return [(line["loss"], line["grad_norm"], line["regions"]) for line in lines(out) if "loss" in line]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """All of `out`/final, centres put together."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted((out / "final").glob("*.safetensors")):
        for name, value in load_file(file).items():
            key = f"{file.name.split('-0')[0]}:{name}"
            tensors[key] = torch.cat([tensors[key], value]) if key in tensors else value
    return tensors


def assert_same(first: Path, second: Path, tolerance: float) -> None:
    np.testing.assert_allclose(curve(first), curve(second), rtol=tolerance, atol=tolerance)
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=tolerance, atol=tolerance)
