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


def averaged(*tables: tuple[dict[str, float], float], decimals: int = 2) -> list[str | None]:
    """Of rows (cells in order, printed average): the rule that is said to fit what does not add up."""
    rows = [{c: f"{v:.1f}" for c, v in cells.items()} | {"Avg": f"{mean:.{decimals}f}"} for cells, mean in tables]
    return [m.rule_that_fits for m in check(lines(*rows), "t").mismatches]


def test_a_column_more_or_less_is_tried() -> None:
    values = [(10.0, 20.0, 40.0), (15.0, 25.0, 70.0)]
    assert averaged(*[({"a": a, "b": b, "c": c}, (a + b) / 2) for a, b, c in values]) == ["Avg without c"] * 2
    rows = [{"a": f"{a}", "b": f"{b}", "Avg": f"{(a + b + c) / 3:.2f}", "d": f"{c}"} for a, b, c in values]
    assert [m.rule_that_fits for m in check(lines(*rows), "t").mismatches] == ["Avg with d/1"] * 2
    rows[1].pop("d")  # a column that a row lacks cannot be part of the rule
    assert [m.rule_that_fits for m in check(lines(*rows), "t").mismatches] == [None] * 2
    assert averaged(({"a": 10.0}, 20.0)) == [None]
