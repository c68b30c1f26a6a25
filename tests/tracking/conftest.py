"""Lets this folder's tests import their samples (`toolkits`, `tiny_tracker`), and what several of them read."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_tracker import ENCODER, config, world

from rice.data.world import WorldConfig, materialise
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of benchmarks by their names, COCO's stills among them; tests copy what they change."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for layout in ("got10k", "lasot", "trackingnet", "tnl2k"):
        world(folder / layout, layout)
    materialise(WorldConfig(size=64, train=6, test=2, objects=(1, 2)), folder / "coco")
    return folder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The one that comes with the package."""
    return load_encoder(ENCODER).requires_grad_(False)


@pytest.fixture(scope="session")
def trained(roots: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data, out) of one `rice track train`, judged twice on LaSOT; tests change neither."""
    from tracking import commands

    out = tmp_path_factory.mktemp("trained") / "out"
    commands.train(config(evaluate_every=1), encoder=ENCODER, data=roots / "lasot", out=out, device="cpu")
    return roots / "lasot", out
