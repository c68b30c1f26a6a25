"""Muon moves what it is meant for, by steps that are orthogonal, and a run with it goes on where it was killed."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import loop_targets as targets
import pytest
import torch
from loop_targets import assert_same
from ranks import Ranks

from rice.model.config import ViTConfig
from rice.model.region import RegionConfig, RiceModel
from rice.train.config import OptimiserConfig
from rice.train.optimiser import TowerOptimiser

RATE, DECAY, MUON = 1e-3, 0.1, 0.02
CONFIG = OptimiserConfig(learning_rate=RATE, weight_decay=DECAY, muon=MUON)


@pytest.fixture
def model() -> RiceModel:
    torch.manual_seed(0)
    tower = ViTConfig(width=16, depth=2, heads=2, patch=8, image_size=32)
    model = RiceModel(tower, RegionConfig(layers=1))
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape)
    return model


def changes(model: RiceModel, config: OptimiserConfig, rate: float) -> dict[str, torch.Tensor]:
    """What one step at `rate` adds to each parameter, decay set aside."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    TowerOptimiser(model, config, spare_vectors=False).step(rate)
    muon = set(hidden(model)) if config.muon else set()
    shares = {name: (config.muon / config.learning_rate if name in muon else 1.0) * rate for name in before}
    return {
        name: p.detach() - before[name] * (1 - shares[name] * config.weight_decay)
        for name, p in model.named_parameters()
    }


def hidden(model: RiceModel) -> list[str]:
    inner = (".attn.", ".mlp.", ".query.", ".key.", ".value.", ".proj.")
    return [name for name, p in model.named_parameters() if p.ndim == 2 and any(part in name for part in inner)]


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_step_of_a_blocks_matrix_is_near_the_orthogonal_factor_of_its_gradient(
    model: RiceModel, share: float
) -> None:
    names = hidden(model)
    assert len(names) == 2 * 4 + 6
    gradients = {name: p.grad for name, p in model.named_parameters()}
    moved = changes(model, CONFIG, RATE * share)
    for name in names:
        gradient = gradients[name]
        assert gradient is not None
        left, _, right = torch.linalg.svd(gradient.double(), full_matrices=False)
        polar = left @ right
        step = -moved[name].double() / (MUON * share * max(1, gradient.shape[0] / gradient.shape[1]) ** 0.5)
        values = torch.linalg.svdvals(step)
        assert values.max() < 1.3, name
        assert torch.nn.functional.cosine_similarity(step.flatten(), polar.flatten(), dim=0) > 0.95, name


def test_all_other_parameters_move_as_by_adamw_alone(model: RiceModel) -> None:
    twin = RiceModel(model.vit.config, RegionConfig(layers=1))
    twin.load_state_dict(model.state_dict())
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        theirs.grad = ours.grad
    names = hidden(model)
    mixed, plain = changes(model, CONFIG, RATE), changes(twin, replace(CONFIG, muon=0.0), RATE)
    assert {name for name in plain if not torch.equal(mixed[name], plain[name])} == set(names)


@pytest.mark.parametrize("muon", [0.0, MUON])
def test_a_state_from_before_the_first_step_is_whole_and_goes_on_bit_for_bit(model: RiceModel, muon: float) -> None:
    """Until a batch with a label comes there are gradients and no step."""
    config = replace(CONFIG, muon=muon)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    asked = TowerOptimiser(model, config, spare_vectors=False)
    state = {name: copy.deepcopy(value) for name, value in asked.state(model).items()}
    plain, resumed = (RiceModel(model.vit.config, RegionConfig(layers=1)) for _ in range(2))
    optimisers = [TowerOptimiser(one, config, spare_vectors=False) for one in (plain, resumed)]
    for one in (plain, resumed):
        one.load_state_dict(model.state_dict())
    assert state.keys() == optimisers[1].state(resumed).keys()
    optimisers[1].restore(resumed, state)
    for one, optimiser in zip((plain, resumed, model), (*optimisers, asked), strict=True):
        for name, parameter in one.named_parameters():
            parameter.grad = gradients[name]
        optimiser.step(RATE)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(value, model.state_dict()[name]), name


def test_a_run_without_muon_is_the_one_it_was_before_there_was_muon() -> None:
    assert "muon" not in targets.config().identity()["optimiser"]
    assert targets.config(optimiser=CONFIG).identity()["optimiser"]["muon"] == MUON


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_killed_run_with_muon_goes_on_bit_for_bit(tmp_path: Path, start: Callable[..., Ranks], parallel: str) -> None:
    data = targets.write_shards(tmp_path / "shards")
    machine: Any = replace(targets.config().machine, parallel=parallel)
    settings = targets.config(optimiser=CONFIG, machine=machine)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start(2, targets.train, data, whole, settings, join=False).results()
    ranks = start(2, targets.train, data, broken, settings, join=False)
    ranks.wait_for("step", 7)
    ranks.kill()
    start(2, targets.train, data, broken, settings, join=False).results()
    assert_same(whole, broken, 0)
