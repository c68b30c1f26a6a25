"""What is read are words and fonts that were never seen, better in a trained encoder, and not without truth."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from probes.sweeps.overrides import flags, parse_config
from probes.sweeps.sweepfile import read_sweep
from probes.text.config import TextConfig
from probes.text.probe import TextProbe
from rice.data.icdar import ICDAR_2015
from rice.data.world import WorldConfig, materialise
from rice.encoders.load import load_encoder
from rice.progress import SilentProgress


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the sweep's words."""
    sweep = read_sweep("text-mini")
    config = parse_config(WorldConfig, flags(sweep.datasets[0].world or {}), "world")
    config = dataclasses.replace(config, train=config.train // 2, test=60)
    return materialise(config, tmp_path_factory.mktemp("world") / "words")


def score(root: Path, workdir: Path, weights: str | None, **changes: Any) -> dict[str, float]:
    """Metrics by name."""
    probe = TextProbe(TextConfig(**({"epochs": 24, "steps": 24} | changes)), root)
    encoder = load_encoder("mini-s8-128", weights=weights)
    return {m.name: m.value for m in probe.run(encoder, seed=0, workdir=workdir, progress=SilentProgress())}


@pytest.mark.slow
def test_a_trained_encoder_reads_what_the_same_one_untrained_does_not(world: Path, tmp_path: Path) -> None:
    trained, untrained = (score(world, tmp_path / str(weights), weights) for weights in ("default", None))
    assert trained["character accuracy"] > 0.3
    assert trained["character accuracy"] > untrained["character accuracy"] + 0.1
    assert trained["word accuracy"] > untrained["word accuracy"]


@pytest.mark.slow
def test_nothing_is_read_after_a_training_on_shuffled_words(world: Path, tmp_path: Path) -> None:
    """Letters follow from the picture, and from nothing else."""
    folder = world / ICDAR_2015["train"][1]
    lines = [(path, line) for path in sorted(folder.iterdir()) for line in path.read_text("utf-8-sig").splitlines()]
    texts = [line.split(",", 8)[8] for _, line in lines]
    random.Random(0).shuffle(texts)
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for name in (ICDAR_2015["train"][0], *ICDAR_2015["test"]):
        (shuffled / name).symlink_to(world / name)
    (shuffled / folder.name).mkdir()
    told: dict[Path, list[str]] = {path: [] for path in folder.iterdir()}
    for (path, line), text in zip(lines, texts, strict=True):
        told[path].append(f"{line.rsplit(',', 1)[0]},{text}")
    for path, kept in told.items():
        (shuffled / folder.name / path.name).write_text("\n".join(kept), "utf-8")
    found = score(shuffled, tmp_path / "work", "default", epochs=12)
    assert found["word accuracy"] <= 0.02
    assert found["character accuracy"] < 0.2
