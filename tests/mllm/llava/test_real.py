"""Real conversations of several kinds become rows, tiles and a training step."""

import json
from pathlib import Path

import pytest
from tiny_encoders import tiny_encoder
from tiny_parts import write_lm

from mllm.llava.config import LlavaConfig, StageConfig
from mllm.llava.material import Material
from mllm.llava.pictures import PictureConfig
from mllm.llava.prepare import prepare_rows
from mllm.llava.train import STAGE2, training_of
from probes.heads import Tower
from rice.progress import SilentProgress

QUIET = SilentProgress()
SOURCES = ("sharegpt/mllm_demo.json", "sharegpt/mllm_video_demo.json", "mantis/train.json", "docvqa/val_v1.0.json")


@pytest.mark.data
@pytest.mark.slow
def test_real_conversations_are_prepared_tiled_and_trained_on(shared_data: Path, tmp_path: Path) -> None:
    sources = [shared_data / source for source in SOURCES]
    said = prepare_rows(sources, None, tmp_path / "root" / "instruct", config=PictureConfig(), progress=QUIET)
    assert said["kept"] == 6 + 40 + 12
    stage = StageConfig(batch=12, learning_rate=1e-3, tower_rate=1e-4, rows=24)
    first = StageConfig(epochs=0)
    lm = str(write_lm(tmp_path / "lm"))
    config = LlavaConfig(lm=lm, stage1=first, stage2=stage, max_length=6000, micro_batches=3)
    tower = Tower(encoder=tiny_encoder("clip", tmp_path), reference="clip", weights=None, fingerprint="0" * 64)
    material = Material.at(tmp_path / "root")
    training = training_of(material, config, tower, seed=0, folder=tmp_path / "out", progress=QUIET, workers=0)
    pictures = [len(row.images) for row in training.instruct]
    assert max(pictures) > 2  # mantis asks about several at once
    training.finish(QUIET)
    lines = [json.loads(line) for line in (tmp_path / "out" / STAGE2 / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert all(0 < line["loss"] < 10 for line in lines)
