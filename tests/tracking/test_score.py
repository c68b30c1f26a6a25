"""What the judge says of its figures, and what it does not take."""

import json
import math
from typing import get_args

import numpy as np
import pytest
from hand_made import FAR, G, boxes
from numpy.typing import NDArray

from rice.errors import RiceError
from tracking.metrics import Truth
from tracking.protocols import DEFAULT_PROTOCOL, MATLAB_PROTOCOLS, PLOTS, PROTOCOLS, Protocol, definition
from tracking.score import Scores, judge, named, stderr


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


def test_what_is_written_of_scores_is_what_was_judged_and_how() -> None:
    truths = {"a": Truth(boxes=boxes(G, G, G)), "b": Truth(boxes=boxes(G, G), size=(600, 600))}
    scores = judge("got10k", truths, {"a": boxes(G, G, G), "b": boxes(G, FAR), "c": boxes(G)})
    found = json.loads(json.dumps(scores.as_json(), allow_nan=False))
    share = pytest.approx(200 / 3)
    assert found == {
        "ao": share, "sr_0.5": share, "sr_0.75": share, "protocol": "got10k", "sequences": 2, "frames": 3,
        "per_sequence": {"a": dict.fromkeys(scores.values, 100.0), "b": dict.fromkeys(scores.values, 0.0)},
        "notes": [
            "no cover levels are given: all frames but the first count",
            "no picture sizes are given: boxes are not clipped to the picture (1 of 2 sequences: a)",
            "predictions for sequences without a truth are ignored (1 of 3 sequences: c)",
        ],
    }  # fmt: skip
    assert list(found)[:3] == ["ao", "sr_0.5", "sr_0.75"]
    assert scores.left_out == {}


def test_what_was_done_to_sequences_is_said_once_with_their_names() -> None:
    names = ("a", "b", "c")
    truths = {name: Truth(boxes=boxes(G, G)) for name in names} | {"d": Truth(boxes=boxes([0.0] * 4, G))}
    tracks = {name: boxes(G, G, G) for name in names[:2]} | {"c": boxes(G), "d": boxes(G, G, G)}
    assert judge("ostrack", truths, tracks).notes == (
        "no absent flags are given: no frame is taken for absent",
        "predictions longer than the truth are cut (3 of 4 sequences: a, b, d)",
        "missing last predictions are zero boxes (1 of 4 sequences: c)",
        "frames that are not absent and have no valid truth hit in norm. precision (1 of 4 sequences: d)",
    )
    assert judge("tnl2k", {"d": truths["d"]}, tracks).notes[2] == (
        "frames that are not absent and have no valid truth hit in both precisions (1 of 1 sequences: d)"
    )
    notes = judge("trackingnet", truths | {"e": truths["a"]}, tracks).notes
    assert notes == (
        "sequences without predictions are judged as zero boxes (1 of 5 sequences: e)",
        "predictions longer than the truth are cut (3 of 5 sequences: a, b, d)",
        "missing last predictions miss (1 of 5 sequences: c)",
    )
    assert judge("got10k-lasot", {"c": truths["c"]}, tracks).notes[0] == (
        "truth and prediction differ in length and are cut to the shorter (1 of 1 sequences: c)"
    )


def test_a_frame_that_a_toolkit_stops_at_is_named_with_what_stands_there() -> None:
    nan = math.nan
    bad = boxes(G, [nan, 7.0, 20.0, 20.0], G, [1.0, nan, 1.0, 1.0])
    for track, more in ((bad, " (2 such frames)"), (bad[:3], "")):
        with pytest.raises(RiceError) as caught:
            judge("pytracking", {"a": Truth(boxes=boxes(*[G] * len(track)))}, {"a": track})
        assert str(caught.value) == (
            f"a: frame 2: expected a prediction without NaN, got [nan, 7.0, 20.0, 20.0]; correct that line{more}"
        )


def test_names_in_a_message_are_five_at_most() -> None:
    assert named(["a"], 1) == "1 of 1 sequences: a"
    assert named(list("abcde"), 7) == "5 of 7 sequences: a, b, c, d, e"
    assert named(list("abcdef"), 7) == "6 of 7 sequences: a, b, c, d, e, ..."


THRESHOLDS = {  # count, first, last
    "got10k": {"success": (101, 0, 1)},
    "trackingnet": {"success": (21, 0, 1), "precision": (21, 0, 50), "norm_precision": (21, 0, 0.5)},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_curves_are_over_the_toolkits_thresholds(protocol: Protocol) -> None:
    expected = THRESHOLDS.get(
        protocol, {"success": (21, 0, 1), "precision": (51, 0, 50), "norm_precision": (51, 0, 0.5)}
    )
    curves = judge(protocol, {"a": Truth(boxes=boxes(G, G))}, {"a": boxes(G, G)}).curves
    assert list(curves) == list(expected)
    for name, (count, first, last) in expected.items():
        steps = [first + k * (last - first) / (count - 1) for k in range(count)]
        assert curves[name].thresholds.tolist() == pytest.approx(steps, abs=1e-12)
        assert curves[name].shares.shape == (count,)
