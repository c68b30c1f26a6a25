"""What the probe finds is tracking: it beats trackers that learn nothing, on held-out clips."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.protocol import Probe
from probes.sweeps.sweepfile import read_sweep
from rice.encoders.load import load_encoder
from rice.progress import SilentProgress
from tracking.material import open_tests, place_to_judge
from tracking.run import truth_of
from tracking.score import judge
from tracking.sequence import Sequence

MARGIN = 15.0
SEEDS = (0, 1, 2)


@pytest.mark.slow
def test_a_minutes_training_beats_no_motion_and_correlation_by_15_points_of_auc(tmp_path: Path) -> None:
    probe = _probe(tmp_path)
    (test,) = open_tests([place_to_judge(probe.data)], None, SilentProgress())
    truths = {clip.name: truth_of(clip) for clip in test.clips}

    def success(follow: Any) -> float:
        tracks = {clip.name: follow(clip) + np.array([clip.origin, clip.origin, 0, 0]) for clip in test.clips}
        return judge(test.protocol, truths, tracks).values["success"]

    still, correlated = success(_first_box), success(_correlation)
    encoder = load_encoder("mini-s8-128").requires_grad_(False)
    found = []
    for seed in SEEDS:
        metrics = probe.run(encoder, seed=seed, workdir=tmp_path / "work", progress=SilentProgress())
        found.append(100 * next(metric.value for metric in metrics if metric.name == "LaSOT success"))

    assert min(found) >= max(still, correlated) + MARGIN, f"{found} against {still:.1f} and {correlated:.1f}"


def _probe(folder: Path) -> Any:
    """As `rice sweep tracking-mini` runs it: the sweep's own world and configuration."""
    from probes.protocol import probe_class
    from probes.sweeps.datasets import dataset_root
    from probes.sweeps.overrides import flags, parse_config

    sweep = read_sweep("tracking-mini")
    (entry,), (dataset,) = sweep.probes, sweep.datasets
    cls: type[Probe] = probe_class(entry.probe)
    config: Any = parse_config(cls.Config, flags(entry.overrides), "the sweep")
    return cls(config, dataset_root(dataset, folder, SilentProgress()))


def _first_box(clip: Sequence) -> NDArray[np.float64]:
    return np.repeat(clip.boxes[:1], len(clip), axis=0)


def _correlation(clip: Sequence) -> NDArray[np.float64]:
    """Normalised cross-correlation (scikit-image) of the first frame's target, within three of its sizes."""
    from skimage.feature import match_template

    frames = [frame @ np.array([0.299, 0.587, 0.114]) for frame in clip.frames.stream()]
    x, y, width, height = (round(value) for value in clip.boxes[0].tolist())
    target = frames[0][y : y + height, x : x + width]
    reach = round(1.5 * np.sqrt(width * height))
    boxes = [(x, y, width, height)]
    for frame in frames[1:]:
        rows, columns = frame.shape
        centre_x, centre_y = boxes[-1][0] + width // 2, boxes[-1][1] + height // 2
        left = min(max(centre_x - reach, 0), columns - width)
        top = min(max(centre_y - reach, 0), rows - height)
        right, bottom = max(centre_x + reach, left + width), max(centre_y + reach, top + height)
        response = match_template(frame[top:bottom, left:right], target)
        row, column = np.unravel_index(response.argmax(), response.shape)
        boxes.append((left + int(column), top + int(row), width, height))
    return np.array(boxes, np.float64)
