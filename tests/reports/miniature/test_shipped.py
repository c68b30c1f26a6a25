"""A score was made again where further pretrainings would lie, and only the shipped settings are asked."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made_up import put_arm

from reports.miniature import shipped
from reports.miniature.claims import NAMES
from reports.miniature.scores import scores_of
from reports.miniature.settings import MiniatureConfig
from reports.miniature.summary import summary_page
from reports.reading import read_frame
from rice.encoders.zoo import ZOO


def card_of(arm: str) -> Path:
    return Path(str(ZOO[f"{arm}-mini"].shipped)) / "README.md"


@pytest.mark.parametrize(("card", "seeds"), [(3, 1), (3, 3), (5, 2)])
def test_95_of_100_new_means_lie_where_they_are_expected(card: int, seeds: int) -> None:
    dice = np.random.default_rng(0)
    hits = []
    for _ in range(4000):
        low, high = shipped.expected(list(50 + 2 * dice.standard_normal(card)), seeds)
        hits.append(low <= 50 + 2 * dice.standard_normal(seeds).mean() <= high)
    assert 0.93 < np.mean(hits) < 0.97


@pytest.mark.parametrize("arm", shipped.SHIPPED)
def test_every_card_tells_three_seeds_of_every_measure(arm: str) -> None:
    card = card_of(arm)
    found = shipped.read_card(card)
    lines = [line for line in card.read_text().splitlines() if line.startswith("|")]
    assert len(found) == len(lines) - 2 == 11
    for (probe, dataset, metric), values in found.items():
        assert len(values) == 3
        assert f"| {probe} | {dataset} | {metric} | {values[0]:.1f} |" in card.read_text()


@pytest.mark.parametrize("far", [0.0, 30.0])
def test_what_scores_as_on_the_card_was_made_again_and_what_is_far_was_not(tmp_path: Path, far: float) -> None:
    for arm in shipped.SHIPPED:
        results: dict[tuple[str, str], dict[str, float]] = {}
        for (probe, dataset, metric), values in shipped.read_card(card_of(arm)).items():
            results.setdefault((probe, dataset), {})[metric] = float(np.mean(values)) + far
        for (probe, dataset), metrics in results.items():
            put_arm(tmp_path / "sweep", f"{arm} s0", metrics, probe, dataset=dataset)
    frame, _ = read_frame(tmp_path / "sweep")
    found = shipped.made_again(scores_of(frame))
    assert {one.arm for one in found} == {NAMES[arm] for arm in shipped.SHIPPED}
    assert len(found) == 44
    assert {one.is_within for one in found} == {far == 0}
    page = summary_page(tmp_path / "sweep", tmp_path, beside_shipped=True).read_text()
    assert f"{44 if far == 0 else 0} of 44 scores of this run" in page
    assert "made again" not in summary_page(tmp_path / "sweep", tmp_path).read_text()


def test_only_how_often_an_arm_is_trained_may_differ_from_the_shipped() -> None:
    config = MiniatureConfig()
    assert shipped.as_shipped(dataclasses.replace(config, seeds=1, equal_time=False))
    for other in ({"updates": 100}, {"world_seed": 1}, {"regions": 50}, {"search": 0.5}):
        assert not shipped.as_shipped(dataclasses.replace(config, **other))
