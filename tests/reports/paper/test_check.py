"""The checker finds what does not add up in the paper, all of it and nothing else, and in any other table."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reports.paper.check import check
from reports.paper.printed import TABLES, Row, paper
from reports.paper.rules import averages, derived, gain_of

# Table 1's Other Avg by its caption's rule (MME^Cog / 8), from the printed cells with a calculator, in printed order.
BY_CAPTION = [67.54, 69.73, 68.29, 70.43, 66.73, 66.43, 68.42, 69.50, 70.07, 71.05, 72.54, 70.79, 72.66, 76.93]
BY_SIX_WITHIN = {"SigLIPv2 ViT-SO400M-14-384px Qwen2.5-7B", "RICE ViT-L-14-378px Qwen2.5-7B"}


def test_fifteen_cells_of_the_paper_do_not_reproduce() -> None:
    found = {table: check(paper(table), table) for table in TABLES}
    wrong = [(m.table, m.column) for result in found.values() for m in result.mismatches]
    assert wrong == [("1", "Other Avg")] * 14 + [("3", "AVG")]
    assert not any(result.unknown for result in found.values())


def test_other_avg_of_table_1_fits_a_sixth_of_mme_cognition() -> None:
    mismatches = check(paper("1"), "1").mismatches
    assert [round(m.recomputed, 2) for m in mismatches] == BY_CAPTION
    assert all("MME^Cog/8" in m.rule and "MME^Cog/6" in str(m.rule_that_fits) for m in mismatches)
    assert {m.row for m in mismatches if "within 0.02" in str(m.rule_that_fits)} == BY_SIX_WITHIN


def test_the_average_of_table_3_may_be_of_cells_before_rounding() -> None:
    (mismatch,) = check(paper("3"), "3").mismatches
    assert mismatch.row == "SigLIP ViT-B/16 512"
    assert (mismatch.printed, round(mismatch.recomputed, 2)) == (24.1, 24.04)
    assert "before they were rounded" in str(mismatch.rule_that_fits)


def test_every_derived_cell_is_recomputed() -> None:
    # 14 rows x 2 averages + 4 arrow rows x 16; 3 arrow rows x (8 + Avg); 4 averages.
    assert [check(paper(t), t).cells for t in ("1", "2", "3", "4")] == [28 + 64, 27, 4, 0]


def test_arrow_rows_of_the_paper_name_the_rows_that_they_compare() -> None:
    rows = paper("1")
    named = {row.line: gain_of(row, rows) for row in rows if row.is_gain}
    assert {line: (g.gained.line, g.base.line) for line, g in named.items() if g} == {
        6: (5, 4), 12: (11, 10), 16: (15, 13), 20: (19, 18),
    }  # fmt: skip


scores = st.integers(0, 1000).map(lambda n: n / 10)


@given(st.lists(st.lists(scores, min_size=3, max_size=3), min_size=2, max_size=5), st.integers(1, 50))
def test_a_table_that_adds_up_passes_and_a_changed_cell_is_found(cells: list[list[float]], change: int) -> None:
    def table(shift: float) -> list[Row]:
        rows = []
        for line, values in enumerate(cells, start=1):
            mean = sum(values) / 3 + (shift if line == 1 else 0.0)
            named = dict(zip(("a", "b", "c"), (f"{v:.1f}" for v in values), strict=True))
            rows.append(Row(line=line, method=f"m{line}", cells=named | {"Avg": f"{mean:.2f}"}))
        first, second = rows[0].cells, rows[1].cells
        gains = {c: f"{float(first[c]) - float(second[c]):+.2f}" for c in first}
        return [*rows, Row(line=len(rows) + 1, method="↑ m1 vs m2", cells=gains)]

    assert check(table(0.0), "t").mismatches == []
    shift = change / 50
    assume(f"{sum(cells[0]) / 3 + shift:.2f}" != f"{sum(cells[0]) / 3:.2f}")
    assert [(m.row, m.column) for m in check(table(shift), "t").mismatches] == [("m1", "Avg")]


def test_a_wrong_difference_names_the_row_that_was_subtracted() -> None:
    rows = [
        Row(line=1, method="clip", cells={"a": "10.0", "b": "20.0"}),
        Row(line=2, method="dino", cells={"a": "12.0", "b": "25.0"}),
        Row(line=3, method="ours", cells={"a": "15.0", "b": "30.0"}),
        Row(line=4, method="↑ Improvement over clip", cells={"a": "+3.0", "b": "+5.0"}),
    ]
    mismatches = check(rows, "t").mismatches
    assert [(m.printed, m.recomputed) for m in mismatches] == [(3.0, 5.0), (5.0, 10.0)]
    assert {m.rule_that_fits for m in mismatches} == {"ours minus dino"}


def test_a_gain_over_a_row_that_is_not_there_is_said_not_guessed() -> None:
    rows = [Row(line=1, method="ours", cells={"a": "1"}), Row(line=2, method="↑ ours vs nobody", cells={"a": "+1"})]
    result = check(rows, "t")
    assert (result.cells, result.unknown) == (0, ["↑ ours vs nobody"])
    rows += [Row(line=3, method="theirs", cells={"a": "2"}), Row(line=4, method="↑ theirs vs ours", cells={"a": "+1"})]
    result = check(rows, "t")
    assert (result.cells, result.unknown, result.mismatches) == (1, ["↑ ours vs nobody"], [])


def test_an_average_is_of_the_columns_since_the_one_before() -> None:
    rows = [Row(line=1, method="m", cells={"a": "1", "Mean": "1", "b": "2", "c": "4", "Total Avg": "3"})]
    assert {rule.column: list(rule.of) for rule in averages(rows)} == {"Mean": ["a"], "Total Avg": ["b", "c"]}


@pytest.mark.parametrize("table", TABLES)
def test_recomputed_cells_reproduce_where_the_checker_says_so(table: str) -> None:
    rows = paper(table)
    wrong = {(m.row, m.column) for m in check(rows, table).mismatches}
    by_line = {row.line: row for row in rows}
    for (line, column), value in derived(rows).items():
        row = by_line[line]
        if not row.is_gain and (row.label, column) not in wrong:
            digits = len(row.cells[column].partition(".")[2])
            assert abs(value - float(row.cells[column])) <= 0.5 * 10**-digits + 1e-9


def lines(*rows: dict[str, str], block: str = "") -> list[Row]:
    """Rows of a table: the entry 'm' is the method, the others are cells."""
    return [
        Row(line=k, block=block, method=row.get("m", f"m{k}"), cells={c: text for c, text in row.items() if c != "m"})
        for k, row in enumerate(rows, start=1)
    ]


@pytest.mark.parametrize(
    ("table", "parts"),
    [("1", {"OCR Avg": (0, 7), "Other Avg": (8, 15)}), ("2", {"Avg": (0, 8)}), ("3", {"AVG": (4, 11)})],
)
def test_the_papers_averages_are_known_whatever_the_order_of_columns(
    table: str, parts: dict[str, tuple[int, int]]
) -> None:
    caption = {"OCRBench": 10, "MME^Cog": 8, "MME^Per": 20}
    names = list(dict.fromkeys(column for row in paper(table) for column in row.cells))
    expected = {average: {name: caption.get(name, 1) for name in names[a:b]} for average, (a, b) in parts.items()}
    backwards = [Row(line=1, cells=dict.fromkeys(reversed(names), "1"))]
    assert {rule.column: dict(rule.of) for rule in averages(backwards)} == expected
    alone = [name for average, of in expected.items() for name in (average, *of)]
    assert {rule.column: dict(rule.of) for rule in averages(lines(dict.fromkeys(alone, "1")))} == expected


def test_an_average_has_the_name_of_one_and_columns_before_it() -> None:
    first = dict.fromkeys(("Avg", "a", "Averages", "MEAN."), "1")
    second = dict.fromkeys(("b", "my average", "mean", "avg of b"), "1")
    found = averages(lines(first, second))
    assert {rule.column: list(rule.of) for rule in found} == {"MEAN.": ["a", "Averages"], "my average": ["b"]}


def test_a_rule_names_its_columns_and_what_they_are_divided_by() -> None:
    (rule,) = averages(lines({"a": "1", "MME^Cog": "8", "Avg": "1"}))
    assert str(rule) == "mean of a, MME^Cog/8"
    assert rule.recompute({"a": 1.0, "MME^Cog": 8.0}) == 1.0
    assert rule.recompute({"a": 1.0, "other": 8.0}) is None


def test_an_arrow_row_means_the_nearest_rows_above_in_its_block() -> None:
    named = [
        ("A", "ours", ""), ("A", "clip", ""), ("B", "clip", "336"), ("B", "clip", "224"), ("B", "ours", "336"),
        ("B", "↑ ours vs. clip (a remark)", ""), ("B", "↑ Improvement over clip", ""), ("B", "↑ clip vs ours", ""),
        ("B", "↑ ours-336px vs clip-336px", ""), ("B", "↑ ours-224px vs clip", ""), ("B", "↑ ours vs ours", ""),
        ("B", "↑ better", ""), ("C", "↑ Improvement over clip", ""), ("B", "clip", "560"), ("C", "clip", ""),
    ]  # fmt: skip
    rows = [Row(line=k, block=b, method=m, resolution=r) for k, (b, m, r) in enumerate(named, start=1)]
    meant = {row.line: gain_of(row, rows) for row in rows if row.is_gain}
    lines_of = {line: None if gain is None else (gain.gained.line, gain.base.line) for line, gain in meant.items()}
    assert lines_of == {
        6: (5, 4), 7: (5, 4), 8: (4, 5), 9: (5, 3), 10: None, 11: None, 12: None, 13: None,
    }  # fmt: skip
    assert str(meant[6]) == "ours 336 minus clip 224"


def test_derived_cells_are_means_differences_and_differences_of_recomputed_means() -> None:
    rows = lines(
        {"a": "10", "b": "20", "Avg": "15.0"},
        {"a": "13", "b": "25", "Avg": "18.0"},
        {"m": "↑ m2 vs m1", "a": "+3", "b": "+5", "Avg": "+3.0"},
    )
    means = {(1, "Avg"): 15.0, (2, "Avg"): 19.0}
    assert derived(rows) == means | {(3, "a"): 3.0, (3, "b"): 5.0, (3, "Avg"): 4.0}
    assert derived(rows[:2]) == means
    assert derived([*rows[:2], Row(line=3, method="↑ m2 vs nobody", cells=rows[2].cells)]) == means


def test_the_average_of_differences_is_derived_where_no_row_has_an_average() -> None:
    gain = {"m": "↑ m2 vs m1", "a": "+3", "b": "+5", "Avg": "+4.0"}
    scores = {"a": "10", "b": "20"}, {"a": "13", "b": "25"}
    assert derived(lines(*scores, gain)) == {(3, "a"): 3.0, (3, "b"): 5.0, (3, "Avg"): 4.0}
    found = check(lines(*scores, gain | {"Avg": "+5.0"}), "t")
    assert (found.cells, [(m.column, m.recomputed) for m in found.mismatches]) == (3, [("Avg", 4.0)])
    base, ours = scores  # one row's average is no difference of two
    for pair in ((base | {"Avg": "15.0"}, ours), (base, ours | {"Avg": "19.0"})):
        found = check(lines(*pair, gain | {"Avg": "+5.0"}), "t")
        assert (found.cells, [m.column for m in found.mismatches]) == (4, ["Avg"])
        assert derived(lines(*pair, gain))[3, "Avg"] == 4.0
        assert (3, "Avg") not in derived(lines(*pair, {"m": "↑ m2 vs m1", "a": "+3", "b": "+5"}))
    # A difference that is not printed is no part of a mean.
    assert derived(lines(*scores, {"m": "↑ m2 vs m1", "a": "+3", "Avg": "+4.0"}))[3, "a"] == 3.0
    assert (3, "Avg") not in derived(lines(*scores, {"m": "↑ m2 vs m1", "a": "+3", "Avg": "+4.0"}, {"b": "1"}))


def test_a_mismatch_says_all_that_there_is_to_say() -> None:
    rows = lines(
        {"a": "10.00004", "b": "20.0", "c": "25.0", "Avg": "18.5"},
        {"a": "15.30046", "b": "10.2", "c": "5.0", "Avg": "10.17"},
        {"m": "↑ m2 vs m1", "a": "+5.4", "b": "-9.8", "c": "-20.0", "Avg": "-8.33"},
    )
    assert [m.as_json() for m in check(rows, "mine").mismatches] == [
        {"table": "mine", "row": "m1", "column": "Avg", "printed": 18.5, "recomputed": 18.3333,
         "rule": "mean of a, b, c", "rule_that_fits": None},
        {"table": "mine", "row": "↑ m2 vs m1", "column": "a", "printed": 5.4, "recomputed": 5.3004,
         "rule": "m2 minus m1", "rule_that_fits": None},
    ]  # fmt: skip
    assert check(rows, "mine").cells == 2 + 4


def averaged(*tables: tuple[dict[str, float], float], decimals: int = 2) -> list[str | None]:
    """Of rows (cells in order, printed average): the rule that is said to fit what does not add up."""
    rows = [{c: f"{v:.1f}" for c, v in cells.items()} | {"Avg": f"{mean:.{decimals}f}"} for cells, mean in tables]
    return [m.rule_that_fits for m in check(lines(*rows), "t").mismatches]


@pytest.mark.parametrize(("divisor", "said"), [(1, "/1"), (2, "/2"), (19, "/19"), (20, "/20"), (21, None), (0.5, None)])
def test_other_divisors_up_to_twenty_are_tried(divisor: float, said: str | None) -> None:
    tables = [({"a": a, "MME^Cog": b}, (a + b / divisor) / 2) for a, b in ((50.0, 400.0), (60.0, 500.0))]
    assert averaged(*tables) == [said and f"Avg with MME^Cog{said}"] * 2
    plain = [({"a": a, "b": b}, (a + b / 6) / 2) for a, b in ((50.0, 400.0), (60.0, 500.0))]
    assert averaged(*plain) == [None] * 2, "only of columns that are divided by something"


def test_a_column_more_or_less_is_tried() -> None:
    values = [(10.0, 20.0, 40.0), (15.0, 25.0, 70.0)]
    assert averaged(*[({"a": a, "b": b, "c": c}, (a + b) / 2) for a, b, c in values]) == ["Avg without c"] * 2
    assert averaged(*[({"a": a, "b": b}, a) for a, b, _ in values]) == ["Avg without b"] * 2
    rows = [{"a": f"{a}", "b": f"{b}", "Avg": f"{(a + b + c) / 3:.2f}", "d": f"{c}"} for a, b, c in values]
    assert [m.rule_that_fits for m in check(lines(*rows), "t").mismatches] == ["Avg with d/1"] * 2
    rows[1].pop("d")  # a column that a row lacks cannot be part of the rule
    assert [m.rule_that_fits for m in check(lines(*rows), "t").mismatches] == [None] * 2
    assert averaged(({"a": 10.0}, 20.0)) == [None]


def test_the_rule_that_fits_most_is_named_with_how_far_the_others_are_off() -> None:
    six = [({"a": a, "MME^Cog": b}, (a + b / 6) / 2) for a, b in ((50.0, 400.0), (60.0, 500.0))]
    ten = [({"a": a, "MME^Cog": b}, (a + b / 10) / 2) for a, b in ((70.0, 600.0),)]
    said = averaged(*six, *ten)  # 105 by ten, 120 by six: means of (70 + 60) / 2 and (70 + 100) / 2
    assert said == ["Avg with MME^Cog/6", "Avg with MME^Cog/6", "Avg with MME^Cog/6, to within 20.00"]
    eight = [({"a": a, "MME^Cog": b}, (a + b / 8) / 2) for a, b in ((50.0, 300.0), (40.0, 200.0))]
    assert averaged(*eight, *six[:1]) == [None], "one row does not outweigh two"
    assert averaged(*eight[:1], *six[:1]) == [None], "nor one row one"


def test_rounded_cells_explain_as_much_as_their_rounding_moves_the_mean() -> None:
    # Half of the last digit: .05 of the mean itself, and (.05 + .05 / 8) / 2 = .028125 of the cells.
    cells = {"a": 10.0, "MME^Cog": 80.0}
    same = "the same, of cells before they were rounded"
    assert averaged((cells, 10.1), decimals=1) == [None]
    assert averaged((cells, 10.02), (cells, 9.97)) == [same] * 2
    assert averaged((cells, 10.04)) == [None]
    assert averaged((cells, 10.02), (cells, 10.04)) == [None] * 2
    assert averaged((cells, 10.0)) == []


def test_another_row_explains_a_difference_only_where_it_gives_all_that_fails() -> None:
    def fitting(dino: dict[str, str], gains: dict[str, str], **keys: str) -> list[str | None]:
        rows = lines({"m": "clip", "a": "10.0", "b": "20.0"}, {"m": "ours", "a": "15.0", "b": "30.0"})
        rows += [Row(line=3, method="dino", cells=dino, **keys)]
        rows += [Row(line=4, method="↑ ours vs clip", cells=gains)]
        return [m.rule_that_fits for m in check(rows, "t").mismatches]

    dino = {"a": "12.0", "b": "25.0"}
    assert fitting(dino, {"a": "+3.0", "b": "+5.0"}) == ["ours minus dino"] * 2
    assert fitting(dino, {"a": "+3.0", "b": "+10.0"}) == ["ours minus dino"]
    assert fitting(dino, {"a": "+3.0", "b": "+6.0"}) == [None] * 2
    assert fitting({"a": "12.0"}, {"a": "+3.0", "b": "+5.0"}) == [None] * 2
    assert fitting(dino, {"a": "+3.0"}, block="elsewhere") == [None]
    assert fitting(dino, {"a": "+0.0"}) == [None], "a row is not its own base"
    assert fitting({"a": "12.0"}, {"a": "+3.0", "c": "1"}) == ["ours minus dino"]


def test_mismatches_come_in_the_order_of_the_lines() -> None:
    rows = lines(
        {"a": "10", "Avg": "11"},
        {"a": "12", "Avg": "12"},
        {"m": "↑ m2 vs m1", "a": "+3", "Avg": "+1"},
        {"a": "14", "Avg": "15"},
    )
    assert [(m.row, m.column) for m in check(rows, "t").mismatches] == [
        ("m1", "Avg"),
        ("↑ m2 vs m1", "a"),
        ("m4", "Avg"),
    ]
