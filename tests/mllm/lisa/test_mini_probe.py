"""The whole probe at its smallest: a generated world, a language model made on the spot, a random segmenter."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import yaml
from lisa_root import write_root, write_segmenter

from mllm.lisa.config import LisaProbeConfig, SegmentConfig
from mllm.lisa.probe import LisaProbe
from mllm.lisa.recipe import mini
from mllm.llava.config import StageConfig
from probes.sweeps.overrides import flags, parse_config
from probes.sweeps.sweepfile import BUILT_IN, built_in_probes
from rice.cli import main
from rice.data.world import WorldConfig, materialise
from rice.encoders.load import load_encoder
from rice.progress import SilentProgress

SPLITS = ("refcoco_val", "grefcoco_val")


def test_the_sweep_trains_the_recipe_and_the_same_on_shuffled_expressions() -> None:
    true, shuffled = (
        parse_config(LisaProbeConfig, flags(entry.overrides), "lisa-mini") for entry in built_in_probes("lisa-mini")
    )
    assert isinstance(true, LisaProbeConfig)
    assert true.training() == mini()
    assert true.splits == ",".join(SPLITS)
    assert shuffled == dataclasses.replace(true, shuffled=True)


def test_the_sweeps_world_is_the_one_that_the_command_writes(tmp_path: Path) -> None:
    """But for the number of its scenes; a world of other settings is refused."""
    (world,) = (one["world"] for one in yaml.safe_load((BUILT_IN / "lisa-mini.yaml").read_text())["datasets"].values())
    config = parse_config(WorldConfig, flags(world | {"train": 2, "test": 1}), "lisa-mini")
    words = ["world", "scenes", "--layout", "refer", "--size", "96", "--train", "2", "--test", "1"]
    main([*words, "--out", str(tmp_path / "world")])
    assert materialise(config, tmp_path / "world") == tmp_path / "world"


@pytest.mark.slow
def test_a_cell_trains_is_judged_and_gives_every_expression_a_score(tmp_path: Path) -> None:
    root = write_root(tmp_path / "world", train=24, test=6)
    stage = StageConfig(batch=8, learning_rate=1e-3, tower_rate=0.0, rows=16)
    segment = SegmentConfig(steps=2, batch=8, learning_rate=1e-3)
    training = {f.name: getattr(mini(), f.name) for f in dataclasses.fields(mini())}
    training |= {"segmenter": str(write_segmenter(tmp_path / "sam")), "stage1": stage, "segment": segment}
    probe = LisaProbe(LisaProbeConfig(**training, splits=",".join(SPLITS), limit=3), root)
    assert "here on 2 splits" in probe.inspect()
    encoder = load_encoder("mini-s8-128@32")
    metrics = list(probe.run(encoder, seed=0, workdir=tmp_path / "work", progress=SilentProgress()))
    stored = {metric.name: metric for metric in metrics}
    items = pd.read_parquet(tmp_path / "work" / "items.parquet")
    for split in SPLITS:
        assert stored[f"{split} ciou"].n == stored[f"{split} ciou_forced"].n == (items["split"] == split).sum()
    resampled = {}
    for one in LisaProbe.resampling(tmp_path / "work" / "items.parquet"):
        assert len(one.ids) == 3
        resampled |= one.scores(pd.DataFrame([[1.0] * 3]).to_numpy())
    assert {name: values[0] for name, values in resampled.items()} == {
        name: pytest.approx(metric.value) for name, metric in stored.items()
    }
