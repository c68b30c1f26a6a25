"""The probe tells a trained encoder from the same one untrained."""

from pathlib import Path

import pytest

from probes.dense.probe import DenseConfig, DenseProbe
from rice.data.world import WorldConfig, materialise
from rice.encoders.load import load_encoder
from rice.progress import SilentProgress


@pytest.mark.slow
def test_a_trained_encoder_beats_the_same_one_untrained(tmp_path: Path) -> None:
    world = materialise(WorldConfig(size=128, train=120, test=40), tmp_path / "world")
    probe = DenseProbe(DenseConfig(updates=300, learning_rates=(0.003, 0.03)), world)
    scores = {}
    for weights in ("default", None):
        encoder = load_encoder("mini-s8-128", weights=weights)
        metrics = probe.run(encoder, seed=0, workdir=tmp_path / str(weights), progress=SilentProgress())
        scores[weights] = {metric.name: metric for metric in metrics}
    for name in (
        "mIoU",
        "foreground mIoU",
    ):  # pixel accuracy is decided by the background, three quarters of all pixels
        trained, untrained = scores["default"][name], scores[None][name]
        assert trained.value > untrained.value + 0.02
        assert trained.n == untrained.n == 40
