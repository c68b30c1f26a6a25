"""What the miniature found as one static page, every number of which leads to the files that it comes from.

OUT/index.html        claims, tables, and each result file; without a script, asking nothing of any network
OUT/claims.json       the verdicts as plain numbers
OUT/tables/           both tables as Markdown, LaTeX, CSV and HTML
OUT/sources.csv       a line a number and result file
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reports.compare.resample import Resampler
from reports.formats import Table
from reports.grid import BEST, SUFFIXES
from reports.miniature import tables
from reports.miniature.claims import NAMES
from reports.miniature.scores import BUDGETS, YARDSTICK, Budget, Scores, scores_of
from reports.miniature.shipped import Again, made_again
from reports.miniature.sources import Sources, anchor, folder_from
from reports.miniature.verdict import Judged, as_json, judge
from reports.reading import read_frame
from rice.errors import RiceError
from rice.files import atomic_write, write_json
from rice.page.single import INDEX, is_page, render
from rice.progress import Progress, SilentProgress

_VERB = "reproduce mini"
_TEMPLATE = Path(__file__).parent / "template"
_OTHERS = {
    "The same arms on photographs": "photographs/index.html",
    "What RICE's settings decide": "extended/index.html",
}
"""Pages of `--photographs` and `--extended`, where they are there."""
_CHART = (150, 18, 5)
"""Width, height and margin of a claim's interval, in pixels."""


def summary_page(
    results: Path,
    out: Path,
    runs: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    *,
    beside_shipped: bool = False,
) -> Path:
    """Judge the claims and write what the module's head lists; returns the page.

    results: a sweep's --out folder. runs: encoder's name, as in the store -> its pretraining's run.json, relative to
    `out`. beside_shipped: also say how near the scores come to those of the shipped encoders. Errors: RiceError where
    `out` holds another page, where results are ambiguous (`reports.miniature.scores`), or where there are none.
    """
    page = out / INDEX
    if page.exists() and not is_page(page, _VERB):
        raise RiceError(f"{page} was not written by this; choose another --out")
    frame, left = read_frame(results)
    scores, resampler = scores_of(frame), Resampler(results)
    judged = judge(scores, resampler, progress or SilentProgress())
    notes, table = list(resampler.notes), tables.arms_table(scores)
    table.notes.extend(f"Left out, no result: {found.file} {found.reason}." for found in left)
    sources = Sources(scores, folder_from(results, out), dict(runs or {}))
    write_json(out / "claims.json", as_json(judged, notes))
    for form, suffix in SUFFIXES.items():
        _write(out / "tables" / f"arms{suffix}", tables.write_arms(table, form))
        _write(out / "tables" / f"claims{suffix}", tables.write_claims(judged, notes, form))
    sources.write(out / "sources.csv")
    probes = sources.probes()
    anchors = {place for probe in probes for place in probe["groups"]}
    content = {
        "claims": [_claims(judged, anchors, primary) for primary in (True, False)],
        "counts": _counts(judged),
        "blocks": _blocks(scores, table),
        "heads": _heads(table),
        "measures": [head for _, head in table.columns],
        "encoders": sources.encoders(),
        "probes": probes,
        "claim_notes": tables.claims_grid(judged, notes).notes,
        "table_notes": table.notes,
        "others": {title: quote(page) for title, page in _OTHERS.items() if (out / page).is_file()},
        "chart": _CHART,
        "again": _again(made_again(scores) if beside_shipped else []),
    }
    text = render(_TEMPLATE / "summary.html.j2", _VERB, {}, styles=[_TEMPLATE / "summary.css"], scripts=[], **content)
    with atomic_write(page, "wb") as file:
        file.write(text)
    return page


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text + "\n")


def _counts(judged: Sequence[Judged]) -> str:
    """'5 of 9 primary claims held, 2 did not hold, 1 within noise, 1 not measured.'"""
    verdicts = [one.verdict for one in judged if one.claim.primary]
    others = ("did not hold", "within noise", "not measured")
    rest = [f"{verdicts.count(verdict)} {verdict}" for verdict in others if verdict in verdicts]
    return ", ".join([f"{verdicts.count('held')} of {len(verdicts)} primary claims held", *rest]) + "."


def _claims(judged: Sequence[Judged], anchors: Collection[str], primary: bool) -> dict[str, Any]:
    shown = [0.0, 1.0, *(one.claim.by for one in judged)]
    shown += [x for one in judged if one.seeds is not None for x in (one.interval or (one.seeds.mean,))]
    scale = (min(shown), max(shown))
    lines: dict[str, dict[str, Any]] = {}
    for one in judged:
        if one.claim.primary == primary:
            place = f"claim-{one.claim.id}"
            lines[f"{place}-{len(lines)}" if place in lines else place] = _claim(one, anchors, scale)
    title = "Primary claims" if primary else "Secondary claims"
    return {"title": title, "lines": [line | {"place": place} for place, line in lines.items()]}


def _claim(one: Judged, anchors: Collection[str], scale: tuple[float, float]) -> dict[str, Any]:
    claim = one.claim
    places = {arm: anchor(claim.probe, arm, "updates") for arm in (claim.better, claim.than)}
    return {
        "text": claim.text,
        "measure": tables.measure_of(one),
        "claimed": claim.claimed,
        "difference": tables.points(one),
        "by_seed": [f"s{seed} {value:+.{tables.DECIMALS}f}" for seed, value in one.differences.items()],
        "seeds": tables.between(one.interval),
        "items": tables.between(None if one.items is None else one.items.interval),
        "p": tables.p_texts(one),
        "verdict": one.words,
        "kind": one.verdict.replace(" ", "-"),
        "missing": ", ".join(one.missing),
        "from": [(arm, place) for arm, place in places.items() if place in anchors],
        "chart": _chart(one, scale),
    }


def _chart(one: Judged, scale: tuple[float, float]) -> dict[str, float] | None:
    """Places in pixels of zero, the claimed margin, the mean and the interval's ends."""
    if one.seeds is None:
        return None
    width, _, margin = _CHART
    low, high = one.interval or (one.seeds.mean, one.seeds.mean)
    points = {"zero": 0.0, "by": one.claim.by, "mean": one.seeds.mean, "low": low, "high": high}
    stretch = (width - 2 * margin) / (scale[1] - scale[0])
    return {name: round(margin + (value - scale[0]) * stretch, 1) for name, value in points.items()}


def _again(found: Sequence[Again]) -> dict[str, Any]:
    """Rows: measures; columns: the shipped encoders' arms; a number is this run's, above where it is expected."""
    arms = list(dict.fromkeys(one.arm for one in found))
    by = {(one.place, one.arm): one for one in found}
    rows = [
        {"name": " / ".join(place), "cells": [by.get((place, arm)) for arm in arms]}
        for place in dict.fromkeys(one.place for one in found)
    ]
    return {"arms": arms, "rows": rows, "within": sum(one.is_within for one in found), "all": len(found)}


def _heads(table: Table) -> list[tuple[str, int]]:
    """The groups of columns, and how many each spans."""
    heads: dict[str, int] = {}
    for group, _ in table.columns:
        heads[group] = heads.get(group, 0) + 1
    return list(heads.items())


def _blocks(scores: Scores, table: Table) -> list[dict[str, Any]]:
    """Of each budget its arms, each with its cells: text, whether it is bold, and where its results are listed."""
    columns = tables.columns_of(scores)
    blocks = []
    for budget in BUDGETS:
        rows = [{"name": NAMES[arm], "cells": list(_cells(columns, table, budget, arm))} for arm in scores.arms(budget)]
        blocks += [{"title": tables.TITLES[budget], "rows": rows}] if rows else []
    return blocks


def _cells(columns: Sequence[tables.Column], table: Table, budget: Budget, arm: str) -> Iterator[dict[str, Any] | None]:
    lent: Budget = "updates" if arm == YARDSTICK else budget
    for column, label in zip(columns, table.columns, strict=True):
        found = table.cells.get(((tables.TITLES[budget], NAMES[arm]), label))
        if found is None or column.cell is None:
            yield None
            continue
        place = anchor(column.cell.probe, arm, lent)
        yield {"text": found.score.text(tables.DECIMALS), "best": found.rank == BEST, "anchor": place}
