"""Tables: nothing is mixed, nothing is lost, and each format is what its reader expects."""

import csv
import io
import itertools
import json
import re
import statistics
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.formats import write_table
from reports.grid import BEST, EMPTY, OTHER, SECOND
from reports.tables import build

BASE = {
    "key": "k" * 64,
    "encoder": "a",
    "encoder_fingerprint": "f" * 64,
    "trained": True,
    "probe": "dense",
    "dataset": "scenes",
    "dataset_fingerprint": "d" * 64,
    "metric": "miou",
    "value": 1.0,
    "n": 100,
    "unit": "%",
    "higher_is_better": True,
    "split": "val",
    "stderr": None,
    "protocol": "linear",
    "protocol_version": 1,
    "seed": 0,
    "size": 224,
    "layer": -1,
    "norm": "none",
    "tokens": 196,
    "gflops": 1.5,
    "images_per_s": 10.0,
    "seconds": 3.0,
    "config": json.dumps({"grid": "native", "epochs": 5}),
    "device": "cpu",
}
KEYS = (["encoder"], ["probe", "dataset", "metric"])


def frame(*rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([BASE | row for row in rows])


def test_cell_is_mean_and_sample_deviation_over_seeds() -> None:
    values = [41.0, 43.5, 40.25]
    table = build(frame(*({"value": v, "seed": s} for s, v in enumerate(values))), *KEYS)
    cell = table.cells[("a",), ("dense", "scenes", "miou")]
    assert cell.score.mean == pytest.approx(statistics.mean(values))
    assert cell.score.spread == pytest.approx(statistics.stdev(values))
    assert cell.score.seeds == 3


def test_one_seed_has_no_spread() -> None:
    table = build(frame({}), *KEYS)
    assert next(iter(table.cells.values())).score.spread is None
    assert "±" not in write_table(table, "markdown", 2).splitlines()[2]


@pytest.mark.parametrize(
    "change",
    [
        {"config": json.dumps({"grid": "matched", "epochs": 5})},
        {"config": json.dumps({"grid": "native", "epochs": "5"})},
        {"encoder_fingerprint": "e" * 64},
        {"dataset_fingerprint": "c" * 64},
        {"protocol_version": 2},
        {"protocol": "another"},
        {"size": 512},
        {"layer": -2},
        {"split": "train"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_results_that_differ_in_more_than_the_seed_are_never_averaged(change: dict[str, object]) -> None:
    table = build(frame({"value": 1.0}, {"value": 3.0} | change), *KEYS)
    assert sorted(cell.score.mean for cell in table.cells.values()) == [1.0, 3.0]
    assert any(note.startswith("Split by") for note in table.notes)


def test_fractions_are_shown_in_percent_and_nothing_else_is_scaled() -> None:
    rows = ({"value": 0.25, "unit": "fraction"}, {"value": 0.25, "unit": "px", "metric": "error"})
    table = build(frame(*rows), *KEYS)
    assert {column[2]: cell.score.mean for (_, column), cell in table.cells.items()} == {"miou": 25.0, "error": 0.25}


def test_lower_is_better_turns_the_ranking() -> None:
    rows = (
        {"encoder": name, "value": value, "higher_is_better": False}
        for name, value in zip("abc", (3, 1, 2), strict=True)
    )
    table = build(frame(*rows), *KEYS)
    assert {row[0]: cell.rank for (row, _), cell in table.cells.items()} == {"a": 2, "b": 0, "c": 1}


@settings(max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=6))
def test_best_and_second_are_the_largest_distinct_values(values: list[int]) -> None:
    table = build(frame(*({"encoder": f"e{i}", "value": float(v)} for i, v in enumerate(values))), *KEYS)
    distinct = sorted(set(values), reverse=True)
    for (row, _), cell in table.cells.items():
        assert cell.rank == min(distinct.index(values[int(row[0][1:])]), 2)


def test_what_reads_the_same_is_equally_good() -> None:
    rows = frame({"encoder": "a", "value": 3.1149}, {"encoder": "b", "value": 3.1051}, {"encoder": "c", "value": 3.09})
    ranks = {decimals: [c.rank for c in build(rows, *KEYS, (), decimals).cells.values()] for decimals in (2, 3)}
    assert ranks == {2: [0, 0, 1], 3: [0, 1, 2]}


def test_a_run_over_some_of_the_items_is_shown_but_not_ranked() -> None:
    values = {"whole": (1.0, 100), "limited": (9.0, 16), "other": (2.0, 100), "unknown": (0.5, 0)}
    rows = [{"encoder": name, "value": value, "n": n} for name, (value, n) in values.items()]
    table = build(frame(*rows), *KEYS)
    assert {row[0]: cell.rank for (row, _), cell in table.cells.items()} == {
        "whole": SECOND,
        "limited": OTHER,
        "other": BEST,
        "unknown": OTHER,
    }
    assert table.notes[-1] == "limited, dense / scenes / miou: n = 16 of 100, not ranked."


def test_columns_of_one_protocol_share_a_note() -> None:
    rows = [{"metric": "a"}, {"metric": "b"}, {"metric": "c", "protocol": "another"}]
    notes = build(frame(*rows), *KEYS).notes
    assert notes[:2] == [
        "dense / scenes / a; dense / scenes / b: n = 100, %, split val; linear",
        "dense / scenes / c: n = 100, %, split val; another",
    ]


def test_absent_cells_stay_visibly_empty_in_every_format() -> None:
    table = build(frame({"encoder": "a"}, {"encoder": "b", "dataset": "coco"}), *KEYS)
    assert len(table.cells) == 2
    for name in ("markdown", "latex", "html"):
        text = write_table(table, name, 2)
        assert (
            len(re.findall(rf"(?<![\w-]){EMPTY}(?![\w-])", text.split("tabular")[1] if name == "latex" else text)) >= 2
        )
    rows = list(csv.reader(io.StringIO(write_table(table, "csv", 2))))
    assert [line.count("") for line in rows[1:]] == [3, 3]  # an absent mean and std, and the std of a single seed


def test_untrained_encoders_are_labelled() -> None:
    table = build(frame({"trained": False}), *KEYS)
    assert table.rows == [("a (untrained)",)]
    table = build(frame({"trained": False, "encoder": "ViT, untrained"}), *KEYS)
    assert table.rows == [("ViT, untrained",)]


def test_rows_are_in_natural_order() -> None:
    table = build(frame({"layer": 10}, {"layer": 9}), ["encoder", "layer"], ["metric"])
    assert [row[1] for row in table.rows] == ["9", "10"]


def test_cells_with_fewer_seeds_are_named() -> None:
    table = build(frame({"seed": 0}, {"seed": 1}, {"encoder": "b"}), *KEYS)
    assert any(note.startswith("b, ") and "1 of 2 seeds" in note for note in table.notes)


def test_csv_keeps_full_precision() -> None:
    value = 1 / 3
    rows = list(csv.DictReader(io.StringIO(write_table(build(frame({"value": value}), *KEYS), "csv", 2))))
    assert float(rows[0]["dense / scenes / miou mean"]) == value


class Cells(HTMLParser):
    """Counts cells, spans included, of each row of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append(0)
        elif tag in ("td", "th"):
            self.rows[-1] += int(dict(attrs).get("colspan") or 1)


def test_html_rows_have_equal_width_and_labels_cannot_inject_markup() -> None:
    rows = [{"encoder": e, "dataset": d} for e, d in itertools.product(("<script>x", "b&"), ("coco", "lvis"))]
    parser = Cells()
    parser.feed(write_table(build(frame(*rows), *KEYS, ["tokens"]), "html", 2))
    assert set(parser.rows) == {4}
    assert "script" not in parser.tags


def test_latex_escapes_labels_and_has_the_right_number_of_columns() -> None:
    text = write_table(build(frame({"encoder": "vit_b&16 100%"}, {"encoder": "c", "value": 2.0}), *KEYS), "latex", 2)
    assert r"vit\_b\&16 100\%" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {1}
    assert r"\textbf{2.00}" in text
    assert r"\underline{1.00}" in text


def test_markdown_rows_have_equal_width() -> None:
    table = build(frame({"encoder": "a|b"}, {"encoder": "c", "dataset": "lvis"}), *KEYS, ["tokens", "gflops"])
    lines = [line for line in write_table(table, "markdown", 2).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_what_is_done_for_all_metrics_alike_is_said_once() -> None:
    shared = "frozen tokens; " * 20 + "tested once"
    rows = [{"metric": name, "protocol": f"{name} over classes; {shared}"} for name in "ab"]
    rows += [{"metric": "c", "protocol": "c over classes; otherwise done"}]
    assert build(frame(*rows), *KEYS).notes[:3] == [
        f"dense / scenes / a: n = 100, %, split val; a over classes; {shared}",
        "dense / scenes / b: n = 100, %, split val; b over classes; the rest as dense / scenes / a",
        "dense / scenes / c: n = 100, %, split val; c over classes; otherwise done",
    ]


def test_only_what_has_one_name_is_ranked() -> None:
    rows = [{"metric": metric, "encoder": encoder} for metric in ("miou", "accuracy") for encoder in "ab"]
    table = build(frame(*rows), ["metric"], ["encoder"])
    assert {cell.rank for cell in table.cells.values()} == {OTHER}
    rows = [
        {"dataset": dataset, "encoder": encoder, "value": value + (encoder == "a")}
        for dataset, value in (("easy", 90.0), ("hard", 10.0))
        for encoder in "ab"
    ]
    table = build(frame(*rows), ["dataset", "encoder"], ["metric"])
    assert {row: cell.rank for (row, _), cell in table.cells.items()} == {
        (dataset, encoder): BEST if encoder == "a" else SECOND for dataset in ("easy", "hard") for encoder in "ab"
    }
