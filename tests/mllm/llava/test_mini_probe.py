"""The whole probe at its smallest: generated rows, a language model made on the spot, lmms-eval's answers."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from mllm.llava.config import LlavaConfig, LlavaProbeConfig, StageConfig
from mllm.llava.probe import LlavaProbe
from mllm.llava.recipe import mini
from probes.sweeps.overrides import flags, parse_config
from probes.sweeps.sweepfile import built_in_probes
from rice.data.world import WorldConfig, materialise
from rice.encoders.load import load_encoder
from rice.progress import SilentProgress

TASKS = "world_vqa,world_count,world_ocr"


def test_the_sweep_trains_the_recipe_and_the_same_blind() -> None:
    seeing, blind = (
        parse_config(LlavaProbeConfig, flags(entry.overrides), "llava-mini") for entry in built_in_probes("llava-mini")
    )
    assert isinstance(seeing, LlavaProbeConfig)
    assert seeing.training() == mini()
    assert seeing.tasks == TASKS
    assert blind == dataclasses.replace(seeing, blind=True)


@pytest.mark.slow
def test_a_cell_trains_asks_and_gives_every_question_a_score(tmp_path: Path) -> None:
    world = WorldConfig(layout="llava", size=64, train=24, test=160, objects=(1, 4))
    root = materialise(world, tmp_path / "world")
    stage = StageConfig(batch=8, learning_rate=1e-3, rows=16)
    training = {f.name: getattr(mini(), f.name) for f in dataclasses.fields(LlavaConfig)}
    config = LlavaProbeConfig(
        **training | {"stage1": dataclasses.replace(stage, tower_rate=0.0), "stage2": stage},
        tasks=TASKS,
        limit=12,
        eval_batch=12,
    )
    probe = LlavaProbe(config, root)
    assert "asks 3 tasks, questions on this machine" in probe.inspect()
    encoder = load_encoder("mini-s8-128@32")
    metrics = list(probe.run(encoder, seed=0, workdir=tmp_path / "work", progress=SilentProgress()))
    assert {metric.name.split()[0]: metric.n for metric in metrics} == dict.fromkeys(TASKS.split(","), 12)
    items = pd.read_parquet(tmp_path / "work" / "items.parquet")
    (resampled,) = (r for r in LlavaProbe.resampling(tmp_path / "work" / "items.parquet") if "world_vqa" in r.ids[0])
    ones = resampled.scores(pd.DataFrame([[1.0] * len(resampled.ids)]).to_numpy())
    stored = {metric.name: metric.value for metric in metrics}
    assert len(items) == 36
    for name, values in ones.items():
        assert values[0] == pytest.approx(stored[name])
