"""Panels of `rice reproduce mini --extended` as a page and tables, each number with its result file.

OUT/index.html   panels; OUT/curves.png, .pdf: those of Table 5
OUT/tables/      a panel each, as Markdown, LaTeX and HTML; OUT/sources.csv: a line a number
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from probes.figures import finish_curves, write_figure
from probes.results import RESULTS, rows_of
from reports.grid import BEST, EMPTY, GRID_WRITERS, OTHER, SUFFIXES, Entry, Grid, Line, defuse
from reports.measurements import Cell, measurements, over_seeds
from reports.miniature import panels
from reports.miniature.panels import Measure, Panel
from reports.miniature.scores import YARDSTICK, Trained
from reports.miniature.tables import DECIMALS
from reports.reading import read
from rice.errors import RiceError
from rice.files import atomic_write
from rice.page.single import INDEX, is_page, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VERB = "reproduce mini extended"
_TEMPLATE = Path(__file__).parent / "template"
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_METHOD = (
    "One pretraining each, from seed 0, and one seed of the probe; fractions in percent. All else is RICE's, as its "
    "search chose it: no variant had a search of its own.",
)
_SPREAD = "sd: of RICE over its {} pretraining seeds. Differences of that size are noise."


class Number(NamedTuple):
    """As it is shown, and whose result it is. file: of the result, as seen from the page."""

    value: float
    cell: Cell
    file: str


class Found(NamedTuple):
    """numbers: (encoder, probe, metric) -> number. spreads: of RICE over its pretraining seeds; seeds: how many."""

    numbers: Mapping[tuple[str, str, str], Number]
    spreads: Mapping[Measure, float]
    seeds: int


def extended_page(results: Sequence[Path], out: Path, found: Sequence[Panel], runs: Mapping[str, Path]) -> Path:
    """Write what the module's head lists; returns the page.

    results: sweeps' --out folders. runs: encoder's name -> its pretraining's run.json. Errors: RiceError where `out`
    holds another page, and where two results are of one encoder and measure: which is meant cannot be told.
    """
    page = out / INDEX
    if page.exists() and not is_page(page, _VERB):
        raise RiceError(f"{page} was not written by this; choose another --out")
    read_ = _read(results, out)
    extra = sorted({(probe, metric) for _, probe, metric in read_.numbers if probe in ("llava", "refseg")})
    shown = [*found, *([panels.multimodal(extra)] if extra else [])]
    for panel in shown:
        for form, writer in GRID_WRITERS.items():
            with atomic_write(out / "tables" / f"{panel.id}{SUFFIXES[form]}") as file:
                file.write(writer(grid(panel, read_)) + "\n")
    _write_sources(out / "sources.csv", shown, read_)
    curved = [panel for panel in shown if panel.curve]
    if curved:
        _write_curves(out, curved, read_)
    links = {name: quote(Path(os.path.relpath(path, out)).as_posix()) for name, path in runs.items()}
    content: dict[str, Any] = {
        "panels": [_panel(panel, read_, links) for panel in shown],
        "notes": _notes(read_),
        "curves": bool(curved),
    }
    text = render(_TEMPLATE / "extended.html.j2", _VERB, {}, styles=[_TEMPLATE / "summary.css"], scripts=[], **content)
    with atomic_write(page, "wb") as stream:
        stream.write(text)
    return page


def grid(panel: Panel, found: Found) -> Grid:
    """Rows: measures; columns: the panel's, and RICE's standard deviation."""
    has_spread = any(measure in found.spreads for measure in panel.measures)
    lines = [
        Line((
            Entry(_name(measure)),
            *(Entry(text, BEST if best else OTHER) for text, best, _ in _row(panel, measure, found)),
            *([Entry(_spread(measure, found))] if has_spread else []),
        ))
        for measure in panel.measures
    ]  # fmt: skip
    heads = [("measure", 1), *((label, 1) for label in panel.columns), *([("sd", 1)] if has_spread else [])]
    notes = [*_notes(found), *([panel.note] if panel.note else [])]
    return Grid(heads=[heads], labels=1, lines=lines, notes=notes, caption=f"The paper in miniature: {panel.title}.")


def _read(results: Sequence[Path], out: Path) -> Found:
    folders = [folder for folder in results if folder.is_dir()]
    documents, _ = read(folders)
    places = {path.stem: path for folder in folders for path in (folder / RESULTS).glob("*.json")}
    numbers: dict[tuple[str, str, str], Number] = {}
    for one in measurements(rows_of(documents)):
        for run in one.runs.values():
            place = str(one["encoder"]), str(one["probe"]), str(one["metric"])
            if place in numbers:
                raise RiceError(f"{' / '.join(place)} was measured in two ways; keep the results of one in the folder")
            file = Path(os.path.relpath(places[run.key], out)).as_posix()
            numbers[place] = Number(run.value, one.cell, file)
    values: dict[Measure, list[float]] = {}
    for (encoder, probe, metric), number in numbers.items():
        trained = Trained.parse(encoder)
        if trained is not None and (trained.arm, trained.budget) == (YARDSTICK, "updates"):
            values.setdefault((probe, metric), []).append(number.value)
    scores = {measure: over_seeds(own) for measure, own in values.items()}
    spreads = {measure: score.spread for measure, score in scores.items() if score.spread is not None}
    return Found(numbers, spreads, max((score.seeds for score in scores.values()), default=0))


def _row(panel: Panel, measure: Measure, found: Found) -> list[tuple[str, bool, Number | None]]:
    """Of each column: text, whether it is the best by the digits shown, the number."""
    numbers = [found.numbers.get((name, *measure)) for name in panel.encoders.values()]
    known = [(round(one.value, DECIMALS), one.cell.higher_is_better) for one in numbers if one is not None]
    best = (max if all(higher for _, higher in known) else min)((value for value, _ in known), default=None)
    return [
        (EMPTY, False, None)
        if one is None
        else (f"{one.value:.{DECIMALS}f}", len(known) > 1 and round(one.value, DECIMALS) == best, one)
        for one in numbers
    ]


def _name(measure: Measure) -> str:
    return " / ".join(measure)


def _spread(measure: Measure, found: Found) -> str:
    spread = found.spreads.get(measure)
    return EMPTY if spread is None else f"{spread:.{DECIMALS}f}"


def _notes(found: Found) -> list[str]:
    return [*_METHOD, *([_SPREAD.format(found.seeds)] if found.spreads else [])]


def _panel(panel: Panel, found: Found, links: Mapping[str, str]) -> dict[str, Any]:
    rows = [
        {
            "name": _name(measure),
            "cells": [
                None if number is None else {"text": text, "best": best, "link": quote(number.file)}
                for text, best, number in _row(panel, measure, found)
            ],
            "spread": _spread(measure, found),
        }
        for measure in panel.measures
    ]
    columns = [{"label": label, "link": links.get(name)} for label, name in panel.encoders.items()]
    return {"id": panel.id, "title": panel.title, "note": panel.note, "columns": columns, "rows": rows}


def _write_sources(path: Path, shown: Sequence[Panel], found: Found) -> None:
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("panel", "column", "encoder", "probe", "metric", "value", "unit", "result"))
        for panel in shown:
            for label, name in panel.encoders.items():
                for measure in panel.measures:
                    number = found.numbers.get((name, *measure))
                    if number is not None:
                        texts = map(defuse, (panel.id, label, name, *measure))
                        writer.writerow([*texts, number.value, number.cell.shown_unit, defuse(number.file)])


def _write_curves(out: Path, shown: Sequence[Panel], found: Found) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(shown), 3.9), layout="constrained")
    measures = list(dict.fromkeys(measure for panel in shown for measure in panel.measures))
    for axes, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw(axes, panel, found)
    styles = [
        figure.axes[0].plot([], [], color=colour, marker=marker, label=_name(measure))[0]
        for measure, colour, marker in zip(measures, _COLOURS, _MARKERS, strict=False)
    ]
    figure.legend(handles=styles, loc="outside upper center", ncols=len(styles), frameon=False, fontsize=8)
    write_figure(out / "curves", figure, dpi=160)


def _draw(axes: "Axes", panel: Panel, found: Found) -> None:
    """Each measure as its difference from RICE's own, which is what the panel is about."""
    names = list(panel.encoders.values())
    own = names.index(panels.own(YARDSTICK))
    for measure, colour, marker in zip(panel.measures, _COLOURS, _MARKERS, strict=False):
        numbers = [found.numbers.get((name, *measure)) for name in names]
        base = numbers[own]
        points = [(x, one.value - base.value) for x, one in enumerate(numbers) if one is not None and base is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], color=colour, marker=marker, markersize=5)
    axes.axhline(0, color="0.6", linewidth=1, zorder=0)
    ticks = {label: x for x, label in enumerate(panel.columns)}
    finish_curves(axes, ticks, panel.title, "points above RICE's own setting")
