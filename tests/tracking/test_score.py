"""What the judge says of its figures, and what it does not take."""

import math
from typing import get_args

import numpy as np
import pytest
from hand_made import FAR, G, boxes
from numpy.typing import NDArray

from rice.errors import RiceError
from tracking.metrics import Truth
from tracking.protocols import DEFAULT_PROTOCOL, MATLAB_PROTOCOLS, PLOTS, PROTOCOLS, Protocol, definition
from tracking.score import Scores, judge, stderr


def sample(protocol: Protocol, lengths: list[int]) -> Scores:
    rng = np.random.default_rng(5)
    truths = {f"s{k}": Truth(boxes=boxes(*[G] * length)) for k, length in enumerate(lengths)}
    tracks = {}
    for name, truth in truths.items():
        tracks[name] = truth.boxes + rng.normal(size=(len(truth.boxes), 4)) * rng.choice([1, 3, 9])
        tracks[name][:, 2:] = np.maximum(tracks[name][:, 2:], 0)
    return judge(protocol, truths, tracks)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_standard_errors_are_those_of_a_mean_over_sequences(protocol: Protocol) -> None:
    scores = sample(protocol, [11] * 12)
    for key, error in stderr(scores).items():
        values = [row[key] for row in scores.per_sequence.values()]
        assert scores.values[key] == pytest.approx(np.mean(values))
        assert error == pytest.approx(np.std(values, ddof=1) / math.sqrt(12))
    assert list(stderr(scores)) == list(scores.values)
    assert stderr(sample(protocol, [9])) == {}


def test_the_standard_error_of_a_pooled_figure_is_near_the_jackknife() -> None:
    scores = sample("got10k", np.random.default_rng(1).integers(5, 60, 200).tolist())
    counts = np.array(list(scores.frames.values()))
    sums = counts * np.array([row["ao"] for row in scores.per_sequence.values()])
    without = (sums.sum() - sums) / (counts.sum() - counts)
    jackknife = math.sqrt(199 / 200 * ((without - without.mean()) ** 2).sum())
    assert stderr(scores)["ao"] == pytest.approx(jackknife, rel=0.02)


def test_sequences_left_out_of_a_mean_are_left_out_of_its_error() -> None:
    lost = Truth(boxes=boxes(G, G), absent=np.array([True, False]))
    good = Truth(boxes=boxes(G, G), absent=np.array([False, False]))
    tracks = {"a": boxes(G, G), "b": boxes(G, FAR), "c": boxes(G, FAR)}
    errors = stderr(judge("lasot-matlab", {"a": good, "b": good, "c": lost}, tracks))
    assert errors["precision"] == pytest.approx(np.std([100, 50], ddof=1) / math.sqrt(2))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_given_is_changed(protocol: Protocol) -> None:
    truth, track = boxes(G, G, FAR), boxes(FAR, [1.0, 1.0, 0.0, 0.0], FAR)
    judge(protocol, {"a": Truth(boxes=truth, size=(30, 30))}, {"a": track})
    assert truth.tolist() == [G, G, FAR]
    assert track.tolist() == [FAR, [1.0, 1.0, 0.0, 0.0], FAR]


@pytest.mark.parametrize(
    ("truth", "track", "words"),
    [
        (Truth(boxes=np.zeros((0, 4))), boxes(G), "at least one frame"),
        (Truth(boxes=np.zeros((2, 8))), boxes(G), "got (2, 8)"),
        (Truth(boxes=boxes(G, G), absent=np.array([True])), boxes(G, G), "expected 2 absent flags"),
        (Truth(boxes=boxes(G, G), cover=np.array([1])), boxes(G, G), "expected 2 cover levels"),
        (Truth(boxes=boxes(G)), np.zeros((1, 5)), "predictions of (frames, 4)"),
        (Truth(boxes=boxes(G)), np.zeros((0, 4)), "predictions of (frames, 4)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(truth: Truth, track: NDArray[np.float64], words: str) -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(RiceError) as caught:
            judge(protocol, {"a": truth}, {"a": track})
        assert words in str(caught.value)


def test_protocols_are_known_by_name() -> None:
    with pytest.raises(RiceError, match="at least one sequence"):
        judge("ostrack", {}, {})
    with pytest.raises(RiceError, match="Did you mean lasot-matlab"):
        judge("lasot_matlab", {"a": Truth(boxes=boxes(G))}, {})  # type: ignore[arg-type]
    assert set(DEFAULT_PROTOCOL.values()) <= set(PROTOCOLS) == set(get_args(Protocol)) == set(PLOTS)
    assert set(MATLAB_PROTOCOLS) < set(PROTOCOLS)
    sentences = [definition(protocol) for protocol in PROTOCOLS]
    assert len(set(sentences)) == len(PROTOCOLS)
    assert all("\n" not in sentence and "toolkit" in sentence.split("; ")[-1] for sentence in sentences[:2])
