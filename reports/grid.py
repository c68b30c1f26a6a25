"""A table as texts in cells, however it came about, and its four formats.

Labels and notes come from users' files, so each writer escapes them for its format.
"""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Format = Literal["markdown", "latex", "csv", "html"]
SUFFIXES: dict[Format, str] = {"markdown": ".md", "latex": ".tex", "csv": ".csv", "html": ".html"}
EMPTY = "-"
BEST, SECOND, OTHER = 0, 1, 2

STYLE = """<style>
.rice{border-collapse:collapse;font:14px/1.5 system-ui,sans-serif;border-top:2px solid;border-bottom:2px solid}
.rice thead{border-bottom:1px solid}
.rice th,.rice td{padding:.25em .8em;text-align:right;font-variant-numeric:tabular-nums}
.rice th[colspan]{text-align:center;border-bottom:1px solid #8888}
.rice thead th.label,.rice tbody th{text-align:left}
.rice tbody th{font-weight:normal}
.rice tbody tr.block th{text-align:center;font-style:italic;border-top:1px solid;border-bottom:1px solid #8888}
.rice tbody tr.gain{color:#1a6f3c;background:#1a6f3c14}
.rice tbody tr.gain th,.rice tbody tr.gain td{border-bottom:1px solid #8888}
.rice-notes{max-width:80em;font:12px/1.5 system-ui,sans-serif;opacity:.8}
@media(prefers-color-scheme:dark){.rice tbody tr.gain{color:#7fd8a3}}
</style>"""

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
    "↑": r"$\uparrow$", "ρ": r"$\rho$", "\u2212": "$-$", "\u00d7": r"$\times$",  # noqa: RUF001 - as printed
}  # fmt: skip
_POWER = re.compile(r"\^([A-Za-z]+)")
"""MME^Cog: the paper's superscripts."""


@dataclass(frozen=True)
class Entry:
    """A cell. `rank`: BEST of its group, SECOND, or OTHER. `mark`: letters of the notes that it refers to."""

    text: str
    rank: int = OTHER
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """A row of entries; a `block`'s title, one entry over the whole width; or the `gain` of one row over another."""

    entries: tuple[Entry, ...]
    kind: Literal["row", "block", "gain"] = "row"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """`heads`: levels of the head, each (text, columns that it spans); the first `labels` columns name the rows.

    `names`: of the columns where the head has one line only; by default the levels joined: 'COCO / Det AP'.
    """

    heads: list[list[tuple[str, int]]]
    labels: int
    lines: list[Line]
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    caption: str = ""

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(span for _, span in self.heads[-1])


def grid_markdown(grid: Grid) -> str:
    """A pipe table (GitHub's Markdown; the second best is underlined by <u>), then the notes as a list."""
    lines = [[*map(_escape_markdown, _flat_head(grid))], *(_markdown_line(line, grid.width) for line in grid.lines)]
    widths = [max(len(line[i]) for line in lines) for i in range(grid.width)]
    rule = ["-" * w if i < grid.labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    pad = [
        [t.ljust(w) if i < grid.labels else t.rjust(w) for i, (t, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in [pad[0], rule, *pad[1:]])
    caption = f"{_escape_markdown(grid.caption)}\n\n" if grid.caption else ""
    return caption + table + "\n\n" + "\n".join(f"- {_escape_markdown(note)}" for note in grid.notes)


def grid_latex(grid: Grid) -> str:
    """A booktabs tabular; with a caption a `table*` that is scaled to the text's width. Notes follow in small print.

    Needs booktabs; with a caption graphicx, too.
    """
    lines = [rf"\begin{{tabular}}{{{'l' * grid.labels}{'r' * (grid.width - grid.labels)}}}", r"\toprule"]
    for level in grid.heads:
        lines.append(" & ".join(_latex_head(text, span) for text, span in level) + r" \\")
        lines += _rules(level)
    before = "head"
    for line in grid.lines:
        if before == "head" or (line.kind == "block" and before != "block") or (before == "gain" != line.kind):
            lines.append(r"\midrule")
        before = line.kind
        lines.append(_latex_line(line, grid.width))
        lines += [r"\midrule"] if line.kind == "block" else []
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [rf"\par\footnotesize {escape_latex(note)}" for note in grid.notes]
    caption = re.sub(r"^Table \w+\. ", "", grid.caption)  # LaTeX numbers tables itself
    if not grid.caption:
        return "\n".join([*lines, *notes])
    head = ["% needs booktabs and graphicx", r"\begin{table*}", r"\centering", r"\resizebox{\textwidth}{!}{%"]
    gap = [r"\par\smallskip"]
    return "\n".join([*head, *lines, "}", *gap, *notes, rf"\caption{{{escape_latex(caption)}}}", r"\end{table*}"])


def grid_html(grid: Grid) -> str:
    """A table and its notes; `STYLE` makes it look like print."""
    head = "\n".join(
        "<tr>" + "".join(_html_head(grid, level, i) for i in range(len(level))) + "</tr>" for level in grid.heads
    )
    rows = "\n".join(_html_line(line, grid) for line in grid.lines)
    notes = "\n".join(f"<li>{html.escape(note)}</li>" for note in grid.notes)
    caption = f"<caption>{html.escape(grid.caption)}</caption>\n" if grid.caption else ""
    return (
        f'<table class="rice">\n{caption}<thead>\n{head}\n</thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n'
        f'<ul class="rice-notes">\n{notes}\n</ul>'
    )


def page(grid: Grid) -> str:
    """A self-contained fragment: `grid_html` below a small style."""
    return f"{STYLE}\n{grid_html(grid)}"


GRID_WRITERS: dict[Format, Callable[[Grid], str]] = {"markdown": grid_markdown, "latex": grid_latex, "html": page}
"""CSV holds numbers, which a grid of texts does not."""


def escape_latex(text: str) -> str:
    """Every character that TeX would act on, as the one that it prints."""
    parts = _POWER.split(text)  # text, power, text, ...
    return "".join(
        rf"\textsuperscript{{{part}}}" if i % 2 else re.sub(f"[{re.escape(''.join(_LATEX))}]", _printed, part)
        for i, part in enumerate(parts)
    )


def defuse(text: str) -> str:
    """Spreadsheets run cells that begin like a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "@") else text


def _printed(match: re.Match[str]) -> str:
    return _LATEX[match[0]]


def _escape_markdown(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _flat_head(grid: Grid) -> list[str]:
    if grid.names:
        return grid.names
    columns: list[list[str]] = [[] for _ in range(grid.width)]
    for level in grid.heads:
        texts = [text for text, span in level for _ in range(span)]
        for column, text in zip(columns, texts, strict=True):
            column += [text] if text else []
    return [" / ".join(column) for column in columns]


def _markdown_line(line: Line, width: int) -> list[str]:
    marks = {BEST: "**{}**", SECOND: "<u>{}</u>", OTHER: "{}"}
    texts = [
        marks[entry.rank].format(_escape_markdown(entry.text)) + (f"<sup>{entry.mark}</sup>" if entry.mark else "")
        for entry in line.entries
    ]
    if line.kind == "block":
        texts[0] = f"*{texts[0]}*"
    return texts + [""] * (width - len(texts))


def _latex_head(text: str, span: int) -> str:
    return escape_latex(text) if span == 1 else rf"\multicolumn{{{span}}}{{c}}{{{escape_latex(text)}}}"


def _rules(level: Sequence[tuple[str, int]]) -> list[str]:
    """Thin rules below the heads that span several columns."""
    rules, column = [], 1
    for text, span in level:
        if span > 1 and text:
            rules.append(rf"\cmidrule(lr){{{column}-{column + span - 1}}}")
        column += span
    return [" ".join(rules)] if rules else []


def _latex_line(line: Line, width: int) -> str:
    texts = [_latex_entry(entry) for entry in line.entries]
    if line.kind == "block":
        return rf"\multicolumn{{{width}}}{{c}}{{\textit{{{texts[0]}}}}} \\"
    if line.kind == "gain":
        texts = [rf"\textit{{{text}}}" if text else "" for text in texts]
    return " & ".join(texts) + r" \\"


def _latex_entry(entry: Entry) -> str:
    text = {BEST: r"\textbf{{{}}}", SECOND: r"\underline{{{}}}", OTHER: "{}"}[entry.rank].format(
        escape_latex(entry.text)
    )
    return text + (rf"\textsuperscript{{{entry.mark}}}" if entry.mark else "")


def _html_head(grid: Grid, level: Sequence[tuple[str, int]], index: int) -> str:
    text, span = level[index]
    label = sum(s for _, s in level[:index]) < grid.labels
    return f"<th{' class=label' if label else ''}{f' colspan={span}' if span > 1 else ''}>{_powers(text)}</th>"


def _html_line(line: Line, grid: Grid) -> str:
    if line.kind == "block":
        return f'<tr class="block"><th colspan={grid.width}>{html.escape(line.entries[0].text)}</th></tr>'
    cells = []
    for i, entry in enumerate(line.entries):
        tag = "th" if i < grid.labels else "td"
        text = {BEST: "<b>{}</b>", SECOND: "<u>{}</u>", OTHER: "{}"}[entry.rank].format(html.escape(entry.text))
        mark = f"<sup>{html.escape(entry.mark)}</sup>" if entry.mark else ""
        cells.append(f"<{tag}>{text}{mark}</{tag}>")
    gain = ' class="gain"' if line.kind == "gain" else ""
    return f"<tr{gain}>{''.join(cells)}</tr>"


def _powers(text: str) -> str:
    return _POWER.sub(r"<sup>\1</sup>", html.escape(text))
