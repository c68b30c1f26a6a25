"""The whole path with nothing faked: weights on disk -> encoder -> dense probe on a generated world -> results."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from probes.results import load
from rice.model.checkpoint import save
from rice.model.vit import ViT, ViTConfig

TINY = ViTConfig(width=32, depth=2, heads=2, mlp_width=64, patch=16, image_size=64)

SWEEP = {
    "name": "real",
    "encoders": ["rice:weights"],
    "datasets": {"scenes": {"world": {"size": 64, "train": 12, "test": 4}}},
    "probes": [{"probe": "dense", "data": ["scenes"], "updates": 3, "batch": 4, "learning_rates": [0.001]}],
    "seeds": 2,
}


def write_weights(folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save(ViT(TINY), folder)


def run(folder: Path) -> str:
    command = [sys.executable, "-m", "rice.cli", "sweep", "sweep.yaml", "--out", "out", "--gpus", "none"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


@pytest.mark.slow
def test_changed_weights_behind_a_path_make_a_real_cell_missing_again(tmp_path: Path) -> None:
    write_weights(tmp_path / "weights", seed=0)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    assert "1 cells done, 0 failed, 0 were already there" in run(tmp_path)
    first = load(tmp_path / "out")
    assert {"mIoU", "pixel accuracy"} <= set(first.metric)
    assert set(first.seed) == {0, 1}
    assert first.trained.all()
    assert first.tokens.eq(16).all()
    assert first.gflops.gt(0).all()
    assert first.images_per_s.gt(0).all()
    assert len(list((tmp_path / "out" / "items").iterdir())) == 2
    assert len(list((tmp_path / "out" / "worlds").iterdir())) == 1
    assert "0 cells done, 0 failed, 1 were already there" in run(tmp_path)
    write_weights(tmp_path / "weights", seed=1)
    assert "1 cells done, 0 failed, 0 were already there" in run(tmp_path)
    both = load(tmp_path / "out")
    assert len(both) == 2 * len(first)
    assert both.encoder_fingerprint.nunique() == 2
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
