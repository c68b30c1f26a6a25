"""Training: frozen means frozen, a kill changes nothing, ranks share a batch, the schedule is the recipe's."""

import hashlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from worlds import CONFIG, ENCODER, HEADS, config, world

from probes import fit as fit_module
from probes.detection import train as module
from probes.detection.config import DetectionConfig
from probes.detection.material import Material, prepare
from probes.detection.model import Detector, build_detector
from probes.detection.train import detector_for, fit_config, groups, train_detector
from probes.watch import METRICS, Run
from rice.data.coco import open_split
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.errors import RiceError
from rice.progress import SilentProgress
from rice.train.metrics import read_lines
from rice.train.world import World

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(ENCODER)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world") / "scenes")


def material_of(root: Path, encoder: Encoder, folder: Path, settings: DetectionConfig = CONFIG) -> Material:
    train, test = open_split(root, "train"), open_split(root, "val")
    return prepare(encoder, train, test, 64, settings, folder, SilentProgress())


def trained(material: Material, folder: Path, world_: World = ALONE, **options: Any) -> Detector:
    detector = detector_for(material, 0)
    options = {"seed": 0, "folder": folder, "progress": SilentProgress(), "world": world_} | options
    train_detector(material, detector, Run(**options))
    return detector


def weights(detector: nn.Module) -> list[Tensor]:
    return [value.clone() for value in detector.state_dict().values()]


def test_the_encoder_has_the_same_bytes_after_training(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    def digest() -> str:
        hashed = hashlib.sha256()
        for name, value in encoder.state_dict().items():
            hashed.update(name.encode() + value.numpy().tobytes())
        return hashed.hexdigest()

    before = digest()
    material = material_of(root, encoder, tmp_path)
    start = weights(detector_for(material, 0))
    after = weights(trained(material, tmp_path))
    assert digest() == before
    assert not any(torch.equal(a, b) for a, b in zip(start, after, strict=True)), "all of the head learns"
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_killed_training_resumes_with_the_numbers_of_an_unbroken_one(
    encoder: Encoder, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(fit_module, "_CHECKPOINT_EVERY_S", 0.0)
    material = material_of(root, encoder, tmp_path)
    whole = weights(trained(material, tmp_path / "whole"))
    loss = module._losses
    steps = itertools.count()

    def dying(*arguments: Any) -> dict[str, Tensor]:
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(module, "_losses", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(material, tmp_path / "killed")
    monkeypatch.setattr(module, "_losses", loss)
    resumed = weights(trained(material, tmp_path / "killed"))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    lines = [read_lines(tmp_path / name / METRICS) for name in ("whole", "killed")]
    left, right = ([{k: line[k] for k in ("step", "loss", "learning_rate")} for line in part] for part in lines)
    assert left[-1] == right[-1]
    assert sorted({line["step"] for line in right}) == [line["step"] for line in right]


def test_evaluation_comes_every_so_often_and_at_the_end(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    material = material_of(root, encoder, tmp_path, config(epochs=3))
    seen: list[int] = []
    modes: list[bool] = []
    detector = detector_for(material, 0)

    def evaluate(done: int) -> dict[str, float]:
        seen.append(done)
        modes.append(detector.training)
        return {"box AP": 1.5}

    options: dict[str, Any] = {"seed": 0, "progress": SilentProgress(), "world": ALONE}
    train_detector(material, detector, Run(folder=tmp_path, evaluate=evaluate, every=4, **options))
    assert seen == [4, 8, 9]
    assert not any(modes)
    told = [line for line in read_lines(tmp_path / METRICS) if "box AP" in line]
    assert [(line["steps_done"], line["box AP"]) for line in told] == [(4, 1.5), (8, 1.5), (9, 1.5)]


def test_norms_do_not_decay_and_everything_learns_once() -> None:
    detector = build_detector(HEADS, patch=16, width=8, classes=3)
    decayed, free = groups(detector, CONFIG)
    assert (decayed["weight_decay"], free["weight_decay"]) == (CONFIG.weight_decay, 0)
    named = {id(p): name for name, p in detector.named_parameters()}
    assert all("norm" in named[id(p)] for p in free["params"])
    assert not any("norm" in named[id(p)] for p in decayed["params"])
    everything = [id(p) for group in (decayed, free) for p in group["params"]]
    assert sorted(everything) == sorted(named)


def test_the_rate_falls_to_a_tenth_at_each_milestone() -> None:
    schedule = fit_config(DetectionConfig(warmup=100), 1200)
    factors = [schedule.factor(k) for k in (0, 49, 99, 100, 799, 800, 1099, 1100, 1199)]
    assert factors == pytest.approx([0.01, 0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_batch_that_ranks_cannot_share_is_refused(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    material = material_of(root, encoder, tmp_path)
    with pytest.raises(RiceError, match="expected a batch that 3 ranks can share, got 4"):
        trained(material, tmp_path, World(0, 3, torch.device("cpu")))


def test_a_loss_that_is_not_finite_stops_with_one_line(
    encoder: Encoder, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = material_of(root, encoder, tmp_path)
    loss = module._losses
    monkeypatch.setattr(module, "_losses", lambda *a: {name: part * float("nan") for name, part in loss(*a).items()})
    with pytest.raises(RiceError, match="the loss is nan at update 0; lower the learning rate"):
        trained(material, tmp_path)
