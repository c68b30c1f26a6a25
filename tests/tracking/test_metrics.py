"""Each protocol's figures are those of its toolkit, traps included."""

import json
import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
import toolkits
from hand_made import FAR, G, boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rice.errors import RiceError
from tracking.metrics import Truth
from tracking.protocols import PROTOCOLS, Protocol
from tracking.score import Scores, judge

NAN = math.nan
CURVES = tuple(protocol for protocol in PROTOCOLS if protocol != "got10k")
STRICT = 100 * 20 / 21
"""Success of a perfect tracker where the overlap must be over the threshold 1 too."""


def one(protocol: str, truth: list[list[float]], prediction: list[list[float]] | None, **sides: Any) -> Scores:
    if "absent" in sides:
        sides["absent"] = np.array(sides["absent"], dtype=np.bool_)
    if "cover" in sides:
        sides["cover"] = np.array(sides["cover"], dtype=np.int64)
    given = None if prediction is None else boxes(*prediction)
    return judge(protocol, {"a": Truth(boxes=boxes(*truth), **sides)}, {"a": given})  # type: ignore[arg-type]


def figures(scores: Scores) -> list[float]:
    return list(scores.values.values())


def refusal(protocol: str, truth: list[list[float]], prediction: list[list[float]] | None, **sides: Any) -> str:
    with pytest.raises(RiceError) as caught:
        one(protocol, truth, prediction, **sides)
    assert "\n" not in str(caught.value)
    assert re.search(r"^a: |1 of 1 sequences: a\b", str(caught.value)), "names the sequence"
    return str(caught.value)


def plain(truths: dict[str, Truth]) -> dict[str, toolkits.Truth]:
    return {
        name: (
            truth.boxes.tolist(),
            None if truth.absent is None else truth.absent.tolist(),
            None if truth.cover is None else truth.cover.tolist(),
            truth.size,
        )
        for name, truth in truths.items()
    }


def check(protocol: Protocol, truths: dict[str, Truth], predictions: dict[str, NDArray[np.float64] | None]) -> None:
    """`judge` and the plain implementation say the same, or both refuse."""
    rows = {name: None if boxes_N4 is None else boxes_N4.tolist() for name, boxes_N4 in predictions.items()}
    try:
        expected = toolkits.overall(protocol, plain(truths), rows)
    except toolkits.StopsError:
        with pytest.raises(RiceError):
            judge(protocol, truths, predictions)
        return
    scores = judge(protocol, truths, predictions)
    assert list(scores.values) == list(expected)
    assert figures(scores) == pytest.approx(list(expected.values()), abs=1e-9)
    for name, values in scores.per_sequence.items():
        alone = toolkits.overall(protocol, {name: plain(truths)[name]}, rows)
        assert list(values.values()) == pytest.approx(list(alone.values()), abs=1e-9)
    json.dumps(scores.as_json(), allow_nan=False)


corner = st.sampled_from([-3.0, 0.0, 1.0, 2.5, 4.0, 11.0, 30.0, 33.4]) | st.integers(-5, 60).map(float)
edge = st.sampled_from([0.0, 0.5, 1.0, 5.0, 10.0, 20.0]) | st.integers(1, 50).map(float)
true_box = st.tuples(corner, corner, edge, edge)
bad_box = st.sampled_from([(NAN,) * 4, (NAN, 3.0, 9.0, 9.0), (4.0, 4.0, -2.0, 3.0), (0.0,) * 4, (4.0, 4.0, 8.0, NAN)])


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Truth], dict[str, NDArray[np.float64] | None]]:
    """One to three sequences; half of the boxes are the truth itself or near it, some are damaged."""
    truths, predictions = {}, {}
    flags, levels, sized, damaged = draw(st.tuples(*[st.booleans()] * 4))
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        rows = draw(st.lists(true_box, min_size=2, max_size=7))
        if damaged and draw(st.booleans()):
            rows[draw(st.integers(0, len(rows) - 1))] = draw(bad_box)
        shift = draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0, 20.0]))
        near = [(x + shift, y, w, h) for x, y, w, h in rows]
        found = [draw(st.sampled_from([near[i], rows[i]]) | true_box) for i in range(len(rows))]
        if damaged and draw(st.booleans()):
            found[draw(st.integers(0, len(rows) - 1))] = draw(bad_box)
        found = draw(st.sampled_from([found, found, found, found[:-1], [*found, rows[0]]]))
        count = len(rows)
        truths[name] = Truth(
            boxes=boxes(*map(list, rows)),
            absent=np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count))) if flags else None,
            cover=np.array(draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))) if levels else None,
            size=(40, 30) if sized else None,
        )
        predictions[name] = boxes(*map(list, found))
    return truths, predictions


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_small_cases_agree_with_a_plain_implementation(protocol: Protocol, case: Any) -> None:
    check(protocol, *case)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_long_tracks_agree_with_a_plain_implementation(protocol: Protocol) -> None:
    rng = np.random.default_rng(3)
    truths, predictions = {}, {}
    for name, count in (("a", 150), ("b", 90), ("c", 33)):
        path = np.cumsum(rng.normal(size=(count, 2)), axis=0) + 40
        truth = np.concatenate([path, rng.uniform(5, 60, (count, 2))], axis=1).round(int(name == "b"))
        truths[name] = Truth(
            boxes=truth, absent=rng.random(count) < 0.1, cover=rng.integers(0, 9, count), size=(90, 70)
        )
        predictions[name] = truth + rng.normal(size=(count, 4)) * rng.choice([0.5, 2, 4], (count, 1))
        predictions[name][:, 2:] = np.maximum(predictions[name][:, 2:], 0)
    check(protocol, truths, predictions)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_perfect_tracker(protocol: Protocol) -> None:
    expected = {"got10k": [100, 100, 100], "trackingnet": [100, 100, 100], "got10k-lasot": [STRICT, 100, 100]}
    scores = one(protocol, [G] * 5, [G] * 5, absent=[0] * 5, cover=[8] * 5, size=(100, 100))
    assert figures(scores) == pytest.approx(expected.get(protocol, [STRICT, 100, 100]), abs=1e-9)
    assert scores.notes == ()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_absent_frames(protocol: Protocol) -> None:
    """In the denominator of those who know flags; unknown to the others."""
    share = 75 if protocol in ("lasot-matlab", "tnl2k", "pytracking", "ostrack") else 100
    scores = one(protocol, [G] * 4, [G] * 4, absent=[0, 0, 1, 0])
    assert scores.values.get("precision", 100) == share
    assert scores.frames == {"a": 3 if share == 75 or protocol == "got10k" else 4}


def test_zero_size_predictions_repeat_the_one_before_or_miss() -> None:
    zero = [5.0, 7.0, 0.0, 20.0]
    for protocol in ("lasot-matlab", "tnl2k", "pytracking", "ostrack"):
        assert figures(one(protocol, [G] * 4, [G, G, zero, zero])) == pytest.approx([STRICT, 100, 100])
    assert one("got10k-lasot", [G] * 4, [G, G, zero, zero]).values["success"] == pytest.approx(STRICT / 2)
    # An overlap of 0 is at least 0: half of the first interval's other half.
    assert one("trackingnet", [G] * 4, [G, G, zero, zero]).values["success"] == pytest.approx(50 + 50 * 0.025)
    assert one("got10k", [G] * 4, [G, G, zero, zero]).values["ao"] == pytest.approx(100 / 3)


def test_the_second_frame_repeats_what_was_predicted_in_the_first() -> None:
    for protocol in ("lasot-matlab", "pytracking", "ostrack"):
        scores = one(protocol, [G] * 2, [FAR, [5.0, 7.0, 0.0, 0.0]])
        assert figures(scores) == pytest.approx([STRICT / 2, 50, 50])


def test_nan_predictions() -> None:
    track = [G, G, [NAN] * 4, G]
    assert figures(one("lasot-matlab", [G] * 4, track)) == pytest.approx([STRICT, 100, 100])
    assert figures(one("got10k-lasot", [G] * 4, track)) == pytest.approx([STRICT * 0.75, 75, 75])
    assert figures(one("trackingnet", [G] * 4, track)) == pytest.approx([75, 75, 75])
    for protocol in ("pytracking", "ostrack", "got10k"):
        assert "a: frame 3" in refusal(protocol, [G] * 4, track)
    assert figures(one("got10k", [G] * 4, track, cover=[8, 8, 0, 8])) == pytest.approx([100, 100, 100])


def test_a_number_beats_nan_where_the_toolkit_s_language_says_so() -> None:
    """MATLAB's and pandas' max of NaN and 5 is 5: a box without x covers the truth's columns, but has no centre."""
    blind = [NAN, 7.0, 20.0, 20.0]
    scores = one("lasot-matlab", [G] * 2, [blind, [5.0, 7.0, 0.0, 20.0]])
    assert figures(scores) == pytest.approx([STRICT, 50, 50])
    assert figures(one("trackingnet", [G] * 2, [G, blind])) == pytest.approx([100, 50, 50])
    assert figures(one("got10k-lasot", [G] * 2, [G, blind])) == pytest.approx([STRICT / 2, 50, 50])


def test_negative_sizes() -> None:
    track = [G, [5.0, 7.0, -1.0, 20.0]]
    assert figures(one("lasot-matlab", [G] * 2, track)) == pytest.approx([STRICT, 100, 100])
    for protocol in ("pytracking", "ostrack"):
        assert "a: frame 2: expected a prediction with width and height >= 0" in refusal(protocol, [G] * 2, track)


def test_infinite_predictions_miss_or_are_refused() -> None:
    inf = math.inf
    for protocol in ("lasot-matlab", "pytracking", "ostrack", "got10k-lasot"):
        assert figures(one(protocol, [G] * 2, [G, [inf, 7.0, 20.0, 20.0]])) == pytest.approx([STRICT / 2, 50, 50])
    assert "frame 2" in refusal("pytracking", [G] * 2, [G, [-inf, 7.0, inf, 20.0]])
    assert "frame 2" in refusal("got10k", [G] * 2, [G, [-inf, 7.0, inf, 20.0]])


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("lasot-matlab", [STRICT * 0.75, 100, 100]),
        ("tnl2k", [STRICT * 0.75, 100, 100]),
        ("pytracking", [STRICT * 0.75, 75, 100]),
        ("ostrack", [STRICT, 100, 100]),
        ("got10k-lasot", [STRICT, 100, 100]),
    ],
)
def test_a_box_at_the_left_border_is_no_valid_truth_to_some(protocol: str, expected: list[float]) -> None:
    border = [0.0, 7.0, 20.0, 20.0]
    scores = one(protocol, [G, G, border, G], [G, G, border, G])
    assert figures(scores) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("lasot-matlab", [0.5, 0.5]), ("pytracking", [0.25, 0.5]), ("ostrack", [0.25, 0.5]), ("trackingnet", None)],
)
def test_a_truth_without_area_hits_by_definition(protocol: str, expected: list[float] | None) -> None:
    """One frame of four is invalid, the first is given, and the rest is wrong."""
    scores = one(protocol, [G, G, [0.0] * 4, G], [G, FAR, FAR, FAR])
    if expected is not None:
        assert [scores.values["precision"], scores.values["norm_precision"]] == pytest.approx(
            [100 * share for share in expected]
        )
        assert any("hit in" in note for note in scores.notes)
        assert scores.frames == {"a": 3}


def test_nan_in_the_truth() -> None:
    truth = [G, [NAN] * 4, G, G]
    assert figures(one("lasot-matlab", truth, [G] * 4)) == pytest.approx([STRICT * 0.75, 100, 100])
    assert figures(one("got10k-lasot", truth, [G] * 4)) == pytest.approx([STRICT, 100, 100])
    assert figures(one("trackingnet", truth, [G] * 4)) == pytest.approx([75, 75, 75])
    for protocol in ("pytracking", "ostrack", "got10k"):
        assert "frame 2: expected a" in refusal(protocol, truth, [G] * 4)
    assert "NaN in all" in refusal("got10k-lasot", [[NAN] * 4] * 2, [G] * 2)
    # LaSOT's toolkit replaces a damaged prediction only where the truth is there.
    kept = one("lasot-matlab", [G, [NAN] * 4, G], [G, [NAN] * 4, [NAN] * 4])
    assert figures(kept) == pytest.approx([STRICT / 3, 200 / 3, 200 / 3])


@pytest.mark.parametrize(
    ("height", "protocol", "passed"),
    [
        (10.0, "lasot-matlab", 10),  # overlap .5: 0 to .45
        (10.0, "pytracking", 10),
        (10.0, "got10k-lasot", 10),
        (10.0, "trackingnet", 11),
        (13.0, "lasot-matlab", 14),  # MATLAB's 0:.05:1 has 1 - 7 x .05, less than .65
        (13.0, "pytracking", 13),
        (12.0, "trackingnet", 12),  # numpy's 12 x .05 is more than .6
        (20.0, "lasot-matlab", 20),
        (20.0, "trackingnet", 21),
    ],
)
def test_an_overlap_just_at_a_threshold(height: float, protocol: Protocol, passed: int) -> None:
    scores = one(protocol, [G] * 2, [G, [5.0, 7.0, 20.0, height]])
    first = 21 if protocol == "trackingnet" else 20
    assert scores.curves["success"].shares.sum() * 2 == pytest.approx(first + passed)


def test_rates_are_strictly_over_their_overlap() -> None:
    half, three_quarters = [5.0, 7.0, 20.0, 10.0], [5.0, 7.0, 20.0, 15.0]
    values = one("got10k", [G] * 3, [G, half, three_quarters]).values
    assert values == pytest.approx({"ao": 62.5, "sr_0.5": 50.0, "sr_0.75": 0.0})


@pytest.mark.parametrize("protocol", CURVES)
def test_an_error_just_at_a_threshold_is_within_it(protocol: Protocol) -> None:
    scores = one(protocol, [[5.0, 7.0, 100.0, 100.0]] * 2, [G, [25.0, 7.0, 100.0, 100.0]])
    curve = scores.curves["precision"]
    assert curve.shares[curve.thresholds < 20].tolist() == [0.5] * int((curve.thresholds < 20).sum())
    assert curve.shares[curve.thresholds >= 20].tolist() == [1.0] * int((curve.thresholds >= 20).sum())


@pytest.mark.parametrize(
    ("protocol", "share"), [("lasot-matlab", 0.5), ("pytracking", 0.5), ("ostrack", 0.5), ("got10k-lasot", 1.0)]
)
def test_the_order_of_division_decides_at_a_threshold(protocol: Protocol, share: float) -> None:
    """One pixel of five: 4 / 5 - 3 / 5 is more than .2 in float64, and (4 - 3) / 5 is not."""
    curve = one(protocol, [[1.0, 1.0, 5.0, 5.0]] * 2, [[1.0, 1.0, 5.0, 5.0], [2.0, 1.0, 5.0, 5.0]])
    assert curve.curves["norm_precision"].shares[20] == share


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_first_frame_is_given_or_dropped(protocol: Protocol) -> None:
    assert figures(one(protocol, [G] * 3, [FAR, G, G])) == figures(one(protocol, [G] * 3, [G, G, G]))
    assert "none after the first" in refusal("got10k", [G], [G])


def test_got10k_clips_both_boxes_to_the_picture() -> None:
    truth, found = [90.0, 0.0, 20.0, 10.0], [90.0, -10.0, 30.0, 20.0]
    # Clipped to 100 x 50: (90, 0, 10, 10) and (90, 0, 10, 20), as corners move alone and widths are cut after.
    assert one("got10k", [truth] * 2, [truth, found], size=(100, 50)).values["ao"] == pytest.approx(50)
    # As they are: 20 x 10 in common of 200 + 600 - 200.
    scores = one("got10k", [truth] * 2, [truth, found])
    assert scores.values["ao"] == pytest.approx(100 / 3)
    assert "not clipped" in scores.notes[1]


def test_got10k_pools_the_frames_that_show_something() -> None:
    truths = {
        "long": Truth(boxes=boxes(*[G] * 5), cover=np.array([8, 8, 1, 0, 8])),
        "short": Truth(boxes=boxes(*[G] * 2), cover=np.array([0, 8])),
        "dark": Truth(boxes=boxes(*[G] * 3), cover=np.array([8, 0, 0])),
    }
    tracks = {"long": boxes(*[G] * 5), "short": boxes(G, FAR), "dark": boxes(*[FAR] * 3)}
    scores = judge("got10k", truths, tracks)
    assert figures(scores) == pytest.approx([75, 75, 75])
    assert scores.frames == {"long": 3, "short": 1, "dark": 0}
    assert list(scores.per_sequence) == ["long", "short"]
    assert "sequences without a frame to judge say nothing (1 of 3 sequences: dark)" in scores.notes


def test_an_early_end() -> None:
    for protocol in ("lasot-matlab", "tnl2k", "got10k"):
        assert "expected 4 predictions, one a frame, got 3" in refusal(protocol, [G] * 4, [G] * 3)
    for protocol in ("pytracking", "ostrack"):
        scores = one(protocol, [G] * 4, [G] * 3)
        # A zero box is 22.6 pixels from the truth, which 20 pixels miss, and .8 of its size.
        assert figures(scores) == pytest.approx([STRICT * 0.75, 75, 75])
        assert any("zero boxes" in note for note in scores.notes)
        assert "got 3" in refusal(protocol, [G] * 4, [G] * 3, absent=[0] * 4)
    assert figures(one("got10k-lasot", [G] * 4, [G] * 3)) == pytest.approx([STRICT, 100, 100])
    assert figures(one("trackingnet", [G] * 4, [G] * 3)) == pytest.approx([75, 75, 75])


@pytest.mark.parametrize("protocol", CURVES)
def test_what_is_longer_than_the_truth_is_cut(protocol: Protocol) -> None:
    scores = one(protocol, [G] * 3, [G, G, G, FAR])
    assert figures(scores) == figures(one(protocol, [G] * 3, [G] * 3))
    assert any("cut" in note for note in scores.notes)


def test_a_missing_track_is_zero_boxes_to_trackingnet_alone() -> None:
    scores = one("trackingnet", [[300.0, 300.0, 20.0, 20.0]] * 4, None)
    # The first frame is given, and an overlap of 0 is at least 0.
    assert figures(scores) == pytest.approx([25 + 75 * 0.025, 25, 25])
    for protocol in PROTOCOLS:
        if protocol != "trackingnet":
            assert "got none for 1 of 1 sequences: a" in refusal(protocol, [G], None)
    many = {f"s{k}": Truth(boxes=boxes(G)) for k in range(9)}
    with pytest.raises(RiceError, match=r"none for 8 of 9 sequences: s1, s2, s3, s4, s5, \.\.\.; add"):
        judge("ostrack", many, {"s0": boxes(G)})


def test_trackingnet_rounds_halves_to_even() -> None:
    truth = [10.5, 11.5, 20.0, 20.0]
    assert figures(one("trackingnet", [truth] * 2, [truth, [10.0, 12.0, 19.5, 20.5]])) == pytest.approx([100] * 3)
    assert one("trackingnet", [truth] * 2, [truth, [11.0, 12.0, 20.0, 20.0]]).values["success"] < 100


def test_matlab_leaves_out_curves_of_zeros() -> None:
    """The first frame is always given, so that it must be absent (no hit at all) or invalid (no overlap)."""
    unseen = Truth(boxes=boxes(G, G), absent=np.array([True, False]))
    invalid = Truth(boxes=boxes([0.0, 7.0, 20.0, 20.0], G), absent=np.array([False, False]))
    fine = Truth(boxes=boxes(G, G), absent=np.array([False, False]))
    tracks = {"fine": boxes(G, G), "unseen": boxes(FAR, FAR), "invalid": boxes(FAR, FAR)}
    truths = {"fine": fine, "unseen": unseen, "invalid": invalid}
    scores = judge("lasot-matlab", truths, tracks)
    assert figures(scores) == pytest.approx([STRICT, 75, 75])
    assert scores.left_out == {
        "success": ("unseen", "invalid"),
        "precision": ("unseen",),
        "norm_precision": ("unseen",),
    }
    assert figures(judge("pytracking", truths, tracks)) == pytest.approx([STRICT / 3, 100 / 3, 50])
    nothing = judge("tnl2k", {"unseen": unseen}, tracks)
    assert figures(nothing) == [0, 0, 0]
    assert nothing.notes == (
        "predictions for sequences without a truth are ignored (2 of 3 sequences: fine, invalid)",
        *(f"sequences without any hit are left out of {plot} (1 of 1 sequences: unseen)" for plot in nothing.values),
    )


def test_an_invalid_truth_hits_or_misses_at_every_threshold() -> None:
    """The toolkits write -1 or infinity for it: over no overlap, within any error or none."""
    truth, track = [G, [0.0] * 4, G], [G, FAR, FAR]
    for protocol, precision in (("lasot-matlab", 2 / 3), ("tnl2k", 2 / 3), ("pytracking", 1 / 3), ("ostrack", 1 / 3)):
        curves = one(protocol, truth, track).curves
        assert curves["success"].shares[:20] == pytest.approx([1 / 3] * 20)
        assert curves["precision"].shares == pytest.approx([precision] * 51)
        assert curves["norm_precision"].shares == pytest.approx([2 / 3] * 51)
        absent = one(protocol, truth, track, absent=[0, 1, 0]).curves
        assert absent["precision"].shares == pytest.approx([1 / 3] * 51)
        assert absent["norm_precision"].shares == pytest.approx([1 / 3] * 51)


def test_small_boxes_and_boxes_over_the_border_are_no_damaged_predictions() -> None:
    pixel, border = [9.0, 9.0, 1.0, 1.0], [-4.0, -9.0, 20.0, 20.0]
    for protocol in ("lasot-matlab", "pytracking", "ostrack", "got10k-lasot", "trackingnet"):
        curve = one(protocol, [G, pixel, G], [G, pixel, border]).curves["success"]
        # 11 x 4 pixels in common of 800 - 44: 0.0582; where boxes end at x + w as well.
        assert curve.shares[[1, 2, 19]] == pytest.approx([1, 2 / 3, 2 / 3])


def test_boxes_after_an_early_end_lie_at_the_origin_of_coordinates() -> None:
    near = [1.0, 1.0, 2.0, 2.0]
    for protocol in ("pytracking", "ostrack"):
        curve = one(protocol, [near] * 2, [near]).curves["precision"]
        # Centres 1.5 and -0.5: 2.83 pixels.
        assert curve.shares[:5].tolist() == [0.5, 0.5, 0.5, 1, 1]


def test_the_toolkits_epsilons_are_where_they_have_them() -> None:
    eps = 2.0**-52
    quarter = one("got10k", [[5.0, 7.0, 1.0, 0.5]] * 2, [G, [5.0, 7.0, 0.5, 0.5]])
    assert figures(quarter) == [100 * (0.25 / (0.5 + eps)), 0, 0]
    assert figures(one("got10k", [[5.0, 7.0, 0.0, 0.0]] * 2, [[5.0, 7.0, 0.0, 0.0]] * 2)) == [0, 0, 0]
    assert one("lasot-matlab", [G], [G]).values["precision"] == 100 * (1 / (1 + eps))
    assert one("pytracking", [G], [G]).values["precision"] == 100


def test_edges_below_a_pixel_count_as_one_in_got10ks_normalised_error() -> None:
    thin = [5.0, 7.0, 0.5, 4.0]
    curve = one("got10k-lasot", [thin] * 2, [thin, [5.25, 7.0, 0.5, 4.0]]).curves["norm_precision"]
    assert curve.shares[[24, 25]].tolist() == [0.5, 1.0]
    halves = one("lasot-matlab", [thin] * 2, [thin, [5.2, 7.0, 0.5, 4.0]]).curves["norm_precision"]
    assert halves.shares[[38, 42]].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_said_of_divisions_that_a_toolkit_makes(protocol: Protocol) -> None:
    huge = [1e200, 1.0, 1e200, 20.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one(protocol, [G, [0.0] * 4, [3.0, 3.0, 0.0, 5.0], G], [G, [0.0] * 4, [3.0, 3.0, 0.0, 5.0], huge])


@pytest.mark.parametrize("value", range(4))
def test_a_truth_needs_four_values_over_zero_and_to_ostrack_the_last_two(value: int) -> None:
    box = [0.0 if k == value else G[k] for k in range(4)]
    for protocol in ("lasot-matlab", "tnl2k", "pytracking", "ostrack"):
        counted = 3 if protocol == "ostrack" and value < 2 else 2
        assert one(protocol, [G, box, G], [G] * 3).frames == {"a": counted}


@pytest.mark.parametrize(
    ("truth", "found", "share"),
    [
        ([-5.0, -6.0, 20.0, 20.0], [0.0, 0.0, 20.0, 20.0], 1),  # corners move, sizes stay
        ([80.0, 40.0, 30.0, 30.0], [80.0, 40.0, 20.0, 10.0], 1),  # sizes end with the picture
        ([0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 10.0, 10.0], 90 / 110),
        ([50.0, 20.0, 10.0, 10.0], [50.0, 20.0, 0.0, 10.0], 0),
        ([50.0, 20.0, 10.0, 10.0], [120.0, 60.0, 10.0, 10.0], 0),
    ],
)
def test_got10k_clips_at_all_four_borders(truth: list[float], found: list[float], share: float) -> None:
    scores = one("got10k", [truth] * 2, [truth, found], size=(100, 50))
    assert scores.values["ao"] == pytest.approx(100 * share)
