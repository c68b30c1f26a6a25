"""The miniature's tables: its arms as the paper's tables have methods, and its claims with their verdicts."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reports.compare.pairs import show_p
from reports.formats import Cell as TableCell
from reports.formats import Place, Table, csv_text
from reports.grid import BEST, EMPTY, GRID_WRITERS, OTHER, Entry, Format, Grid, Line, defuse
from reports.measurements import Cell, over_seeds
from reports.miniature.claims import NAMES, UNRANKED
from reports.miniature.scores import BUDGETS, Budget, Scores, mean_of
from reports.miniature.verdict import Judged
from reports.tables import briefly, measured_by

DECIMALS = 1
CAPTION = "The paper in miniature: encoders pretrained from scratch by each method, frozen, and judged by every probe."
TITLES: dict[Budget, str] = {
    "updates": "Equal updates",
    "time": "Equal time: as long as RICE's updates took",
}
MEASURES: dict[str, dict[tuple[str, str], str]] = {
    "Detection": {("detection", "box AP"): "Det AP", ("detection", "mask AP"): "Seg AP"},
    "Tracking": {
        ("tracking", "LaSOT success"): "Suc.",
        ("tracking", "LaSOT precision"): "Pre.",
        ("tracking", "LaSOT norm. precision"): "Norm. Pre.",
    },
    "Dense": {("dense", "mIoU"): "mIoU", ("dense", "pixel accuracy"): "Pixel acc."},
    "Text": {("text", "word accuracy"): "Word acc.", ("text", "character accuracy"): "Char. acc."},
    "Classification": {("knn", "knn top-1"): "kNN", ("knn", "linear top-1"): "Linear"},
}
"""Head of a group, as the paper's tables call it -> (probe, metric) -> head of its column."""

_CLAIM_HEADS = (
    "claim",
    "measure",
    "claimed",
    "difference",
    "95 %, seeds",
    "95 %, seeds and items",
    "p (Holm)",
    "verdict",
)
_CLAIM_CSV = (
    *("id", "claim", "primary", "better", "than", "probe", "dataset", "metric", "by", "difference", "low", "high"),
    *("low with items", "high with items", "p", "p Holm", "seeds", "verdict", "missing"),
)


@dataclass(frozen=True)
class Column:
    """A measure on a dataset; the dataset is in the head where the measure has several."""

    group: str
    head: str
    cell: Cell | None


def columns_of(scores: Scores) -> list[Column]:
    """Of every measure, in the order of MEASURES; one that was not measured has no cell.

    Errors: RiceError where a cell is ambiguous (`Scores.cells`).
    """
    found = []
    for group, measures in MEASURES.items():
        for (probe, metric), head in measures.items():
            cells = scores.cells(probe, metric)
            several = len(cells) > 1
            found += [Column(group, f"{head} ({scores.dataset(c)})" if several else head, c) for c in cells]
            found += [] if cells else [Column(group, head, None)]
    return found


def arms_table(scores: Scores) -> Table:
    """Rows (budget, arm), columns (group, head); a cell is over pretraining seeds, of the mean over the probe's."""
    columns = columns_of(scores)
    labels: list[tuple[str, ...]] = [(column.group, column.head) for column in columns]
    rows = [(budget, arm) for budget in BUDGETS for arm in scores.arms(budget)]
    cells: dict[Place, TableCell] = {}
    for budget in BUDGETS:
        for column, label in zip(columns, labels, strict=True):
            cells |= {
                ((TITLES[budget], NAMES[arm]), label): cell for arm, cell in _column(scores, column, budget).items()
            }
    names: list[tuple[str, ...]] = [(TITLES[budget], NAMES[arm]) for budget, arm in rows]
    notes = list(_notes(scores, columns, cells))
    return Table(("trained for", "method"), ("", "measure"), names, labels, cells, notes=notes)


def arms_grid(table: Table) -> Grid:
    """`arms_table` as the paper prints such tables: a block a budget."""
    grid = table.grid(DECIMALS)
    lines, block = [], ""
    for (budget, _), line in zip(table.rows, grid.lines, strict=True):
        if budget != block:
            lines.append(Line((Entry(budget),), "block"))
        block = budget
        lines.append(Line(line.entries[1:]))
    return Grid(heads=[head[1:] for head in grid.heads], labels=1, lines=lines, notes=table.notes, caption=CAPTION)


def claims_grid(judged: Sequence[Judged], notes: Sequence[str]) -> Grid:
    """A line a claim, the primary ones first. `notes`: of the resampler."""
    lines = []
    for primary, title in ((True, "Primary claims"), (False, "Secondary claims")):
        own = [one for one in judged if one.claim.primary == primary]
        lines += [Line((Entry(title),), "block"), *map(_claim_line, own)] if own else []
    missing = [f"{one.claim.id}: not measured: {', '.join(one.missing)}." for one in judged if one.missing]
    return Grid(
        heads=[[(head, 1) for head in _CLAIM_HEADS]],
        labels=3,
        lines=lines,
        notes=[*METHOD, *missing, *notes],
        caption="The paper's claims as predictions, written down before the miniature ran.",
    )


METHOD = (
    "Differences: points of percent at equal updates, the mean over pretraining seeds, paired by seed.",
    "Intervals of 95 %: Student's t over pretraining seeds; and with the test items drawn, too, where they are stored.",
    "held: the whole interval over seeds is what is claimed; did not hold: none of it is; within noise: otherwise.",
    "p: one-sided, that the claim is false; Holm's correction over all primary claims.",
)
"""What a reader of the claims has to know."""


def write_arms(table: Table, form: Format) -> str:
    """In a format; CSV takes plain numbers in full precision."""
    return csv_text(table) if form == "csv" else GRID_WRITERS[form](arms_grid(table))


def write_claims(judged: Sequence[Judged], notes: Sequence[str], form: Format) -> str:
    """In a format; CSV takes plain numbers in full precision."""
    return _claims_csv(judged) if form == "csv" else GRID_WRITERS[form](claims_grid(judged, notes))


def points(one: Judged) -> str:
    """'+5.3', or empty."""
    return EMPTY if one.seeds is None else f"{one.seeds.mean:+.{DECIMALS}f}"


def between(interval: tuple[float, float] | None) -> str:
    """'+4.1 to +6.5', or empty."""
    return EMPTY if interval is None else " to ".join(f"{end:+.{DECIMALS}f}" for end in interval)


def p_texts(one: Judged) -> tuple[str, str]:
    """'0.012' alone, and by Holm; the latter is empty where the claim is not corrected."""
    alone, corrected = (None if p is None else show_p(p).removeprefix("p ") for p in (one.p, one.p_holm))
    return alone or EMPTY, corrected or ""


def measure_of(one: Judged) -> str:
    """'dense / scenes / mIoU'."""
    return " / ".join(filter(None, (one.claim.probe, one.dataset, one.claim.metric)))


def _claim_line(one: Judged) -> Line:
    alone, corrected = p_texts(one)
    p = f"{alone} ({corrected})" if corrected else alone
    items = None if one.items is None else one.items.interval
    texts = [
        one.claim.text,
        measure_of(one),
        one.claim.claimed,
        points(one),
        between(one.interval),
        between(items),
        p,
    ]
    return Line((*map(Entry, texts), Entry(one.words, BEST if one.verdict == "held" else OTHER)))


def _claims_csv(judged: Sequence[Judged]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CLAIM_CSV)
    for one in judged:
        claim, items = one.claim, None if one.items is None else one.items.interval
        what = [claim.id, claim.text, claim.primary, claim.better, claim.than, claim.probe, one.dataset, claim.metric]
        ends = [*(one.interval or (None, None)), *(items or (None, None))]
        mean = None if one.seeds is None else one.seeds.mean
        rest = [one.p, one.p_holm, len(one.differences), one.words, "; ".join(one.missing)]
        values = [*what, claim.by, mean, *ends, *rest]
        writer.writerow([defuse(value) if isinstance(value, str) else value for value in values])
    return file.getvalue().rstrip("\n")


def _column(scores: Scores, column: Column, budget: Budget) -> dict[str, TableCell]:
    """Of each arm that was measured; bold is the best of those that are ranked, by the digits shown."""
    cell = column.cell
    if cell is None:
        return {}
    found = {arm: scores.pretrainings(arm, budget, cell) for arm in scores.arms(budget)}
    score = {
        arm: over_seeds([mean_of(runs.values()) for runs in pretrainings.values()])
        for arm, pretrainings in found.items()
        if pretrainings
    }
    ranked = {arm: round(one.mean, DECIMALS) for arm, one in score.items() if arm not in UNRANKED}
    choose = max if cell.higher_is_better else min
    best = choose(ranked.values()) if len(ranked) > 1 else None
    return {
        arm: TableCell(one, BEST if best is not None and ranked.get(arm) == best else OTHER)
        for arm, one in score.items()
    }


def _notes(scores: Scores, columns: Sequence[Column], cells: Mapping[Place, TableCell]) -> Iterator[str]:
    most = max((cell.score.seeds for cell in cells.values()), default=0)
    yield (
        f"Mean ± standard deviation (ddof 1) over {most} pretraining seeds; fractions in percent."
        if most > 1
        else "One pretraining seed; fractions in percent."
    )
    yield f"Bold: the best of a block. {' and '.join(NAMES[arm] for arm in UNRANKED)}: shown for scale, never bold."
    if scores.arms("time"):
        yield f"Equal time: {NAMES['rice']} is the same encoders as above, whose time the others got."
    for (row, label), cell in cells.items():
        if cell.score.seeds < most:
            yield f"{row[1]} ({row[0]}), {' / '.join(label)}: {cell.score.seeds} of {most} pretraining seeds."
    said: dict[str, list[str]] = {}
    for column in columns:
        measured = [of[column.cell] for of in scores.of.values() if column.cell is not None and column.cell in of]
        if measured:
            said.setdefault(measured_by(measured), []).append(f"{column.group} / {column.head}")
    yield from briefly(said)
    if scores.others:
        yield f"Not shown, since they are no arms: {', '.join(scores.others)}."
