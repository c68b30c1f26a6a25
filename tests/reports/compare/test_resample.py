"""Items give back every probe's stored metrics, on any multiset of them; what does not is never resampled."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stored_results import metric, put, put_knn, rewrite

from probes.dense.evaluate import PixelCounts, score_with_error
from probes.dense.evaluate import write_items as write_dense
from probes.dense.scores import SCORES
from probes.detection.bootstrap import items as detection_items
from probes.detection.bootstrap import write_items as write_detection
from probes.detection.score import evaluate, prepare
from probes.detection.suites import find_suite
from probes.protocol import PROBES, Resamples, Resampling, probe_class
from probes.results import items_path, load
from reports.compare.measured import measured
from reports.compare.ranks import rank_all
from reports.compare.resample import Resampler, draws
from reports.compare.statistics import summary
from rice.errors import RiceError
from rice.progress import SilentProgress
from tracking.items import metrics, write_items
from tracking.metrics import Truth
from tracking.protocols import DEFAULT_PROTOCOL
from tracking.score import Scores, judge


def groups(probe: str, path: Path) -> list[Resampling]:
    cls = probe_class(probe)
    assert isinstance(cls, Resamples)
    return list(cls.resampling(path))


def whole(probe: str, path: Path) -> dict[str, float]:
    """Every metric with each item counted once."""
    scores = [group.scores(np.ones((1, len(group.ids)))) for group in groups(probe, path)]
    return {name: float(value[0]) for part in scores for name, value in part.items()}


def test_every_probe_of_ours_can_be_resampled() -> None:
    assert all(isinstance(probe_class(name), Resamples) for name in PROBES)


def test_knns_items_give_its_metrics_and_count_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    knn, linear = rng.random((2, 30)) < 0.6
    key = put_knn(tmp_path, "a", knn, linear)
    path = items_path(tmp_path, key)
    assert whole("knn", path) == pytest.approx({"knn top-1": knn.mean(), "linear top-1": linear.mean()}, abs=1e-9)
    (group,) = groups("knn", path)
    counts = rng.integers(0, 3, (4, 30))
    scores = group.scores(counts.astype(float))
    for row, value in zip(counts, scores["linear top-1"], strict=True):
        assert value == pytest.approx(np.repeat(linear, row).mean())


def pixel_counts(rng: np.random.Generator, pictures: int) -> PixelCounts:
    """Of 5 classes, the fourth in no truth, most pictures without the last."""
    truth = rng.integers(0, 50, (pictures, 5)) * [1, 1, 1, 0, 1] * (rng.random((pictures, 5)) < [1, 1, 0.5, 1, 0.2])
    right = (truth * rng.random((pictures, 5))).astype(np.int64)
    wrong = truth.sum(1, keepdims=True) - right.sum(1, keepdims=True)
    given = right + np.concatenate([np.zeros((pictures, 3), np.int64), wrong, np.zeros((pictures, 1), np.int64)], 1)
    return PixelCounts(right, given, truth)


def test_denses_items_give_its_metrics_and_count_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    counts = pixel_counts(rng, 12)
    write_dense(tmp_path / "items.parquet", list(range(100, 112)), counts, 1e-3)
    stored = {name: score_with_error(counts, score)[0] for name, (score, _) in SCORES.items()}
    assert whole("dense", tmp_path / "items.parquet") == pytest.approx(stored, abs=1e-9)
    (group,) = groups("dense", tmp_path / "items.parquet")
    assert list(group.ids) == [str(k) for k in range(100, 112)]
    weights = rng.integers(0, 3, (5, 12))
    scores = group.scores(weights.astype(float))
    for k, row in enumerate(weights):
        copies = PixelCounts(*(part.repeat(row, 0) for part in (counts.intersection, counts.predicted, counts.truth)))
        for name, (score, _) in SCORES.items():
            assert scores[name][k] == pytest.approx(score_with_error(copies, score)[0], abs=1e-9)


@pytest.mark.parametrize("lvis", [False, True])
def test_detections_items_give_its_box_metrics(tmp_path: Path, lvis: bool) -> None:
    rng = np.random.default_rng(2)
    images = [{"id": k, "neg_category_ids": [1, 2], "not_exhaustive_category_ids": []} for k in range(1, 9)]
    truth: dict[str, Any] = {"images": images, "annotations": []}
    truth["categories"] = [{"id": k, "name": str(k), "frequency": "rcf"[k % 3]} for k in (1, 2)]
    found = []
    for number in range(40):
        x, y, w, h = (int(v) for v in rng.integers([0, 0, 5, 5], [40, 40, 25, 25]))
        box = {"image_id": int(rng.integers(1, 9)), "category_id": int(rng.integers(1, 3)), "bbox": [x, y, w, h]}
        truth["annotations"].append(box | {"id": number + 1, "area": w * h, "iscrowd": 0})
        found.append(box | {"bbox": [x + int(rng.integers(0, 4)), y, w, h], "score": float(rng.random())})
    scores = evaluate(truth, found, iou="bbox", lvis=lvis)
    write_detection(tmp_path / "items.parquet", detection_items(prepare(truth, found, iou="bbox", lvis=lvis)))
    values = whole("detection", tmp_path / "items.parquet")
    values = {name: value for name, value in values.items() if np.isfinite(value)}
    assert {"box AP", "box AP50", "box AP75"} <= values.keys()
    assert ("box APc" in values) == lvis
    assert values == pytest.approx({n: scores.values[n.removeprefix("box ")] for n in values}, abs=1e-9)


def test_a_suites_items_give_the_means_of_its_domains(tmp_path: Path) -> None:
    from probes.detection.suites import domain_means, read_suites

    suite_name, domain_of = next(iter(read_suites().items()))
    for name in domain_of:
        for split in ("train", "test"):
            (tmp_path / "suite" / name / split).mkdir(parents=True)
            (tmp_path / "suite" / name / split / "_annotations.coco.json").write_text("{}")
    suite = find_suite(tmp_path / "suite", name=suite_name)
    assert suite is not None
    rng = np.random.default_rng(3)
    scores = {dataset.name: float(rng.random()) for dataset in suite.datasets}
    rows = [{"id": d.name, "domain": d.domain, "box AP": scores[d.name]} for d in suite.datasets]
    rewrite(tmp_path / "items.parquet", pd.DataFrame(rows))
    means = {f"{domain} AP": value for domain, value in domain_means(scores, suite).items()}
    assert "AVG AP" in means
    assert whole("detection", tmp_path / "items.parquet") == pytest.approx(means, abs=1e-9)
    average = groups("detection", tmp_path / "items.parquet")[-1]
    weights = rng.integers(0, 2, len(rows))
    frame = pd.DataFrame(rows).set_index("id").loc[list(average.ids)]
    expected = frame[weights > 0].groupby("domain")["box AP"].mean().mean()
    assert average.scores(weights[None].astype(float))["AVG AP"][0] == pytest.approx(expected)


def tracked(benchmark: str, copies: Mapping[str, int], seed: int = 4) -> Scores:
    """A benchmark's own scores of clips of various lengths, each as often as given; `lost` is hit nowhere."""
    truths, tracks = {}, {}
    for name, count in copies.items():
        rng = np.random.default_rng([seed, *name.encode()])
        length = int(rng.integers(6, 30))
        truth = np.tile([50.0, 70.0, 20.0, 20.0], (length, 1))
        track = truth + rng.normal(size=(length, 4)) * rng.choice([2, 10])
        track[:, 2:] = np.maximum(track[:, 2:], 1)
        absent = np.zeros(length, dtype=np.bool_)
        if name == "far":  # within 50 pixels, so that it counts, but never within 20
            track[:, :2] = truth[:, :2] + 25
            absent[0] = True
        if name == "lost":
            track[:, :2] = truth[:, :2] + 900
            absent[0] = True
        for k in range(count):
            truths[f"{name}-{k}"], tracks[f"{name}-{k}"] = Truth(boxes=truth, absent=absent), track
    return judge(DEFAULT_PROTOCOL[benchmark], truths, tracks)  # type: ignore[index]


@pytest.mark.parametrize("benchmark", list(DEFAULT_PROTOCOL))
def test_trackings_items_give_its_metrics_and_count_clips(tmp_path: Path, benchmark: str) -> None:
    names = ["bear", "cat", "dog", "far", "lost"]
    scores = tracked(benchmark, dict.fromkeys(names, 1))
    write_items(tmp_path / "items.parquet", {benchmark: scores})
    stored = {m.name: m.value for m in metrics(benchmark, scores, "test", "a test")}
    assert whole("tracking", tmp_path / "items.parquet") == pytest.approx(stored, abs=1e-9)
    (group,) = groups("tracking", tmp_path / "items.parquet")
    counts = [2, 0, 1, 3, 1]
    again = tracked(benchmark, dict(zip(names, counts, strict=True)))
    order = [counts[names.index(name.split("/")[1].split("-")[0])] for name in group.ids]
    values = group.scores(np.array([order], dtype=float))
    expected = {m.name: m.value for m in metrics(benchmark, again, "test", "a test")}
    assert {name: float(value[0]) for name, value in values.items()} == pytest.approx(expected, abs=1e-9)


def test_resampling_imports_no_torch(tmp_path: Path) -> None:
    """`rice compare` answers at once."""
    write_dense(tmp_path / "items.parquet", [1, 2], pixel_counts(np.random.default_rng(0), 2), 1e-3)
    code = (
        "import sys; from pathlib import Path; from probes.protocol import PROBES, probe_class\n"
        "classes = [probe_class(name) for name in PROBES]; import probes.detection.resample, reports.compare.command\n"
        f"list(probe_class('dense').resampling(Path({str(tmp_path / 'items.parquet')!r})))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def resampled(out: Path, metric: str = "knn top-1", **settings: Any) -> tuple[Any, Resampler]:
    """The estimate of encoder a's metric, and who made it."""
    stored, resampler = measured(load(out)), Resampler(out, **({"resamples": 200} | settings))
    (cell,) = (cell for cell in stored.scores["a"] if cell.metric == metric)
    runs = [run for _, run in sorted(stored.scores["a"][cell].items())]
    resampler.prepare([(cell.probe, run.key) for run in runs], SilentProgress())
    return resampler.summary(cell, runs), resampler


RIGHT = np.random.default_rng(6).random((3, 40)) < 0.7


def three_seeds(out: Path) -> list[Path]:
    return [items_path(out, put_knn(out, "a", row, row, seed=seed)) for seed, row in enumerate(RIGHT)]


def test_seeds_share_the_draws_of_their_items_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    paths = three_seeds(tmp_path)
    before, resampler = resampled(tmp_path)
    assert (before.how, before.items, list(resampler.notes)) == ("seeds and items", 40, [])
    rewrite(paths[1], pd.read_parquet(paths[1]).sample(frac=1, random_state=0))
    after, _ = resampled(tmp_path)
    assert after.error == pytest.approx(before.error, rel=1e-12)
    assert resampled(tmp_path, seed=1)[0].error != before.error


def test_the_results_folder_will_do(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    assert resampled(tmp_path / "results")[0] == resampled(tmp_path)[0]


def test_items_that_are_not_the_results_are_said_and_not_used(tmp_path: Path) -> None:
    values = RIGHT.mean(1)

    def spoil(number: int, change: Any) -> str:
        out = tmp_path / str(number)
        path = three_seeds(out)[1]
        change(path)
        estimate, resampler = resampled(out)
        assert estimate == summary([100 * value for value in values]), "seeds alone"
        return " ".join(resampler.notes)

    def edited(edit: Any) -> Any:
        return lambda path: rewrite(path, edit(pd.read_parquet(path)))

    assert "says" in spoil(0, edited(lambda f: f.assign(knn_correct=~f["knn_correct"])))
    assert "others" in spoil(1, edited(lambda f: f.assign(image=f["image"] + "x")))
    assert "repeat" in spoil(2, edited(lambda f: f.assign(image="same")))
    assert "cannot be used" in spoil(3, edited(lambda f: f.drop(columns="image")))
    assert "cannot be used" in spoil(4, lambda path: path.write_bytes(b"PAR1 rubbish"))
    assert "no items are stored" in spoil(5, lambda path: path.unlink())


def test_a_result_never_chooses_what_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_probe.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for seed in range(2):
        key = put_knn(tmp_path / "out", "a", RIGHT[seed], RIGHT[seed], seed=seed, probe="evil_probe:Evil")
        assert items_path(tmp_path / "out", key).exists()
    estimate, resampler = resampled(tmp_path / "out")
    assert estimate.how == "seeds"
    assert any("not installed" in note for note in resampler.notes)


def test_metrics_that_do_not_follow_from_items_are_over_seeds(tmp_path: Path) -> None:
    for seed, value in enumerate((0.4, 0.5)):
        items = items_path(tmp_path / "other", put_knn(tmp_path / "other", "a", RIGHT[seed], RIGHT[seed]))
        key = put(tmp_path, "a", {"top-5": value}, seed=seed, probe="knn")
        items_path(tmp_path, key).parent.mkdir(exist_ok=True)
        items.rename(items_path(tmp_path, key))
    estimate, resampler = resampled(tmp_path, metric="top-5")
    assert estimate == summary([100 * 0.4, 100 * 0.5])
    assert list(resampler.notes) == ["knn / top-5: does not follow from the items; over seeds alone."]


@pytest.mark.parametrize("count", [0, 99, -1, 1_000_001])
def test_too_few_or_too_many_resamples_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(RiceError, match="expected 100 to 1,000,000"):
        Resampler(tmp_path, count)


def test_intervals_are_those_of_each_cell(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    near_all = (0.995, 0.999, 0.9)
    for seed, value in enumerate(near_all):
        put(tmp_path, "b", {"mIoU": value}, seed=seed)
    put(tmp_path, "c", {"mIoU": 0.5})
    frame, (estimate, resampler) = load(tmp_path), resampled(tmp_path)
    stored = measured(frame)
    resampler.prepare(zip(frame["probe"], frame["key"], strict=True), SilentProgress())
    ranked = rank_all(stored, resampler, SilentProgress()).ranked
    found = {(name, cell.metric): one for (name, cell), one in ranked.items()}
    one = found["a", "knn top-1"]
    assert one.interval == pytest.approx(estimate.interval)
    assert (one.score.seeds, one.score.items, one.score.how) == (3, 40, "seeds and items")
    one, alone = found["b", "mIoU"], summary([100 * value for value in near_all])
    assert alone.interval is not None
    assert one.interval == pytest.approx((alone.interval[0], 100.0)), "a fraction is at most 1"
    assert (found["c", "mIoU"].interval, found["c", "mIoU"].score.how) == (None, "none")


@pytest.mark.parametrize("resamples", [1, 49, 50, 51, 120])
def test_draws_come_in_parts_that_add_up_to_what_was_asked_for(resamples: int) -> None:
    parts = list(draws(7, resamples, 0))
    assert sum(map(len, parts)) == resamples
    assert {part.shape[1] for part in parts} == {7}
    assert max(map(len, parts)) <= 50, "no more than that are in memory at once"
    assert all((part.sum(1) == 7).all() for part in parts)


def swapped(out: Path, shift: float) -> Path:
    """Two seeds whose stored values are `shift` off what their items give."""
    for seed, row in enumerate(RIGHT[:2]):
        items = items_path(out / "other", put_knn(out / "other", "a", row, row))
        key = put(out, "a", {"knn top-1": float(row.mean()) + shift}, seed=seed, probe="knn", dataset="crops")
        items_path(out, key).parent.mkdir(exist_ok=True)
        items.rename(items_path(out, key))
    return out


def test_a_stored_value_may_differ_from_its_items_by_rounding_alone(tmp_path: Path) -> None:
    assert resampled(swapped(tmp_path / "near", 0.9e-6))[0].how == "seeds and items"
    estimate, resampler = resampled(swapped(tmp_path / "far", 1.1e-6))
    assert estimate.how == "seeds"
    (note,) = resampler.notes
    key = load(tmp_path / "far").sort_values("seed")["key"].iloc[0]
    mean = RIGHT[0].mean()
    assert note == (
        f"knn / knn top-1: items give {mean:g} where result {key[:8]} says {mean + 1.1e-6:g}; over seeds alone."
    )


def test_items_are_read_once_and_a_hundred_draws_are_enough(tmp_path: Path) -> None:
    paths = three_seeds(tmp_path)
    before, resampler = resampled(tmp_path, resamples=100)
    paths[0].unlink()
    stored = measured(load(tmp_path))
    cell = next(cell for cell in stored.scores["a"] if cell.metric == "knn top-1")
    runs = [run for _, run in sorted(stored.scores["a"][cell].items())]
    resampler.prepare([(cell.probe, run.key) for run in runs], SilentProgress())
    assert resampler.summary(cell, runs) == before
    assert list(resampler.notes) == []


def test_a_difference_is_resampled_pair_by_pair(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    ours, theirs = rng.random((2, 2, 40)) < [[[0.7]], [[0.5]]]
    for name, rows in (("a", ours), ("b", theirs)):
        for seed, row in enumerate(rows):
            put_knn(tmp_path, name, row, row, seed=seed)
    stored, resampler = measured(load(tmp_path)), Resampler(tmp_path, 200)
    cell = next(cell for cell in stored.scores["a"] if cell.metric == "knn top-1")
    runs = {name: [run for _, run in sorted(stored.scores[name][cell].items())] for name in "ab"}
    resampler.prepare([("knn", run.key) for name in "ab" for run in runs[name]], SilentProgress())
    found = resampler.summary(cell, runs["a"], minus=runs["b"])
    difference = 100 * (ours.astype(float) - theirs)
    order = sorted(range(40), key=str)  # of the pictures' names
    expected = summary(difference.mean(1), difference[:, order] @ np.concatenate(list(draws(40, 200, 0))).T / 40, 40)
    assert found.error == pytest.approx(expected.error)
    assert found.freedom == pytest.approx(expected.freedom)
    assert (found.mean, found.items) == (pytest.approx(difference.mean()), 40)


def test_runs_of_one_group_are_averaged_before_groups_are_compared(tmp_path: Path) -> None:
    """Two trainings with two heads each are two seeds, of means; not four."""
    right = np.random.default_rng(11).random((4, 40)) < 0.6
    for seed, row in enumerate(right):
        put_knn(tmp_path, "a", row, row, seed=seed)
    stored, resampler = measured(load(tmp_path)), Resampler(tmp_path, 200)
    cell = next(cell for cell in stored.scores["a"] if cell.metric == "knn top-1")
    runs = [run for _, run in sorted(stored.scores["a"][cell].items())]
    resampler.prepare([("knn", run.key) for run in runs], SilentProgress())
    found = resampler.summary(cell, runs, groups=["x", "y", "x", "y"])
    means = 100 * (right[:2] + right[2:].astype(float)) / 2
    order = sorted(range(40), key=str)
    expected = summary(means.mean(1), means[:, order] @ np.concatenate(list(draws(40, 200, 0))).T / 40, 40)
    assert found.error == pytest.approx(expected.error)
    assert found.freedom == pytest.approx(expected.freedom)
    assert (found.mean, found.seeds) == (pytest.approx(means.mean()), 2)
    each = resampler.summary(cell, runs, groups=range(4))
    assert each.error == pytest.approx(resampler.summary(cell, runs).error)


def test_intervals_leave_other_units_as_they_are_and_need_items_of_every_seed(tmp_path: Path) -> None:
    for seed, value in enumerate((-1.0, 2.0, 5.0)):
        put(tmp_path, "b", [metric("error", value, unit="px")], seed=seed)
    paths = three_seeds(tmp_path)
    paths[1].unlink()
    frame, resampler = load(tmp_path), Resampler(tmp_path, 100)
    resampler.prepare(zip(frame["probe"], frame["key"], strict=True), SilentProgress())
    ranked = rank_all(measured(frame), resampler, SilentProgress()).ranked
    found = {(name, cell.metric): one for (name, cell), one in ranked.items()}
    one, alone = found["b", "error"], summary([-1.0, 2.0, 5.0])
    assert alone.interval is not None
    assert alone.interval[0] < 0
    assert one.interval == pytest.approx(alone.interval)
    assert (one.score.items, one.score.how, one.score.seeds) == (0, "seeds", 3)
    one = found["a", "knn top-1"]
    assert (one.score.items, one.score.how) == (0, "seeds")
    assert one.interval == pytest.approx(summary(100 * RIGHT.mean(1)).interval)
