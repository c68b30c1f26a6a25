"""Recomputes every derived cell of a table from its printed ones, and says which do not reproduce, and what would.

A cell reproduces where it is the recomputed number, rounded to the digits that it is printed with.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reports.paper.printed import Row, number, play, reproduces
from reports.paper.rules import Average, Gain, averages, gain_of

_DIVISORS = range(1, 21)


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A derived cell that does not follow from the others. `rule_that_fits`: None where none was found."""

    table: str
    row: str
    column: str
    printed: float
    recomputed: float
    rule: str
    rule_that_fits: str | None

    def as_json(self) -> dict[str, Any]:
        """As `rice tables --check --json` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """`cells`: how many derived cells were recomputed. `unknown`: derived rows whose rule could not be told."""

    cells: int
    mismatches: list[Mismatch]
    unknown: list[str]


def check(rows: Sequence[Row], table: str) -> Checked:
    """Averages under their rule (Table 1's caption has one), differences of printed cells.

    The rules tried for what fails: other divisors, a column more or less, another row subtracted, and the same rule on
    cells before they were rounded. The one that fits most of a column's cells is named, if it fits more than the rule.
    """
    cells = 0
    mismatches: list[Mismatch] = []
    unknown: list[str] = []
    rules = averages(rows)
    for rule in rules:
        count, found = _check_average(rule, rows, table)
        cells, mismatches = cells + count, mismatches + found
    for row in filter(lambda row: row.is_gain, rows):
        gain = gain_of(row, rows)
        if gain is None:
            unknown.append(row.label)
            continue
        count, found = _check_gain(row, gain, rows, table)
        cells, mismatches = cells + count, mismatches + found
    order = {row.label: row.line for row in rows}
    return Checked(cells, sorted(mismatches, key=lambda m: order[m.row]), unknown)


def _check_average(rule: Average, rows: Sequence[Row], table: str) -> tuple[int, list[Mismatch]]:
    judged = [(row, _values(row)) for row in rows if rule.column in row.cells and rule.of.keys() <= row.cells.keys()]
    judged = [(row, values) for row, values in judged if not (row.is_gain and _parents_have(rule.column, row, rows))]
    failing = [(row, values) for row, values in judged if not _fits(rule, row, values)]
    better = _better_rule(rule, judged) if failing else None
    return len(judged), [
        Mismatch(
            table=table,
            row=row.label,
            column=rule.column,
            printed=values[rule.column],
            recomputed=round(_recompute(rule, values), 4),
            rule=str(rule),
            rule_that_fits=None if better is None else _describe(better, rule, row, values),
        )
        for row, values in failing
    ]


def _check_gain(row: Row, gain: Gain, rows: Sequence[Row], table: str) -> tuple[int, list[Mismatch]]:
    values, gained, base = _values(row), _values(gain.gained), _values(gain.base)
    shared = [column for column in values if column in gained and column in base]
    failing = [c for c in shared if not reproduces(row.cells[c], gained[c] - base[c])]
    other = _other_base(row, gain, rows, failing) if failing else None
    return len(shared), [
        Mismatch(
            table=table,
            row=row.label,
            column=column,
            printed=values[column],
            recomputed=round(gained[column] - base[column], 4),
            rule=str(gain),
            rule_that_fits=None if other is None else str(other),
        )
        for column in failing
    ]


def _other_base(row: Row, gain: Gain, rows: Sequence[Row], failing: Sequence[str]) -> Gain | None:
    """Another row of the block whose subtraction gives all failing cells."""
    gained = _values(gain.gained)
    for base in rows:
        if base.block != row.block or base.is_gain or base in (gain.base, gain.gained):
            continue
        cells = _values(base)
        if all(c in cells and reproduces(row.cells[c], gained[c] - cells[c]) for c in failing):
            return Gain(gained=gain.gained, base=base)
    return None


def _better_rule(rule: Average, judged: Sequence[tuple[Row, Mapping[str, float]]]) -> Average | None:
    """The candidate that fits most cells, more than `rule` does; `rule` itself where rounding explains the rest."""
    if all(_fits(rule, row, values, rounded=True) for row, values in judged):
        return rule
    scores = [(sum(_fits(other, row, values) for row, values in judged), other) for other in _candidates(rule, judged)]
    most, best = max(scores, key=lambda score: score[0], default=(0, rule))
    return best if most > sum(_fits(rule, row, values) for row, values in judged) else None


def _candidates(rule: Average, judged: Sequence[tuple[Row, Mapping[str, float]]]) -> Iterator[Average]:
    for column, divisor in rule.of.items():
        if divisor != 1:
            for other in _DIVISORS:
                yield Average(column=rule.column, of={**rule.of, column: float(other)})
    for column in rule.of:
        if len(rule.of) > 1:
            yield Average(column=rule.column, of={c: d for c, d in rule.of.items() if c != column})
    shared = set.intersection(*(set(values) for _, values in judged))
    for column in sorted(shared - rule.of.keys() - {rule.column}):
        yield Average(column=rule.column, of={**rule.of, column: 1.0})


def _describe(better: Average, rule: Average, row: Row, values: Mapping[str, float]) -> str:
    if better is rule:
        return "the same, of cells before they were rounded"
    changed = [f"with {c}/{d:g}" for c, d in better.of.items() if rule.of.get(c) != d]
    gone = [f"without {c}" for c in rule.of if c not in better.of]
    away = abs(_recompute(better, values) - values[rule.column])
    within = "" if _fits(better, row, values) else f", to within {away:.2f}"
    return f"{rule.column} {', '.join(changed + gone)}{within}"


def _fits(rule: Average, row: Row, values: Mapping[str, float], *, rounded: bool = False) -> bool:
    """`rounded`: the cells that are averaged may have been rounded as well."""
    more = sum(play(row.cells[c]) / divisor for c, divisor in rule.of.items()) / len(rule.of) if rounded else 0.0
    return reproduces(row.cells[rule.column], _recompute(rule, values), more=more)


def _recompute(rule: Average, values: Mapping[str, float]) -> float:
    value = rule.recompute(values)
    if value is None:
        raise ValueError(f"a row lacks cells of {rule}")
    return value


def _parents_have(column: str, row: Row, rows: Sequence[Row]) -> bool:
    """Whether the average of a difference is itself the difference of two averages."""
    gain = gain_of(row, rows)
    return gain is not None and column in gain.gained.cells and column in gain.base.cells


def _values(row: Row) -> dict[str, float]:
    return {column: number(text) for column, text in row.cells.items()}
