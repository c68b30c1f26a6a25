"""The tables hold the store's numbers, make the best of a block bold, and read alike in all formats."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_up import PROBES, percent, put_all, put_arm
from stored_results import metric, put

from probes.results import load
from reports.compare.resample import Resampler
from reports.formats import Table
from reports.grid import BEST, SUFFIXES
from reports.miniature.claims import CLAIMS, NAMES
from reports.miniature.scores import Scores, scores_of
from reports.miniature.tables import CAPTION, MEASURES, TITLES, arms_table, write_arms, write_claims
from reports.miniature.verdict import Judged, judge
from rice.progress import SilentProgress

UPDATES, TIME = TITLES.values()


def stored(folder: Path) -> Scores:
    return scores_of(load(folder))


def judged(scores: Scores) -> list[Judged]:
    return judge(scores, Resampler(Path("nowhere")), SilentProgress())


def bold(table: Table, block: str, label: tuple[str, str]) -> list[str]:
    return [row[1] for row in table.rows if row[0] == block and table.cells[row, label].rank == BEST]


def test_a_cell_is_the_mean_and_deviation_over_pretrainings_of_what_is_stored(tmp_path: Path) -> None:
    table = arms_table(stored(put_all(tmp_path)))
    assert [row for row in table.rows if row[0] == UPDATES] == [(UPDATES, name) for name in NAMES.values()]
    assert table.columns == [(group, head) for group, measures in MEASURES.items() for head in measures.values()]
    for (_, name), (group, head) in table.cells:
        arm = next(arm for arm, own in NAMES.items() if own == name)
        metric = next(metric for (_, metric), own in MEASURES[group].items() if own == head)
        values = [percent(arm, seed, metric) for seed in range(3)]
        score = table.cells[(UPDATES, name), (group, head)].score
        assert score.mean == pytest.approx(np.mean(values))
        assert score.spread == pytest.approx(np.std(values, ddof=1))
        assert score.seeds == 3


def test_seeds_of_a_probe_are_no_part_of_the_spread(tmp_path: Path) -> None:
    for pretraining, values in enumerate(((10, 20), (30, 40), (50, 60))):
        for seed, value in enumerate(values):
            put_arm(tmp_path, f"rice s{pretraining}", {"mIoU": value}, "dense", seed=seed)
    score = arms_table(stored(tmp_path)).cells[(UPDATES, NAMES["rice"]), ("Dense", "mIoU")].score
    assert (score.mean, score.spread, score.seeds) == (pytest.approx(35), pytest.approx(20), 3)


def test_the_best_method_of_a_block_is_bold_and_the_oracle_never(tmp_path: Path) -> None:
    put_all(tmp_path, ("mlcd", "unicom", "oracle", "random"), seeds=1)
    for arm, value in (("rice", 60.21), ("rice-noocr", 60.24), ("clip", 60.16)):
        put_arm(tmp_path, f"{arm} s0", {"mIoU": value}, "dense")
    put_arm(tmp_path, "clip time s0", {"mIoU": 60.3}, "dense")
    table, label = arms_table(stored(tmp_path)), ("Dense", "mIoU")
    oracle = table.cells[(UPDATES, NAMES["oracle"]), label]
    assert oracle.score.mean == max(cell.score.mean for (_, column), cell in table.cells.items() if column == label)
    assert bold(table, UPDATES, label) == [NAMES["rice"], NAMES["rice-noocr"], NAMES["clip"]]  # all read 60.2
    assert bold(table, TIME, label) == [NAMES["clip"]]
    assert not [row for row, _ in table.cells if row[1] in (NAMES["oracle"], NAMES["random"]) and row[0] == TIME]


def test_a_method_alone_is_not_the_best(tmp_path: Path) -> None:
    put_all(tmp_path, ("rice", "oracle", "random"))
    assert {cell.rank for cell in arms_table(stored(tmp_path)).cells.values()} & {BEST} == set()


def test_where_less_is_better_the_least_is_bold(tmp_path: Path) -> None:
    for arm, value in (("rice", 0.2), ("mlcd", 0.1)):
        put(tmp_path, f"{arm} s0", [metric(value=value, higher_is_better=False)], probe="dense")
    assert bold(arms_table(stored(tmp_path)), UPDATES, ("Dense", "mIoU")) == [NAMES["mlcd"]]


def test_equal_time_has_the_yardsticks_own_scores_and_is_left_out_where_nothing_was_trained_for_it(
    tmp_path: Path,
) -> None:
    table = arms_table(stored(put_all(tmp_path, ("rice", "mlcd"), time=("mlcd",))))
    assert [row[1] for row in table.rows if row[0] == TIME] == [NAMES["rice"], NAMES["mlcd"]]
    for column in table.columns:
        ours = [table.cells[(block, NAMES["rice"]), column] for block in (UPDATES, TIME)]
        assert ours[0].score == ours[1].score
        theirs = [table.cells[(block, NAMES["mlcd"]), column].score.mean for block in (UPDATES, TIME)]
        assert theirs[0] - theirs[1] == pytest.approx(0.5)
    table = arms_table(stored(put_all(tmp_path / "without", ("rice", "mlcd"))))
    assert {row[0] for row in table.rows} == {UPDATES}
    assert not any("Equal time" in note for note in table.notes)


def test_what_was_not_measured_stays_empty_and_fewer_seeds_are_named(tmp_path: Path) -> None:
    put_all(tmp_path, ("rice",))
    put_all(tmp_path, ("mlcd",), seeds=2)
    put_arm(tmp_path, "clip s0", {"mIoU": 1}, "dense")
    put_arm(tmp_path, "stranger", {"mIoU": 1}, "dense")
    table = arms_table(stored(tmp_path))
    text = write_arms(table, "markdown")
    line = next(line for line in text.splitlines() if line.startswith("| CLIP"))
    assert line.count(" - |") == len(table.columns) - 1
    assert f"{NAMES['mlcd']} (Equal updates), Dense / mIoU: 2 of 3 pretraining seeds." in table.notes
    assert "Not shown, since they are no arms: stranger." in table.notes


def test_several_datasets_are_columns_each_and_named(tmp_path: Path) -> None:
    put_all(tmp_path, ("rice", "mlcd"))
    put_arm(tmp_path, "rice s0", {"box AP": 7}, "detection", dataset="bccd", dataset_fingerprint="c" * 64)
    table = arms_table(stored(tmp_path))
    heads = [head for group, head in table.columns if group == "Detection"]
    assert heads == ["Det AP (bccd)", "Det AP (detection data)", "Seg AP"]
    assert table.cells[(UPDATES, NAMES["rice"]), ("Detection", "Det AP (bccd)")].score.mean == pytest.approx(7)
    assert ((UPDATES, NAMES["mlcd"]), ("Detection", "Det AP (bccd)")) not in table.cells


def test_csv_keeps_full_precision(tmp_path: Path) -> None:
    put_arm(tmp_path, "rice s0", {"mIoU": 100 / 3}, "dense")
    put_arm(tmp_path, "rice s1", {"mIoU": 200 / 3}, "dense")
    scores = stored(tmp_path)
    (row,) = csv.DictReader(io.StringIO(write_arms(arms_table(scores), "csv")))
    assert float(row["Dense / mIoU mean"]) == pytest.approx(50, rel=1e-12)
    assert float(row["Dense / mIoU std"]) == pytest.approx(100 / 3 / 2**0.5, rel=1e-12)
    assert row["Detection / Det AP mean"] == ""


def test_the_claims_csv_holds_the_verdicts(tmp_path: Path) -> None:
    found = judged(stored(put_all(tmp_path, ("rice", "mlcd", "unicom"))))
    rows = list(csv.DictReader(io.StringIO(write_claims(found, [], "csv"))))
    assert [row["id"] for row in rows] == [claim.id for claim in CLAIMS]
    for row, one in zip(rows, found, strict=True):
        assert row["verdict"] == one.words
        assert (
            [row["low"], row["high"]] == ["", ""]
            if one.interval is None
            else one.interval
            == (
                float(row["low"]),
                float(row["high"]),
            )
        )
        assert bool(row["missing"]) == (one.verdict == "not measured")


class Tags(HTMLParser):
    """Which tags there are, and cells by row, spans included."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append(0)
        elif tag in ("td", "th"):
            self.rows[-1] += int(dict(attrs).get("colspan") or 1)


def test_every_format_holds_every_cell_and_no_text_becomes_markup(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> & 100% | $x_1$"
    put_all(tmp_path, ("rice", "mlcd"))
    for arm in ("rice", "mlcd"):
        put(tmp_path, f"{arm} s0", [metric("box AP", protocol=hostile)], probe="detection", dataset="a|b & c_d")
    scores = stored(tmp_path)
    table, found = arms_table(scores), judged(scores)
    for form in SUFFIXES:
        for text in (write_arms(table, form), write_claims(found, [hostile], form)):
            assert text.strip()
            if form == "html":
                tags = Tags()
                tags.feed(text)
                assert "script" not in tags.tags
                assert len(set(tags.rows)) == 1
            if form == "markdown":
                lines = [line for line in text.splitlines() if line.startswith("|")]
                assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
            if form == "latex":
                body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
                assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1
                assert r"100\% | \$x\_1\$" in text
    for cell in table.cells.values():
        assert cell.score.text(1) in write_arms(table, "html")
    assert CAPTION in write_arms(table, "markdown")


def test_the_made_up_store_has_what_the_claims_ask_for() -> None:
    assert all(claim.metric in PROBES[claim.probe] for claim in CLAIMS)
