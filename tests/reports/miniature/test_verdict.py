"""Verdicts are those of Student's t over pretraining seeds, whichever way the same numbers are told."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_up import put_all, put_arm
from stored_results import made, metric, put_knn

from probes.results import Result, frame_of, load
from reports.compare.resample import Resampler
from reports.miniature.claims import CLAIMS, Claim
from reports.miniature.scores import Scores, Trained, scores_of
from reports.miniature.verdict import Judged, as_json, judge
from rice.errors import RiceError
from rice.progress import SilentProgress

CLAIM = Claim("a", "RICE beats MLCD", "rice", "mlcd", "fake", "mIoU")
NUMBERS = st.lists(st.floats(-40, 140).map(lambda x: round(x, 3)), min_size=3, max_size=3)


def scores(*results: Result) -> Scores:
    documents = [dataclasses.asdict(result) | {"key": result.key, "schema": 1} for result in results]
    return scores_of(frame_of(json.loads(json.dumps(documents))))


def results(arms: Mapping[str, Sequence[float]], probe_seed: int = 0, **changes: Any) -> list[Result]:
    """Of each arm a number for each pretraining seed, in percent."""
    return [
        made(f"{arm} s{seed}", [metric(value=value, unit="%", **changes)], seed=probe_seed)
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]


def judged(found: Scores, *claims: Claim) -> list[Judged]:
    return judge(found, Resampler(Path("nowhere")), SilentProgress(), claims)


def verdict(better: Sequence[float], than: Sequence[float], by: float = 0.0, **changes: Any) -> Judged:
    arms = {"rice": better, "mlcd": than}
    return judged(scores(*results(arms, **changes)), dataclasses.replace(CLAIM, by=by))[0]


@pytest.mark.parametrize(
    ("differences", "by", "expected"),
    [  # mean -+ 4.303 * deviation / sqrt(3)
        ((10, 11, 12), 5, "held"),  # 8.52 to 13.48
        ((1, 2, 3), 5, "did not hold"),  # -0.48 to 4.48
        ((4, 5, 9), 5, "within noise"),  # -0.57 to 12.57
        ((6, 7, 8), 5, "within noise"),  # 4.52 to 9.48: more than claimed, and not surely
        ((1, 2, 3), 0, "within noise"),  # -0.48 to 4.48
        ((2, 3, 4), 0, "held"),  # 0.52 to 5.48
        ((-4, -3, -2), 0, "did not hold"),  # -5.48 to -0.52
        ((5, 5, 5), 5, "held"),
        ((0, 0, 0), 0, "did not hold"),
        ((4, 4, 4), 5, "did not hold"),
    ],
)
def test_verdicts_by_hand(differences: Sequence[float], by: float, expected: str) -> None:
    one = verdict([20 + d for d in differences], [20, 20, 20], by)
    assert one.verdict == one.words == expected
    mean, half = np.mean(differences), 4.302653 * np.std(differences, ddof=1) / np.sqrt(3)
    assert one.interval == pytest.approx((mean - half, mean + half), abs=1e-5)
    assert one.differences == {seed: pytest.approx(d) for seed, d in enumerate(differences)}


@settings(max_examples=40)
@given(NUMBERS, NUMBERS, st.sampled_from([0.0, 5.0]))
def test_intervals_and_p_are_scipys(better: list[float], than: list[float], by: float) -> None:
    differences = np.subtract(better, than)
    assume(differences.std() > 1e-6)
    one, test = verdict(better, than, by), scipy.stats.ttest_1samp(differences, by, alternative="greater")
    assert one.interval == pytest.approx(tuple(scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)))
    assert one.p == pytest.approx(test.pvalue)
    assert one.p_holm == one.p
    low, high = one.interval or (0, 0)
    assert (one.verdict == "held") == (low >= by if by else low > 0)
    assert (one.verdict == "did not hold") == (high < by if by else high <= 0)


@settings(max_examples=20)
@given(NUMBERS, NUMBERS)
def test_swapped_arms_give_the_negative(better: list[float], than: list[float]) -> None:
    one, other = verdict(better, than), verdict(than, better)
    assert [-d for d in other.differences.values()] == list(one.differences.values())
    low, high = one.interval or (0, 0)
    assert other.interval == pytest.approx((-high, -low), abs=1e-9)
    assert not (one.verdict == other.verdict == "held")


@settings(max_examples=20)
@given(NUMBERS, NUMBERS, st.integers(-50, 50), st.permutations([0, 1, 2]))
def test_what_both_gain_and_the_order_of_seeds_change_nothing(
    better: list[float], than: list[float], gain: int, order: list[int]
) -> None:
    one = verdict(better, than)
    low, high = one.interval or (0, 0)
    assume(min(abs(low), abs(high)) > 1e-6)
    moved = verdict([x + gain for x in better], [x + gain for x in than])
    turned = verdict([better[k] for k in order], [than[k] for k in order])
    for other in (moved, turned):
        assert other.interval == pytest.approx(one.interval, abs=1e-6)
        assert other.verdict == one.verdict


def test_where_less_is_better_the_smaller_wins() -> None:
    one = verdict([10, 11, 12], [20, 20, 20], by=5, higher_is_better=False)
    assert one.verdict == "held"
    assert list(one.differences.values()) == [10, 9, 8]


def test_fractions_are_counted_in_points() -> None:
    found = [
        made(f"{arm} s{seed}", {"mIoU": base + seed / 100})
        for arm, base in (("rice", 0.5), ("mlcd", 0.4))
        for seed in range(3)
    ]
    (one,) = judged(scores(*found), CLAIM)
    assert list(one.differences.values()) == pytest.approx([10, 10, 10])


def test_one_seed_has_no_interval_and_says_so() -> None:
    one = verdict([90], [10], by=5)
    assert (one.verdict, one.words) == ("within noise", "within noise (one seed)")
    assert one.interval is one.p is one.p_holm is None
    assert one.differences == {0: 80}


def test_a_probes_seeds_are_averaged_before_pretrainings_are_compared() -> None:
    arms = {"rice": [10.0, 20.0, 30.0], "mlcd": [5.0, 8.0, 16.0]}
    shifted = {"rice": [14.0, 20.0, 20.0], "mlcd": [7.0, 8.0, 10.0]}
    both = judged(scores(*results(arms), *results(shifted, probe_seed=1)), CLAIM)[0]
    means = verdict([12, 20, 25], [6, 8, 13])
    assert both.interval == pytest.approx(means.interval)
    assert both.differences == pytest.approx(means.differences)


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ([("mlcd s1", 0), ("mlcd s1", 1)], ("mlcd s1",)),
        ([("rice s2", 1)], ("rice s2 with the probe's seed 1",)),
        ([(f"mlcd s{k}", seed) for k in range(3) for seed in (0, 1)], ("mlcd s0", "mlcd s1", "mlcd s2")),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_judged_without_it(
    lost: list[tuple[str, int]], named: tuple[str, ...]
) -> None:
    arms = {"rice": [60.0, 61, 62], "mlcd": [50.0, 50, 50], "clip": [40.0, 40, 40]}
    found = [one for seed in (0, 1) for one in results(arms, probe_seed=seed) if (one.encoder, seed) not in lost]
    one, _ = judged(scores(*found), CLAIM, dataclasses.replace(CLAIM, id="b", than="clip"))
    assert (one.verdict, one.missing) == ("not measured", named)
    assert one.seeds is one.interval is one.p is None


def test_a_claim_without_any_cell_is_not_measured() -> None:
    one = judged(scores(*results({"rice": [1.0], "mlcd": [1.0]})), dataclasses.replace(CLAIM, metric="AP"))[0]
    assert (one.verdict, one.missing) == ("not measured", ("fake / AP of every arm",))


def test_holm_goes_over_all_primary_claims_and_one_that_is_not_measured_makes_none_easier() -> None:
    arms = {"rice": [20.0, 21, 25], "mlcd": [10.0, 12, 11], "unicom": [18.0, 16, 19], "oracle": [10.0, 10, 11]}
    claims = [dataclasses.replace(CLAIM, id=arm, than=arm) for arm in ("mlcd", "unicom", "clip")]
    claims.append(dataclasses.replace(CLAIM, id="aside", than="oracle", primary=False))
    found = judged(scores(*results(arms)), *claims)
    p = {one.claim.id: one.p for one in found}
    assert p["mlcd"] is not None
    assert p["unicom"] is not None
    assert p["mlcd"] < p["unicom"]
    assert [one.p_holm for one in found] == [
        pytest.approx(3 * p["mlcd"]),
        pytest.approx(max(3 * p["mlcd"], 2 * p["unicom"])),
        None,
        None,
    ]
    assert p["aside"] is not None


def test_only_arms_of_equal_updates_are_judged(tmp_path: Path) -> None:
    put_all(tmp_path, ("rice", "mlcd"), time=("mlcd",))
    without = put_all(tmp_path / "without", ("rice", "mlcd"))
    both = [scores_of(load(folder)) for folder in (tmp_path, without)]
    assert judged(both[0]) == judged(both[1])
    assert Trained("mlcd", "time", 0) in both[0].of


def test_two_ways_to_measure_one_thing_are_never_mixed(tmp_path: Path) -> None:
    put_all(tmp_path, ("rice", "mlcd"))
    put_arm(tmp_path, "rice s0", {"mIoU": 1}, "dense", config={"grid": "matched"})
    with pytest.raises(RiceError, match=r"dense / mIoU on dense data was measured in two ways.*config"):
        judged(scores_of(load(tmp_path)), *CLAIMS)


def test_an_earlier_pretraining_under_the_same_name_is_never_averaged_in(tmp_path: Path) -> None:
    put_all(tmp_path, ("rice", "mlcd"))
    put_arm(tmp_path, "rice s0", {"mIoU": 1}, "dense", encoder_fingerprint="e" * 64)
    with pytest.raises(RiceError, match=r"rice s0 stands for several encoders in dense / mIoU"):
        scores_of(load(tmp_path))


def test_each_dataset_is_judged_by_itself(tmp_path: Path) -> None:
    put_all(tmp_path, ("rice", "mlcd"))
    other = {"dataset": "photos", "dataset_fingerprint": "c" * 64}
    for seed in range(3):
        for arm, value in (("rice", 30 + seed), ("mlcd", 31)):
            put_arm(tmp_path, f"{arm} s{seed}", {"mIoU": value}, "dense", **other)
    one, two = judged(scores_of(load(tmp_path)), CLAIMS[0])
    assert (one.dataset, one.verdict, two.dataset, two.verdict) == ("dense data", "held", "photos", "did not hold")


def put_items(out: Path, rng: np.random.Generator, seeds: Sequence[int], share: Mapping[str, float]) -> None:
    """Of each arm's pretrainings items that the probe's seeds agree in."""
    for arm, right in share.items():
        for pretraining in range(3):
            items = rng.random(200) < right
            for seed in seeds:
                put_knn(out, f"{arm} s{pretraining}", items, items, seed=seed)


def test_seeds_of_a_probe_that_agree_are_no_more_evidence_than_one(tmp_path: Path) -> None:
    claim = dataclasses.replace(CLAIM, probe="knn", metric="knn top-1")
    found = []
    for name, seeds in (("one", (0,)), ("three", (0, 1, 2))):
        put_items(tmp_path / name, np.random.default_rng(0), seeds, {"rice": 0.7, "mlcd": 0.5})
        frame, resampler = load(tmp_path / name), Resampler(tmp_path / name)
        found += judge(scores_of(frame), resampler, SilentProgress(), [claim])
        assert not resampler.notes
    one, three = (one.items for one in found)
    assert one is not None
    assert three is not None
    assert (one.items, three.items) == (200, 200)
    assert three.interval == pytest.approx(one.interval)
    assert found[1].interval == pytest.approx(found[0].interval)


def test_the_interval_over_items_alone_is_that_of_a_difference_of_shares(tmp_path: Path) -> None:
    """With one pretraining: mean -+ t * deviation / sqrt(N), as far as 2,000 draws tell."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((2, 300)) < [[0.7], [0.5]]
    for arm, items in (("rice", ours), ("mlcd", theirs)):
        put_knn(tmp_path, f"{arm} s0", items, items)
    claim = dataclasses.replace(CLAIM, probe="knn", metric="knn top-1")
    (one,) = judge(scores_of(load(tmp_path)), Resampler(tmp_path), SilentProgress(), [claim])
    assert one.words == "within noise (one seed)"
    assert one.items is not None
    points = 100 * (ours.astype(float) - theirs)
    expected = scipy.stats.ttest_1samp(points, 0).confidence_interval(0.95)
    assert one.items.interval == pytest.approx(tuple(expected), abs=0.05 * (expected.high - expected.low))


def test_json_holds_plain_numbers_and_survives_a_round(tmp_path: Path) -> None:
    put_all(tmp_path, ("rice", "mlcd"))
    found = judged(scores_of(load(tmp_path)), *CLAIMS)
    document = as_json(found, ["a note"])
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    by_id = {one["id"]: one for one in document["claims"]}
    assert list(by_id) == [claim.id for claim in CLAIMS]
    assert by_id["text-clip"]["verdict"] == "not measured"
    one = by_id["dense-mlcd"]
    assert one["difference"] == pytest.approx(np.mean(list(one["differences"].values())))
    assert one["low"] < one["difference"] < one["high"]
    assert {f"{key}.json" for key in one["results"]} <= {path.name for path in (tmp_path / "results").iterdir()}
    assert len(one["results"]) == 6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rice s0", Trained("rice", "updates", 0)),
        ("rice-noocr s12", Trained("rice-noocr", "updates", 12)),
        ("mlcd time s1", Trained("mlcd", "time", 1)),
        ("rice", None),
        ("dinov2 s0", None),
        ("rice s0 ", None),
        ("rice s-1", None),
    ],
)
def test_names_of_encoders_are_read_and_written_alike(name: str, expected: Trained | None) -> None:
    assert Trained.parse(name) == expected
    if expected is not None:
        assert expected.name == name
