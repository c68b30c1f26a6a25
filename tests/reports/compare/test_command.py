"""`rice compare`: nothing different is compared, noise is never called better, and every format says the same."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stored_results import metric, put, put_knn

from probes.results import load
from reports.compare.command import compare
from reports.compare.measured import Measured, measured
from reports.compare.pairs import Comparison, compare_pair
from reports.compare.ranks import Ranking, rank_all
from reports.compare.resample import Resampler
from rice.errors import RiceError
from rice.progress import SilentProgress


def seeds(out: Path, encoder: str, values: Sequence[float], name: str = "mIoU", **changes: Any) -> None:
    """One result a seed."""
    for seed, value in enumerate(values):
        put(out, encoder, {name: value}, seed=seed, **changes)


def prepared(out: Path) -> tuple[Measured, Resampler]:
    stored, resampler = measured(load(out)), Resampler(out, 200)
    runs = {(c.probe, r.key) for scores in stored.scores.values() for c, rs in scores.items() for r in rs.values()}
    resampler.prepare(runs, SilentProgress())
    return stored, resampler


def pair(out: Path, first: str = "a", second: str = "b") -> Comparison:
    stored, resampler = prepared(out)
    return compare_pair(stored, first, second, resampler)


def ranking(out: Path) -> Ranking:
    stored, resampler = prepared(out)
    return rank_all(stored, resampler, SilentProgress())


def said(capsys: pytest.CaptureFixture[str], *arguments: Any, **settings: Any) -> str:
    """What the verb prints."""
    capsys.readouterr()
    compare(*arguments, **({"resamples": 200} | settings))
    return capsys.readouterr().out


def clear(out: Path) -> Path:
    """a is better than b on mIoU, like it on accuracy; c is worse; three seeds."""
    for seed, (x, y) in enumerate([(0.001, 0.02), (-0.001, -0.03), (0.0, 0.01)]):
        put(out, "a", {"mIoU": 0.80 + x, "accuracy": 0.6 + y}, seed=seed)
        put(out, "b", {"mIoU": 0.70 - x, "accuracy": 0.6 - y}, seed=seed)
        put(out, "c", {"mIoU": 0.50 + 2 * x, "accuracy": 0.6}, seed=seed, trained=False)
    return out


def test_a_clear_difference_is_better_and_a_doubtful_one_is_not(tmp_path: Path) -> None:
    found = pair(clear(tmp_path))
    accuracy, miou = found.pairs
    assert (miou.verdict, accuracy.verdict) == ("better", "indistinguishable")
    differences = [10.2, 9.8, 10.0]
    low, high = stats.t.interval(0.95, 2, loc=10, scale=stats.sem(differences))
    assert miou.difference.interval == pytest.approx((low, high))
    p = stats.ttest_1samp(differences, 0).pvalue
    assert miou.difference.p == pytest.approx(p)
    assert miou.p == pytest.approx(2 * p), "Holm: the smaller of two"
    assert miou.words(2) == f"better by 10.00 points ({low:.2f} to {high:.2f}), p < 0.001"
    assert re.match(r"indistinguishable: [+-]0\.0 points \(-\d+\.\d to \d+\.\d\), p 1\.00$", accuracy.words(1))
    assert (miou.first, miou.second) == pytest.approx((80, 70))


@settings(max_examples=6, deadline=None)
@given(values=st.lists(st.tuples(*[st.floats(0.01, 0.99)] * 2), min_size=1, max_size=4), items=st.integers(0, 9999))
def test_the_other_way_round_is_the_opposite(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[float, float]], items: int
) -> None:
    out = tmp_path_factory.mktemp("out")
    rng = np.random.default_rng(items)
    for seed, (a, b) in enumerate(values):
        put(out, "a", {"mIoU": a}, seed=seed)
        put(out, "b", {"mIoU": b}, seed=seed)
        for name in "ab":
            put_knn(out, name, rng.random(20) < 0.7, rng.random(20) < 0.5, seed=seed)
    forth, back = pair(out, "a", "b"), pair(out, "b", "a")
    opposite = {"better": "worse", "worse": "better"}
    for one, other in zip(forth.pairs, back.pairs, strict=True):
        assert one.cell == other.cell
        assert other.difference.mean == pytest.approx(-one.difference.mean, abs=1e-12)
        assert other.verdict == opposite.get(one.verdict, one.verdict)
        assert (one.p is None) == (other.p is None)
        if one.p is not None and one.difference.interval is not None and other.difference.interval is not None:
            assert other.p == pytest.approx(one.p)
            assert other.difference.interval == pytest.approx([-x for x in one.difference.interval[::-1]])


def test_an_encoder_is_never_better_than_itself(tmp_path: Path) -> None:
    clear(tmp_path)
    put_knn(tmp_path, "a", [True, False, True], [True, True, False])
    found = pair(tmp_path, "a", "a")
    assert {p.verdict for p in found.pairs} == {"equal"}
    assert {p.difference.mean for p in found.pairs} == {0.0}
    assert found.left_out == []
    assert found.over_datasets is not None
    assert (found.over_datasets.wins, found.over_datasets.losses) == (0, 0)


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    clear(tmp_path)
    rng = np.random.default_rng(0)
    for name in "abc":
        put_knn(tmp_path, name, rng.random(30) < 0.7, rng.random(30) < 0.6)
    frame, resampler = load(tmp_path), Resampler(tmp_path, 200)
    resampler.prepare(set(zip(frame["probe"], frame["key"], strict=True)), SilentProgress())
    whole = rank_all(measured(frame), resampler, SilentProgress())
    for state in range(3):
        shuffled = measured(frame.sample(frac=1, random_state=state))
        assert compare_pair(shuffled, "a", "b", resampler) == compare_pair(measured(frame), "a", "b", resampler)
        assert rank_all(shuffled, resampler, SilentProgress()) == whole


def test_pairing_by_items_sees_what_the_items_noise_would_hide(tmp_path: Path) -> None:
    """b is wrong where a is, and on eight pictures more: McNemar's exact test says so, two separate intervals not."""
    rng = np.random.default_rng(1)
    a = rng.random(200) < 0.5
    b = a.copy()
    b[np.flatnonzero(a)[:8]] = False
    put_knn(tmp_path, "a", a, a)
    put_knn(tmp_path, "b", b, b)
    found = pair(tmp_path).pairs[0]
    assert (found.verdict, found.difference.how) == ("better", "items")
    mcnemar = stats.binomtest(0, 8).pvalue
    assert found.difference.p is not None
    assert found.difference.p < 0.05
    assert mcnemar < 0.05
    width = np.sqrt(np.mean((a.astype(float) - b - 0.04) ** 2) / 199) * stats.t.ppf(0.975, 199)
    assert found.difference.interval == pytest.approx((4 - 100 * width, 4 + 100 * width), rel=0.15)
    stored, resampler = prepared(tmp_path)
    (column,) = [cell for cell in stored.labels if cell.metric == "knn top-1"]
    ends = [resampler.summary(column, list(stored.scores[name][column].values())).interval for name in "ab"]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0][0] < ends[1][1], "the intervals of the two overlap"


def test_twenty_cells_of_noise_give_no_win(tmp_path: Path) -> None:
    """Each alone would be 'better' with a chance of 5 %; the smallest of these 20 p-values is."""
    rng = np.random.default_rng(0)
    for seed in range(3):
        for name in "ab":
            put(tmp_path, name, {f"m{k:02d}": 0.5 + 0.01 * rng.normal() for k in range(20)}, seed=seed)
    found = pair(tmp_path)
    alone = [p.difference.p for p in found.pairs if p.difference.p is not None]
    assert min(alone) < 0.05
    assert {p.verdict for p in found.pairs} == {"indistinguishable"}
    tempting = min(found.pairs, key=lambda p: p.difference.p or 1)
    assert ", alone p 0.0" in tempting.words(2)


def test_lower_may_be_better(tmp_path: Path) -> None:
    for seed, noise in enumerate((0.0, 0.01, -0.01)):
        for name, value in (("a", 2.0 + noise), ("b", 3.0 - noise)):
            lower = metric("error", value, higher_is_better=False, unit="px")
            put(tmp_path, name, [lower], seed=seed)
    (only,) = pair(tmp_path).pairs
    assert (only.verdict, only.gain) == ("better", pytest.approx(1.0))
    assert only.difference.mean == pytest.approx(-1.0)
    assert only.words(2).startswith("better by 1.00 px (0.95 to 1.05)")
    (other,) = pair(tmp_path, "b", "a").pairs
    assert other.words(2).startswith("worse by 1.00 px (0.95 to 1.05)")
    assert pair(tmp_path).over_datasets is None, "pixels are no points"
    assert [ranking(tmp_path).ranked[name, only.cell].best for name in "ab"] == [1, 2]


def test_one_seed_without_items_is_not_tested(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [0.9])
    seeds(tmp_path, "b", [0.1])
    (only,) = pair(tmp_path).pairs
    assert (only.verdict, only.p) == ("not tested", None)
    assert "not tested: one seed" in only.words(2)
    assert {entry.best for entry in ranking(tmp_path).ranked.values()} == {1}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": {"grid": "matched"}}, "config"),
        ({"dataset_fingerprint": "c" * 64}, "fingerprint"),
        ({"protocol_version": 2}, "version of the probe"),
        ({"metrics": [metric(split="train")]}, "split"),
        ({"metrics": [metric(protocol="another")]}, "protocol"),
        ({"metrics": [metric(unit="px")]}, "unit"),
        ({"metrics": [metric("other")]}, "only"),
        ({"probe": "other"}, "only"),
        ({"seed": 5}, "seeds differ"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_differs_is_never_compared_and_said(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    change = dict(change)
    metrics = change.pop("metrics", [metric(value=0.4)])
    put(tmp_path, "a", {"mIoU": 0.5})
    put(tmp_path, "b", metrics, **change)
    with pytest.raises(RiceError, match=rf"share no cell.*{named}") as caught:
        pair(tmp_path)
    assert "\n" not in str(caught.value)
    for name in "ab":
        put(tmp_path, name, {"shared": 0.5}, dataset_fingerprint="e" * 64)
    found = pair(tmp_path)
    assert [p.cell.metric for p in found.pairs] == ["shared"]
    assert any(named in text for text in found.left_out)
    cells = {cell for _, cell in ranking(tmp_path).ranked}
    assert len(cells) == (2 if named == "seeds differ" else 3)


def test_only_shared_seeds_are_paired_and_the_others_named(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [0.5, 0.6, 0.7])
    seeds(tmp_path, "b", [0.4, 0.52])
    found = pair(tmp_path)
    (only,) = found.pairs
    assert (only.first, only.second) == pytest.approx((55, 46))
    assert only.difference.seeds == 2
    assert found.left_out == ["fake / scenes / mIoU: not all seeds are shared (0, 1, 2 and 0, 1)"]


def test_datasets_are_counted_once_however_many_metrics_they_have(tmp_path: Path) -> None:
    gains = [0.01, 0.02, -0.005, 0.03, 0.015, 0.04, 0.025]
    for k, gain in enumerate(gains):
        where = {"dataset": f"d{k}", "dataset_fingerprint": f"{k:064d}"}
        put(tmp_path, "a", {"x": 0.5 + gain, "y": 0.5 + 2 * gain, "z": 0.5}, **where)
        put(tmp_path, "b", {"x": 0.5, "y": 0.5, "z": 0.5}, **where)
    over = pair(tmp_path).over_datasets
    assert over is not None
    assert (over.wins, over.losses, over.mean) == (6, 1, pytest.approx(100 * float(np.mean(gains))))
    assert over.wilcoxon == pytest.approx(stats.wilcoxon(gains).pvalue)
    assert over.sign == pytest.approx(2 * (1 + 7) / 2**7)


def test_ranks_are_shared_by_what_noise_cannot_tell_apart(tmp_path: Path) -> None:
    seeds(clear(tmp_path), "0 worst", [0.3, 0.302, 0.297])
    found = ranking(tmp_path)
    ranks = {(name, cell.metric): (entry.best, entry.worst) for (name, cell), entry in found.ranked.items()}
    assert [ranks[name, "mIoU"] for name in ("a", "b", "c", "0 worst")] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert {ranks[name, "accuracy"] for name in "abc"} == {(1, 3)}
    assert found.encoders[0] == "a"
    assert found.mean_ranks is not None
    assert found.mean_ranks.datasets == 1


def test_mean_ranks_are_over_what_all_encoders_have(tmp_path: Path) -> None:
    clear(tmp_path)
    put(tmp_path, "c", {"extra": 0.5})
    found = ranking(tmp_path)
    assert (len(found.columns), len(found.complete)) == (3, 2)
    put(tmp_path, "d", {"elsewhere": 0.5}, probe="other")
    assert ranking(tmp_path).mean_ranks is None


def test_one_name_for_several_encoders_is_told_apart(tmp_path: Path) -> None:
    put(tmp_path, "a", {"mIoU": 0.5}, size=224)
    put(tmp_path, "a", {"mIoU": 0.6}, size=448)
    put(tmp_path, "b", {"mIoU": 0.6}, layer=-1)
    put(tmp_path, "b", {"mIoU": 0.6}, layer=-2)
    put(tmp_path, "c", {"mIoU": 0.6})
    put(tmp_path, "c", {"mIoU": 0.6}, encoder_fingerprint="0123456789" * 6)
    put(tmp_path, "d", {"mIoU": 0.6}, size=64)
    put(tmp_path, "d", {"knn": 0.6}, size=128, probe="other")
    labels = set(measured(load(tmp_path)).scores)
    assert {"a@224", "a@448", "b,layer=-1", "b,layer=-2", "c [01234567]", "d"} < labels
    assert len(labels) == 7
    with pytest.raises(RiceError, match="It is several here: a@224, a@448"):
        compare(tmp_path, ("a", "d"))


def test_cells_of_one_name_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path, "a", [metric(split="val"), metric(split="test")])
    put(tmp_path, "a", [metric(split="val")], config={"grid": "matched"})
    put(tmp_path, "a", [metric("acc")], dataset_fingerprint="1" * 64)
    put(tmp_path, "a", [metric("acc", protocol="other")], protocol_version=2)
    labels = list(measured(load(tmp_path)).labels.values())
    assert len(set(labels)) == len(labels) == 5
    assert ("fake", "scenes", "mIoU (val) (grid=matched)") in labels


def test_names_are_checked_and_the_nearest_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear(tmp_path)
    put(tmp_path, "dinov2-b14", {"mIoU": 0.5})
    with pytest.raises(RiceError, match=r"no encoder 'dinov2-b41'.*Did you mean dinov2-b14\?"):
        compare(tmp_path, ("a", "dinov2-b41"))
    with pytest.raises(RiceError, match="expected two encoders"):
        compare(tmp_path, ("a",))
    with pytest.raises(RiceError, match="two different encoders, got a twice"):
        compare(tmp_path, ("a", "a"))
    with pytest.raises(RiceError, match="a seed of at least 0, got -1"):
        compare(tmp_path, seed=-1)
    with pytest.raises(RiceError, match=r"no metric 'mIuO'.*Did you mean mIoU\?"):
        compare(tmp_path, metrics=("mIuO",))
    with pytest.raises(RiceError, match="found none"):
        (tmp_path / "empty/results").mkdir(parents=True)
        compare(tmp_path / "empty")
    assert said(capsys, tmp_path, ("a", "c (untrained)")) == said(capsys, tmp_path, ("a", "c"))


def test_files_that_are_no_results_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = said(capsys, clear(tmp_path))
    (tmp_path / "results/stray.json").write_text("{}")
    compare(tmp_path, resamples=200)
    printed = capsys.readouterr()
    assert printed.out == before
    assert "stray.json: is not a result of rice sweep" in printed.err


def test_fewer_metrics_are_corrected_for_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear(tmp_path)
    both = json.loads(said(capsys, tmp_path, ("a", "b"), json=True))["cells"]
    (one,) = json.loads(said(capsys, tmp_path, ("a", "b"), json=True, metrics=("mIoU",)))["cells"]
    assert [cell["metric"] for cell in both] == ["accuracy", "mIoU"]
    assert both[1]["p_holm"] == pytest.approx(2 * one["p_holm"])
    assert one["p_holm"] == one["p"]


def test_markdown_says_it_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, clear(tmp_path), ("a", "b"))
    assert "better by 10.00 points (9.50 to 10.50), p < 0.001" in text
    assert "a against b in 2 shared cells: 1 better, 1 indistinguishable." in text
    assert "too few for a test over datasets" in text
    assert "**80.00**" in text
    table = said(capsys, tmp_path)
    assert "**80.00 ± 0.10 (1)**" in table
    assert "c (untrained)" in table
    assert "(1-3)" in table


def test_csv_has_plain_numbers_and_json_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear(tmp_path)
    rows = list(csv.DictReader(io.StringIO(said(capsys, tmp_path, ("b", "a"), format="csv"))))
    cells = json.loads(said(capsys, tmp_path, ("b", "a"), json=True))["cells"]
    for row, cell in zip(rows, cells, strict=True):
        for column in ("difference", "low", "high", "p", "p_holm"):
            assert float(row[column]) == cell[column]
        assert (float(row["b"]), float(row["a"])) == (cell["first"], cell["second"])
        assert (row["verdict"], row["how"]) == (cell["verdict"], cell["how"])
    assert [row["verdict"] for row in rows] == ["indistinguishable", "worse"]
    table = pd.read_csv(io.StringIO(said(capsys, tmp_path, format="csv"))).set_index("encoder")
    document = json.loads(said(capsys, tmp_path, json=True))
    for column in document["columns"]:
        for name, entry in column["encoders"].items():
            shown = f"{name} (untrained)" if name == "c" else name
            title = f"fake / scenes / {column['metric']}"
            assert table.loc[shown, f"{title} mean"] == entry["mean"]
            assert table.loc[shown, f"{title} worst rank"] == entry["worst_rank"]
            assert table.loc[shown, f"{title} high"] == pytest.approx(entry["high"] or math.nan, nan_ok=True)
    assert document["mean_ranks"]["encoders"]["a"]["mean"] == pytest.approx(table.loc["a", "mean rank"])


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


@pytest.mark.parametrize("names", [(), ("a & b_", "c")])
def test_names_cannot_break_a_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    for encoder, value in (("a & b_", 0.5), ("c", 0.6)):
        seeds(tmp_path, encoder, [value, value + 0.01], dataset="100 % | b < c")
    page = Tags()
    page.feed(said(capsys, tmp_path, names, format="html"))
    assert set(page.tags) <= {"style", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "b"}
    latex = said(capsys, tmp_path, names, format="latex")
    assert r"a \& b\_" in latex
    assert r"100 \%" in latex
    lines = [line for line in said(capsys, tmp_path, names).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_out_holds_what_would_be_printed_and_errors_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = said(capsys, clear(tmp_path), ("a", "b"))
    assert said(capsys, tmp_path, ("a", "b"), out=tmp_path / "new/it.md") == f"wrote {tmp_path / 'new/it.md'}\n"
    assert (tmp_path / "new/it.md").read_text() == printed
    with pytest.raises(RiceError):
        compare(tmp_path, ("a", "z"), out=tmp_path / "none.md")
    assert not (tmp_path / "none.md").exists()


def test_the_seed_of_the_bootstrap_decides_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    for name in "ab":
        put_knn(tmp_path, name, rng.random(50) < 0.6, rng.random(50) < 0.6)
    texts = [said(capsys, tmp_path, ("a", "b"), json=True, seed=seed) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_the_command_line_takes_names_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tyro

    clear(tmp_path)
    tyro.cli(compare, args=[str(tmp_path), "a", "b", "--metrics", "mIoU", "--json", "--resamples", "200"])
    assert json.loads(capsys.readouterr().out)["cells"][0]["verdict"] == "better"
    tyro.cli(compare, args=[str(tmp_path)])
    assert "mean rank" in capsys.readouterr().out
