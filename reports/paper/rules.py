"""How the derived cells of a table follow from its others: averages, and rows that are the difference of two rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.paper.printed import Row, number

_OCR = ("InfoVQA", "DocVQA", "ChartQA", "TextVQA", "OCRBench", "OCRBenchV2", "LiveXivVQA")
_OTHER = ("AI2D", "MMB^EN", "MME^Cog", "MME^Per", "POPE", "RealworldQA", "MMStar")
_SCALES = {"OCRBench": 10.0, "MME^Cog": 8.0, "MME^Per": 20.0}
"""Table 1's caption: OCRBench, MME^Cog and MME^Per are divided by 10, 8 and 20 to range from 0 to 100."""
_DOMAINS = ("Aerial", "Video Games", "Microscopic", "Under Water", "Documents", "Electromagnetic", "Real world")
_REFERRING = (
    *("refCOCO val", "refCOCO testA", "refCOCO testB", "refCOCO+ val", "refCOCO+ testA", "refCOCO+ testB"),
    *("refCOCOg val", "refCOCOg test"),
)
_AVERAGE_NAME = re.compile(r"(.* )?(avg|average|mean)\.?", re.IGNORECASE)
_GAIN = re.compile(r"↑ (?P<gained>.+?) vs\.? (?P<base>.+?)(?: \(.*\))?|↑ Improvement over (?P<only>.+)")
_SIZED = re.compile(r"(?P<name>.+)-(?P<size>\d+)px")


@dataclass(frozen=True, kw_only=True)
class Average:
    """`column` is the mean of other columns, each divided by a number."""

    column: str
    of: Mapping[str, float]

    def recompute(self, cells: Mapping[str, float]) -> float | None:
        """From a row's cells; None where one is missing."""
        if not cells.keys() >= self.of.keys():
            return None
        return sum(cells[column] / divisor for column, divisor in self.of.items()) / len(self.of)

    def __str__(self) -> str:
        terms = [column if divisor == 1 else f"{column}/{divisor:g}" for column, divisor in self.of.items()]
        return f"mean of {', '.join(terms)}"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A row that is the difference of two others."""

    gained: Row
    base: Row

    def __str__(self) -> str:
        return f"{self.gained.label} minus {self.base.label}"


def _average(column: str, of: Sequence[str]) -> Average:
    return Average(column=column, of={name: _SCALES.get(name, 1.0) for name in of})


KNOWN = (
    _average("OCR Avg", _OCR),
    _average("Other Avg", _OTHER),
    _average("AVG", _DOMAINS),
    _average("Avg", _REFERRING),
)
"""The paper's: Tables 1, 1, 3 and 2."""


def averages(rows: Sequence[Row]) -> list[Average]:
    """The average columns of a table: the paper's where its columns are there; any other column that is named like an
    average is the plain mean of the columns between it and the average before it."""
    columns = list(dict.fromkeys(column for row in rows for column in row.cells))
    found = [rule for rule in KNOWN if {rule.column, *rule.of} <= set(columns)]
    taken = {rule.column for rule in found}
    before: list[str] = []
    for column in columns:
        if _AVERAGE_NAME.fullmatch(column):
            if column not in taken and before:
                found.append(_average(column, before))
            before = []
        else:
            before.append(column)
    return found


def gain_of(row: Row, rows: Sequence[Row]) -> Gain | None:
    """The two rows whose difference an arrow row states, by its label: '↑ RICE-336px vs AIMv2', '↑ Improvement over
    CLIP' (of the row above the arrow rows). The nearest above in the same block that has the name is meant; None where
    a name fits none."""
    match = _GAIN.fullmatch(row.method)
    above = [other for other in rows if other.line < row.line and other.block == row.block and not other.is_gain]
    if match is None or not above:
        return None
    gained = above[-1] if match["gained"] is None else _named(match["gained"], above)
    base = _named(match["base"] or match["only"], [other for other in above if other is not gained])
    return None if gained is None or base is None else Gain(gained=gained, base=base)


def derived(rows: Sequence[Row]) -> dict[tuple[int, str], float]:
    """Every derived cell that is printed, (line, column) -> recomputed: averages from the printed scores, differences
    from printed scores and these averages."""
    rules, found = averages(rows), {}
    values = {row.line: {column: number(text) for column, text in row.cells.items()} for row in rows}
    for row in rows:
        if not row.is_gain:
            for rule in rules:
                value = rule.recompute(values[row.line]) if rule.column in row.cells else None
                if value is not None:
                    found[row.line, rule.column] = values[row.line][rule.column] = value
    for row in filter(lambda row: row.is_gain, rows):
        found |= _gains(row, gain_of(row, rows), values, rules)
    return found


def _gains(
    row: Row, gain: Gain | None, values: Mapping[int, Mapping[str, float]], rules: Sequence[Average]
) -> dict[tuple[int, str], float]:
    found: dict[tuple[int, str], float] = {}
    if gain is None:
        return found
    gained, base = values[gain.gained.line], values[gain.base.line]
    for column in row.cells:
        if column in gained and column in base:
            found[row.line, column] = gained[column] - base[column]
    for rule in rules:
        if rule.column in row.cells and (row.line, rule.column) not in found:
            value = rule.recompute({c: found[row.line, c] for c in row.cells if (row.line, c) in found})
            found |= {} if value is None else {(row.line, rule.column): value}
    return found


def _named(name: str, above: Sequence[Row]) -> Row | None:
    """The last row whose method or tower has this name, with the resolution that it may carry."""
    sized = _SIZED.fullmatch(name)
    for row in reversed(above):
        if name in (row.method, row.tower):
            return row
        if sized and sized["name"] in (row.method, row.tower) and sized["size"] == row.resolution:
            return row
    return None
