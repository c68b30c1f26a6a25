"""`rice tables`: stored results, the paper's tables, both beside each other, and the check of what tables derive."""

import json as json_format
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from reports.grid import GRID_WRITERS, SUFFIXES, Format
from rice.errors import RiceError, nearest
from rice.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

    from reports.paper.beside import Beside
    from reports.paper.check import Checked

Extra = Literal["tokens", "gflops", "images_per_s"]

_MOST_DECIMALS = 15
"""Digits of a double."""


def tables(
    source: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    *,
    paper: bool = False,
    table: tuple[str, ...] = (),
    with_: Annotated[tuple[Path, ...], tyro.conf.arg(name="with")] = (),
    check: bool = False,
    json: bool = False,
    rows: str = "encoder",
    columns: str = "probe,dataset,metric",
    format: Format = "markdown",  # noqa: A002 - the flag's name
    extras: tuple[Extra, ...] = (),
    metrics: tuple[str, ...] = (),
    decimals: int = 2,
    out: Path | None = None,
) -> None:
    """Print stored results, or the paper's tables, as a table.

        rice tables out --rows encoder --columns probe,dataset,metric
        rice tables --paper --table 3 --format latex
        rice tables --paper --with out      # your results below what it reports
        rice tables --paper --check         # its averages that do not add up
        rice tables mine.csv --check        # those of a table of your own

    Of results, a cell is the mean over seeds and the standard deviation (ddof 1); fractions are shown in percent. The
    best of a column is bold, the second underlined; cells of fewer test items than others are not ranked; a cell
    without a result stays visibly empty. Results that differ in anything but the seed are never averaged: the table is
    split by what differs.

    In the paper's tables averages and arrow rows are recomputed from the printed cells. Measured rows stand below the
    reported ones, with the difference, and a note on each cell whose protocol is not the paper's.

    Args:
        source: A sweep's --out folder, or its results folder; with --check a table as CSV: a line a row, or a line a
            cell with the columns block,method,tower,resolution,llm,column,value,line.
        paper: The paper's Tables 1 to 5.
        table: Only these of them: 1 2 3 4 5 5a 5b 5c 5d.
        with_: Folders of results to lay beside the reported numbers.
        check: Recompute every average and difference, and list those that are not what is printed.
        json: The list as JSON: table, row, column, printed, recomputed, rule, rule_that_fits.
        rows: Of results: keys of the rows, comma-separated: encoder, dataset, size, layer, seed, ...
        columns: Of results: keys of the columns, comma-separated.
        format: markdown, latex (booktabs), csv (plain numbers) or html.
        extras: Of results: columns of cost beside the scores: tokens gflops images_per_s.
        metrics: Of results: only these metrics; default all.
        decimals: Of results: digits after the point.
        out: Write to this file; of the paper's tables to this folder, with the curves of Table 5; default: print.
    """
    _consistent(source, paper, table, with_, check, json)
    if not 0 <= decimals <= _MOST_DECIMALS:
        raise RiceError(f"expected --decimals from 0 to {_MOST_DECIMALS}, got {decimals}")
    if check:
        _check(source, table, json, out)
    elif paper:
        _paper(table, with_, format, out)
    elif source is not None:
        _results(source, (rows, columns), extras, metrics, (format, decimals), out)


def _consistent(
    source: Path | None, paper: bool, table: Sequence[str], with_: Sequence[Path], check: bool, json: bool
) -> None:
    if paper and source is not None:
        raise RiceError(f"--paper takes no folder; to lay results beside it: --with {source}")
    if source is None and not paper:
        raise RiceError("expected the --out folder of a sweep, or --paper; see: rice tables --help")
    if table and not paper:
        raise RiceError("--table chooses among the paper's tables; add --paper")
    if with_ and (not paper or check):
        raise RiceError("--with lays results beside the paper's tables; use it with --paper and without --check")
    if check and source is not None and source.is_dir():
        raise RiceError(
            f"--check takes a table as CSV, and {source} is a folder; of the paper's tables: --paper --check"
        )
    if json and not check:
        raise RiceError("--json is a form of --check; for numbers use --format csv")


def _results(
    directory: Path,
    keys: tuple[str, str],
    extras: tuple[Extra, ...],
    metrics: tuple[str, ...],
    form: tuple[Format, int],
    out: Path | None,
) -> None:
    from reports.formats import write_table
    from reports.reading import read_frame
    from reports.tables import build

    frame, rejected = read_frame(directory, metrics)
    built = build(frame, _keys(keys[0], frame), _keys(keys[1], frame), extras, form[1])
    left_out = [f"Left out, no result: {found.file} {found.reason}." for found in rejected]
    built.notes.extend(left_out)
    _put(write_table(built, *form), out)


def _paper(table: tuple[str, ...], with_: Sequence[Path], form: Format, out: Path | None) -> None:
    from reports.paper.layout import chosen
    from reports.paper.tables import paper_csv, paper_grid

    names = chosen(table)
    measured = _measured(with_)
    texts = {
        name: paper_csv(name, measured) if form == "csv" else GRID_WRITERS[form](paper_grid(name, measured))
        for name in names
    }
    if out is None:
        print("\n\n".join(texts.values()))  # noqa: T201
        return
    for name, text in texts.items():
        _put(text, out / f"table{name}{SUFFIXES[form]}")
    if any(name.startswith("5") for name in names):
        from reports.paper.curves import write_curves

        for path in write_curves(out, measured):
            print(f"wrote {path}")  # noqa: T201


def _measured(with_: Sequence[Path]) -> "list[Beside]":
    if not with_:
        return []
    from probes.results import rows_of
    from reports.measurements import measurements
    from reports.paper.beside import beside
    from reports.reading import read, say_left_out

    documents, left_out = read(with_)
    say_left_out(left_out)
    found = measurements(rows_of(documents))
    measured = beside(found)
    if not measured:
        names = sorted({f"{one['probe']} on {one['dataset']}" for one in found})
        raise RiceError(
            f"nothing in {', '.join(map(str, with_))} belongs in the paper's tables, which know datasets by the names "
            f"of the built-in sweeps (coco, lvis, roboflow100, tracking); found: {', '.join(names)}"
        )
    return measured


def _check(source: Path | None, table: tuple[str, ...], json: bool, out: Path | None) -> None:
    from reports.paper.check import check
    from reports.paper.layout import chosen
    from reports.paper.printed import paper, read_rows

    if source is None:
        checked = {name: check(paper(name), name) for name in chosen(table)}
    else:
        checked = {source.stem: check(read_rows(source), source.stem)}
        if not checked[source.stem].cells:
            raise RiceError(
                f"{source} has nothing to check: name averages 'Avg', and rows that are differences '↑ A vs B'"
            )
    found = [mismatch.as_json() for result in checked.values() for mismatch in result.mismatches]
    _put(json_format.dumps(found, indent=1, ensure_ascii=False) if json else _said(checked), out)


def _said(checked: "dict[str, Checked]") -> str:
    lines = []
    for name, result in checked.items():
        lines += [
            f"{m.table}  {m.row}  {m.column}: printed {m.printed:g}, recomputed {m.recomputed:g} ({m.rule})"
            + (f"; fits: {m.rule_that_fits}" if m.rule_that_fits else "")
            for m in result.mismatches
        ]
        lines += [f"{name}  {row}: not recomputed, its label names no two rows above it" for row in result.unknown]
    cells, wrong = sum(r.cells for r in checked.values()), sum(len(r.mismatches) for r in checked.values())
    return "\n".join([*lines, f"{cells} derived cells recomputed, {wrong} do not reproduce."])


def _put(text: str, out: Path | None) -> None:
    if out is None:
        print(text)  # noqa: T201
        return
    with atomic_write(out) as file:
        file.write(text + "\n")
    print(f"wrote {out}")  # noqa: T201


def _keys(text: str, frame: "pd.DataFrame") -> list[str]:
    keys = [key.strip() for key in text.split(",") if key.strip()]
    for key in keys:
        if key not in frame.columns:
            raise RiceError(f"unknown key {key!r}.{nearest(key, frame.columns)} Known: {', '.join(frame.columns)}")
    return keys
