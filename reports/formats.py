"""What a table is, and its four formats.

Labels and notes come from users' files, so each writer escapes them for its format.
"""

import csv
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Format = Literal["markdown", "latex", "csv", "html"]
SUFFIXES: dict[Format, str] = {"markdown": ".md", "latex": ".tex", "csv": ".csv", "html": ".html"}
EMPTY = "-"

_HEADERS = {"tokens": "Tokens", "gflops": "GFLOPs", "images_per_s": "Images/s"}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


_STYLE = """<style>
.rice{border-collapse:collapse;font:14px/1.5 system-ui,sans-serif;border-top:2px solid;border-bottom:2px solid}
.rice thead{border-bottom:1px solid}
.rice th,.rice td{padding:.25em .8em;text-align:right;font-variant-numeric:tabular-nums}
.rice th[colspan]{text-align:center;border-bottom:1px solid #bbb}
.rice thead th:first-child,.rice tbody th{text-align:left}
.rice tbody th{font-weight:normal}
.rice-notes{max-width:80em;font:12px/1.5 system-ui,sans-serif;color:#555}
</style>"""


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation (ddof 1; None for one seed) over the seeds of one configuration."""

    mean: float
    spread: float | None
    seeds: int
    rank: int
    """0 the best of its column, 1 the second, 2 any other."""

    def text(self, decimals: int) -> str:
        """'41.25 ± 0.31'."""
        spread = "" if self.spread is None else f" ± {self.spread:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"


@dataclass(frozen=True)
class Table:
    """A table before it takes a format: labels are tuples with one text per key."""

    row_keys: tuple[str, ...]
    column_keys: tuple[str, ...]
    rows: list[tuple[str, ...]]
    columns: list[tuple[str, ...]]
    cells: dict[tuple[tuple[str, ...], tuple[str, ...]], Cell]
    extras: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def markdown(table: Table, decimals: int) -> str:
    """A pipe table (GitHub's Markdown; the second best is underlined by <u>), then the notes as a list."""
    header = [*table.row_keys, *(" / ".join(c) for c in table.columns), *_extra_headers(table)]
    marks = {0: "**{}**", 1: "<u>{}</u>", 2: "{}"}
    lines = [header, *_body(table, lambda cell: marks[cell.rank].format(cell.text(decimals)))]
    lines = [[_escape_markdown(text) for text in line] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    labels = len(table.row_keys)
    rule = ["-" * w if i < labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    pad = [
        [text.ljust(w) if i < labels else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in [pad[0], rule, *pad[1:]])
    return grid + "\n\n" + "\n".join(f"- {_escape_markdown(note)}" for note in table.notes)


def latex(table: Table, decimals: int) -> str:
    """A booktabs tabular; equal neighbours of the upper header lines are spanned. Needs booktabs only."""
    marks = {0: r"\textbf{{{}}}", 1: r"\underline{{{}}}", 2: "{}"}
    extras = _extra_headers(table)
    body = _body(table, lambda cell: marks[cell.rank].format(_escape_latex(cell.text(decimals))), _escape_latex)
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(table.row_keys)}{'r' * (len(table.columns) + len(extras))}}}",
        r"\toprule",
    ]
    for level in range(len(table.column_keys)):
        last = level == len(table.column_keys) - 1
        spans = [(label, 1) for *_, label in table.columns] if last else _spans(table.columns, level)
        heads = [_escape_latex(key) if last else "" for key in table.row_keys]
        heads += [_escape_latex(t) if n == 1 else rf"\multicolumn{{{n}}}{{c}}{{{_escape_latex(t)}}}" for t, n in spans]
        heads += [_escape_latex(e) if last else "" for e in extras]
        lines.append(" & ".join(heads) + r" \\")
    lines += [r"\midrule", *(" & ".join(line) + r" \\" for line in body), r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(rf"\par\footnotesize {_escape_latex(note)}" for note in table.notes)])


def csv_text(table: Table, _decimals: int) -> str:
    """Plain numbers in full precision: for each column its mean, standard deviation and number of seeds."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [" / ".join(column) for column in table.columns]
    parts = [f"{name} {part}" for name in names for part in ("mean", "std", "seeds")]
    writer.writerow([*table.row_keys, *parts, *_extra_headers(table)])
    for row in table.rows:
        line: list[str] = [_defuse(label) for label in row]
        for column in table.columns:
            cell = table.cells.get((row, column))
            spread = "" if cell is None or cell.spread is None else repr(cell.spread)
            line += ["", "", "0"] if cell is None else [repr(cell.mean), spread, str(cell.seeds)]
        writer.writerow([*line, *table.extras.get(row, {}).values()])
    return file.getvalue().rstrip("\n")


def html_text(table: Table, decimals: int) -> str:
    """A self-contained fragment: a table with a small style, and the notes below it."""
    marks = {0: "<b>{}</b>", 1: "<u>{}</u>", 2: "{}"}
    extras = _extra_headers(table)
    body = _body(table, lambda cell: marks[cell.rank].format(cell.text(decimals)), html.escape)
    head = []
    for level in range(len(table.column_keys)):
        last = level == len(table.column_keys) - 1
        cells = [f"<th>{html.escape(key) if last else ''}</th>" for key in table.row_keys]
        spans = [(label, 1) for *_, label in table.columns] if last else _spans(table.columns, level)
        cells += [f"<th{f' colspan={n}' if n > 1 else ''}>{html.escape(text)}</th>" for text, n in spans]
        head.append("".join(cells) + "".join(f"<th>{e if last else ''}</th>" for e in extras))
    labels = len(table.row_keys)
    lines = []
    for line in body:
        tags = ["th" if i < labels else "td" for i in range(len(line))]
        lines.append("".join(f"<{tag}>{text}</{tag}>" for tag, text in zip(tags, line, strict=True)))
    rows = "\n".join(f"<tr>{line}</tr>" for line in lines)
    top = "\n".join(f"<tr>{line}</tr>" for line in head)
    notes = "\n".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return (
        f'{_STYLE}\n<table class="rice">\n<thead>\n{top}\n</thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n'
        f'<ul class="rice-notes">\n{notes}\n</ul>'
    )


WRITERS: dict[Format, Callable[[Table, int], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv_text,
    "html": html_text,
}


def _body(
    table: Table, show: Callable[[Cell], str], escape: Callable[[str], str] = lambda text: text
) -> list[list[str]]:
    lines = []
    for row in table.rows:
        cells = [table.cells.get((row, column)) for column in table.columns]
        shown = [EMPTY if cell is None else show(cell) for cell in cells]
        lines.append([*map(escape, row), *shown, *map(escape, table.extras.get(row, {}).values())])
    return lines


def _extra_headers(table: Table) -> list[str]:
    first = next(iter(table.extras.values()), {})
    return [_HEADERS[extra] for extra in first]


def _spans(columns: Sequence[tuple[str, ...]], level: int) -> list[tuple[str, int]]:
    """Runs of columns that are equal down to `level`: (label at that level, length)."""
    spans: list[tuple[str, int]] = []
    for i, column in enumerate(columns):
        if i and column[: level + 1] == columns[i - 1][: level + 1]:
            spans[-1] = (column[level], spans[-1][1] + 1)
        else:
            spans.append((column[level], 1))
    return spans


def _escape_latex(text: str) -> str:
    return re.sub(r"[\\&%$#_{}~^±<>]", lambda match: _LATEX[match[0]], text)


def _escape_markdown(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _defuse(text: str) -> str:
    """Spreadsheets run cells that begin like a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "@") else text
