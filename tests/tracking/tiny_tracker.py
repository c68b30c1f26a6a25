"""Encoders and heads whose numbers are known, clips of a bright square, generated worlds, and a training of seconds."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from rice.cli import main
from rice.data.world import WorldConfig, materialise
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec
from rice.files import read_json
from rice.train.world import World
from tracking.config import HeadsConfig, TrackingConfig
from tracking.model import build_head, grids
from tracking.sequence import PictureFiles
from tracking.sequence import Sequence as Clip
from tracking.tracker import Tracker

ENCODER = "mini-s8-128"
ALONE = World(0, 1, torch.device("cpu"))

CONFIG = TrackingConfig(
    epochs=2,
    epoch_pairs=8,
    batch=4,
    learning_rate=1e-3,
    template_size=16,
    search_size=32,
    least_frames=6,
    least_still=8.0,
    at_once=3,
    heads=HeadsConfig(channels=8, head_dim=32),
)
FLAGS = ["--epochs=2", "--epoch-pairs=8", "--batch=4", "--learning-rate=0.001", "--warmup=0", "--template-size=16"]
FLAGS += ["--search-size=32", "--least-frames=6", "--heads.channels=8", "--heads.head-dim=32", "--device=cpu"]

Box = tuple[float, float, float, float]
Frame = NDArray[np.uint8]


def config(**changes: Any) -> TrackingConfig:
    """CONFIG with other fields."""
    return dataclasses.replace(CONFIG, **changes)


def world(folder: Path, layout: str, **settings: Any) -> Path:
    """A few generated clips of 64 pixels in a benchmark's layout; one of each part loses its target for some frames."""
    fields = {
        "kind": "clips",
        "layout": layout,
        "size": 64,
        "train": 4,
        "test": 3,
        "frames": 8,
        "objects": (1, 2),
        "seed": 3,
    }
    return materialise(WorldConfig(**(fields | settings)), folder)


class PatchMeans(nn.Module):
    """Each patch's mean colour and a constant; further channels repeat them by fixed factors."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(patch)
        dice = torch.Generator().manual_seed(0)
        self.mix = nn.Parameter(torch.randn(width, 4, generator=dice), requires_grad=False)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w)."""
        means = nn.functional.pad(self.pool(images_B3HW), (0, 0, 0, 0, 0, 1), value=0.5)
        return torch.einsum("dc,bchw->bdhw", self.mix, means)


def tiny_encoder(patch: int = 4, width: int = 8) -> Encoder:
    """Random linear tokens of the patches' mean colours."""
    spec = EncoderSpec(
        name=f"patch-means-{patch}", source="test", patch=patch, size_multiple=patch, width=width, native_size=8 * patch
    )
    return Encoder(
        PatchMeans(patch, width), spec, lambda module, images, layer: Features(module(images), None), weights="random"
    )


def tiny_tracker(encoder: Encoder | None = None, settings: TrackingConfig = CONFIG, seed: int = 0) -> Tracker:
    """An untrained head on an encoder, with running statistics and weights that no fresh head has."""
    encoder = encoder or tiny_encoder()
    sizes = settings.sizes(encoder.spec)
    template, search = grids(sizes, encoder.spec.patch)
    head = build_head(settings.heads, width=encoder.spec.width, template=template, search=search, seed=seed).eval()
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for branch in (head.center.score, head.center.offset, head.center.size):
            for module in branch:
                if isinstance(module, nn.BatchNorm2d):
                    assert module.running_mean is not None
                    module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=dice) * 0.1)
            branch[-1].weight.mul_(4)
    return Tracker(encoder, head, sizes, settings)


def square_frames(boxes: Sequence[Box], sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Frame]:
    """Dim noise with a bright square at each box (to whole pixels); `sizes` are heights and widths."""
    dice = np.random.default_rng(seed)
    frames = []
    for (x, y, width, height), (rows, columns) in zip(boxes, sizes, strict=True):
        frame = dice.integers(0, 60, (rows, columns, 3), dtype=np.uint8)
        left, top = max(round(x), 0), max(round(y), 0)
        frame[top : max(round(y + height), 0), left : max(round(x + width), 0)] = (250, 200, 40)
        frames.append(frame)
    return frames


def walk(count: int, start: Box, step: tuple[float, float]) -> list[Box]:
    """A box that moves by `step` a frame."""
    x, y, width, height = start
    return [(x + k * step[0], y + k * step[1], width, height) for k in range(count)]


def write_frames(folder: Path, frames: Sequence[Frame]) -> PictureFiles:
    """FOLDER/00000001.png and so on."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / f"{number:08d}.png")
    return PictureFiles(folder=folder, count=len(frames), pattern="%08d.png")


def write_clip(
    folder: Path, places: Sequence[Box], shape: tuple[int, int] | Sequence[tuple[int, int]] = (48, 64), **fields: Any
) -> Clip:
    """A clip of a bright square on disk, named after its folder; its truth is `places` where no `boxes` are given."""
    sizes = [shape] * len(places) if isinstance(shape[0], int) else shape
    frames = write_frames(folder, square_frames(places, sizes, seed=len(places)))  # type: ignore[arg-type]
    return Clip(**({"benchmark": "folder", "name": folder.name, "frames": frames, "boxes": np.array(places)} | fields))


def scores_of(out: Path) -> Any:
    """The stored scores of a training or a judgement."""
    return read_json(out / "scores.json")


def tracks_of(out: Path) -> dict[str, str]:
    """Stored tracks by their places."""
    return {str(path.relative_to(out)): path.read_text() for path in sorted((out / "tracks").rglob("*.txt"))}


def lasot_score(root: Path, tracks: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `rice track score` says of LaSOT tracks, from the benchmark's own files; `folder` is to be written."""
    for name in ("gt", "absent"):
        (folder / name).mkdir(parents=True)
    for path in tracks.glob("*.txt"):
        clip = root / path.stem.rpartition("-")[0] / path.stem
        shutil.copy(clip / "groundtruth.txt", folder / "gt" / path.name)
        flags = [np.loadtxt(clip / f"{flag}.txt", delimiter=",") for flag in ("full_occlusion", "out_of_view")]
        (folder / "absent" / path.name).write_text("".join(f"{int(a + b > 0)}\n" for a, b in zip(*flags, strict=True)))
    capsys.readouterr()
    words = ["--gt", folder / "gt", "--absent", folder / "absent", "--pred", tracks]
    main(["track", "score", "--protocol", "lasot-matlab", "--json", *map(str, words)])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def train_rank(rank: int, ranks: int, root: Path, out: Path, port: int) -> None:
    """One of several ranks that train together; leaves its head, its scores and its training's folder."""
    import os

    from probes.heads import Tower
    from rice.progress import SilentProgress
    from rice.train.world import join
    from tracking.material import Places, open_material
    from tracking.run import Training

    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    settings = config(evaluate_every=1)
    with join("cpu") as world_:
        training = Training(
            tower=Tower.load(ENCODER, "default", torch.device("cpu")),
            material=open_material(Places.of(root, settings), settings, SilentProgress()),
            config=settings,
            seed=0,
            folder=out / "training",
        )
        outcome = training.run(SilentProgress(), world_)
    scores = {name: scores.values for name, scores in outcome.scores.items()}
    torch.save({"head": outcome.tracker.head.state_dict(), "scores": scores}, out / f"rank{rank}.pt")
