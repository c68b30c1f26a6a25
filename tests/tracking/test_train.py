"""Training: frozen means frozen, a kill changes nothing, the schedule is OSTrack's, and squares are learnt."""

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tracker import ALONE, CONFIG, Box, config, tiny_encoder, tiny_tracker, walk, write_clip
from torch import Tensor, nn
from torchvision.ops import box_iou

from probes import fit as fit_module
from probes.watch import METRICS, Run
from rice.encoders.base import Encoder
from rice.errors import RiceError
from rice.progress import SilentProgress
from rice.train.metrics import read_lines
from rice.train.world import World
from tracking import train as module
from tracking.config import HeadsConfig, TrackingConfig
from tracking.loss import WEIGHTS
from tracking.material import Places, open_material
from tracking.model import TrackingHead, build_head, grids
from tracking.pairs import Clips, Sampler
from tracking.tracker import Tracker
from tracking.train import batches, fit_config, train_head


@pytest.fixture
def root(roots: Path) -> Path:
    return roots / "got10k"


def sampler_of(root: Path, encoder: Encoder, settings: TrackingConfig = CONFIG, seed: int = 0) -> Sampler:
    material = open_material(Places.of(root, settings), settings, SilentProgress())
    return Sampler(sources=material.sources, sizes=settings.sizes(encoder.spec), config=settings, seed=seed)


def fresh(encoder: Encoder, sampler: Sampler) -> TrackingHead:
    template, search = grids(sampler.sizes, encoder.spec.patch)
    heads = sampler.config.heads
    return build_head(heads, width=encoder.spec.width, template=template, search=search, seed=sampler.seed)


def trained(encoder: Encoder, sampler: Sampler, folder: Path, **options: Any) -> TrackingHead:
    head = fresh(encoder, sampler)
    options = {"seed": sampler.seed, "folder": folder, "progress": SilentProgress(), "world": ALONE} | options
    train_head(encoder, head, sampler, Run(**options))
    return head


def weights(head: nn.Module) -> list[Tensor]:
    return [value.clone() for value in head.state_dict().values()]


def test_the_encoder_has_the_same_bytes_after_training_and_all_of_the_head_learns(
    encoder: Encoder, root: Path, tmp_path: Path
) -> None:
    def digest() -> str:
        hashed = hashlib.sha256()
        for name, value in encoder.state_dict().items():
            hashed.update(name.encode() + value.numpy().tobytes())
        return hashed.hexdigest()

    before, sampler = digest(), sampler_of(root, encoder)
    start, head = fresh(encoder, sampler), trained(encoder, sampler, tmp_path)
    assert digest() == before
    for (name, was), value in zip(start.named_parameters(), head.parameters(), strict=True):
        assert not torch.equal(was, value), name
    assert not head.training
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_killed_training_resumes_with_the_numbers_of_an_unbroken_one(
    encoder: Encoder, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(fit_module, "_CHECKPOINT_EVERY_S", 0.0)
    sampler = sampler_of(root, encoder)
    options: dict[str, Any] = {"evaluate": lambda done: {"ao": float(done)}, "every": 2}
    whole = weights(trained(encoder, sampler, tmp_path / "whole", **options))
    loss, steps = module._losses, itertools.count()

    def dying(*arguments: Any) -> dict[str, Tensor]:
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(module, "_losses", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(encoder, sampler, tmp_path / "killed", **options)
    monkeypatch.setattr(module, "_losses", loss)
    resumed = weights(trained(encoder, sampler, tmp_path / "killed", **options))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    logs = [read_lines(tmp_path / name / METRICS) for name in ("whole", "killed")]
    told = [
        [{k: v for k, v in line.items() if k in ("step", "ao") or "loss" in k or k == "learning_rate"} for line in log]
        for log in logs
    ]
    assert told[0] == told[1]
    assert [line["ao"] for line in told[0] if "ao" in line] == [2, 4]


def test_evaluation_comes_every_so_often_and_at_the_end_with_the_head_at_rest(
    encoder: Encoder, root: Path, tmp_path: Path
) -> None:
    sampler = sampler_of(root, encoder, config(epochs=5, epoch_pairs=4))
    head = fresh(encoder, sampler)
    seen: list[tuple[int, bool]] = []

    def evaluate(done: int) -> dict[str, float]:
        seen.append((done, head.training))
        return {}

    options: dict[str, Any] = {"seed": 0, "progress": SilentProgress(), "world": ALONE, "evaluate": evaluate}
    train_head(encoder, head, sampler, Run(folder=tmp_path / "a", every=2, **options))
    assert seen == [(2, False), (4, False), (5, False)]
    seen.clear()
    train_head(encoder, fresh(encoder, sampler), sampler, Run(folder=tmp_path / "b", every=0, **options))
    assert [done for done, _ in seen] == [5]


def test_the_log_has_the_parts_of_the_loss(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    trained(encoder, sampler_of(root, encoder), tmp_path)
    lines = read_lines(tmp_path / METRICS)
    assert lines[0]["step"] == 0
    for line in lines:
        parts = [line[f"loss_{name}"] for name in WEIGHTS]
        assert sum(parts) == pytest.approx(line["loss"], rel=1e-5)
        assert min(parts) > 0


def test_a_ranks_batches_are_its_share_of_each_step_and_hold_frozen_tokens(encoder: Encoder, root: Path) -> None:
    sampler = sampler_of(root, encoder)
    whole = [next(batches(encoder, sampler, start, ALONE)) for start in (0, 1)]
    for rank in (0, 1):
        shares = batches(encoder, sampler, 0, World(rank, 2, torch.device("cpu")))
        for start, share in zip((0, 1), shares, strict=False):
            for part, mine in zip(whole[start], share, strict=True):
                torch.testing.assert_close(mine, part[rank::2], rtol=0, atol=1e-5)
    pairs = [sampler.pair(number) for number in range(4, 8)]
    assert torch.equal(whole[1].boxes, torch.stack([pair.box for pair in pairs]))
    for part, pictures in (
        (whole[1].template, [p.template for p in pairs]),
        (whole[1].search, [p.search for p in pairs]),
    ):
        patches = encoder(torch.stack(pictures)).patches.flatten(2).transpose(1, 2).double()
        mean, variance = patches.mean(2, keepdim=True), patches.var(2, keepdim=True, correction=0)
        torch.testing.assert_close(part.double(), (patches - mean) / (variance + 1e-5).sqrt(), rtol=0, atol=1e-4)
        assert not part.requires_grad


def test_a_seed_decides_and_another_one_differs(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    heads = [trained(encoder, sampler_of(root, encoder, seed=s), tmp_path / name) for name, s in (("a", 1), ("b", 1))]
    assert all(torch.equal(a, b) for a, b in zip(*map(weights, heads), strict=True))
    other = trained(encoder, sampler_of(root, encoder, seed=2), tmp_path / "c")
    assert not torch.equal(heads[0].segment, other.segment)


def test_the_rate_falls_to_a_tenth_after_four_fifths() -> None:
    settings = TrackingConfig()
    assert settings.updates == 100 * 60_000 // 128 == 46_875
    schedule = fit_config(settings)
    assert (schedule.learning_rate, schedule.weight_decay, schedule.clip) == (4e-4, 1e-4, 0.1)
    assert [schedule.factor(k) for k in (0, 37_499, 37_500, 46_874)] == pytest.approx([1, 1, 0.1, 0.1])


def test_without_a_drop_the_rate_is_a_cosine_after_its_warm_up() -> None:
    schedule = fit_config(config(drop_at=None, warmup=10, epochs=10, epoch_pairs=440))
    assert schedule.updates == 1100
    found = [schedule.factor(k) for k in (0, 4, 9, 10, 555, 1099)]
    assert found == pytest.approx([0.1, 0.5, 1, 1, 0.5, 0], abs=1e-5)


def test_a_batch_that_ranks_cannot_share_is_refused(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected a batch that 3 ranks can share, got 4"):
        trained(encoder, sampler_of(root, encoder), tmp_path, world=World(0, 3, torch.device("cpu")))


def test_a_loss_that_is_not_finite_stops_with_one_line(
    encoder: Encoder, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = module._losses
    monkeypatch.setattr(module, "_losses", lambda *a: {name: part * float("nan") for name, part in loss(*a).items()})
    with pytest.raises(RiceError, match="the loss is nan at update 0; lower the learning rate"):
        trained(encoder, sampler_of(root, encoder), tmp_path)


def test_another_configurations_or_seeds_checkpoint_is_refused(encoder: Encoder, root: Path, tmp_path: Path) -> None:
    trained(encoder, sampler_of(root, encoder), tmp_path)
    for sampler in (sampler_of(root, encoder, config(learning_rate=0.5)), sampler_of(root, encoder, seed=1)):
        with pytest.raises(RiceError, match="written by another configuration; delete it"):
            trained(encoder, sampler, tmp_path)


def overlap(tracker: Tracker, places: list[Box], folder: Path) -> float:
    clip = write_clip(folder, places, (80, 100))
    found = np.array([one.box for one in tracker.track(clip.frames.stream(), places[0])])
    corners = [torch.from_numpy(np.concatenate([b[1:, :2], b[1:, :2] + b[1:, 2:]], 1)) for b in (found, clip.boxes)]
    return float(box_iou(*corners).diagonal().mean())


def test_a_head_learns_to_follow_squares_that_it_has_not_seen(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    settings = config(
        epochs=1,
        epoch_pairs=2400,
        batch=16,
        learning_rate=4e-3,
        warmup=10,
        drop_at=None,
        clip=1.0,
        centre_jitter=2.0,
        heads=HeadsConfig(channels=32, head_dim=8),
    )
    clips = []
    for k in range(8):
        x, y, width, height = (*dice.uniform(5, 60, 2), *dice.uniform(8, 22, 2))
        across, down = dice.uniform(-3, 3, 2)
        clips.append(write_clip(tmp_path / f"clip{k}", walk(12, (x, y, width, height), (across, down)), (80, 100)))
    encoder = tiny_encoder(width=16)
    sampler = Sampler(sources=[Clips.of("set", clips, settings)], sizes=(16, 32), config=settings, seed=0)
    trackers = {
        "before": tiny_tracker(encoder, settings),
        "after": Tracker(encoder, trained(encoder, sampler, tmp_path), (16, 32), settings),
    }
    held_out = [walk(15, (10, 12, 14, 18), (3, 2)), walk(15, (70, 50, 20, 12), (-3, -1.5))]
    scores = {
        name: [overlap(tracker, boxes, tmp_path / f"{name}{k}") for k, boxes in enumerate(held_out)]
        for name, tracker in trackers.items()
    }
    assert max(scores["before"]) < 0.1, scores
    assert min(scores["after"]) > 0.45, scores
