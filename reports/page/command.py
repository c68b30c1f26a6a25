"""`rice report`: results, the paper's tables and figures as one static page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rice.errors import RiceError
from rice.files import format_bytes

if TYPE_CHECKING:
    from reports.paper.beside import Beside

TITLE = "Frozen vision encoders at dense work"


def report(
    results: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    out: Path,
    figures: tuple[Path, ...] = (),
    title: str = TITLE,
    card: bool = False,
) -> None:
    """Write results as a static page to look at, share and publish: OUT/index.html opens without a server.

    A leaderboard that sorts and filters, with error bars and the paper's numbers beside; every cell leads to what it
    was measured with; a page per encoder; clips and figures; the paper's tables; what was left out and why. Data,
    style and script are inside the page, and it asks nothing of any network; media above 2 MiB lie in OUT/media. The
    same command again replaces it. Example: rice report out/sweep --out site --figures out/pca

    Args:
        results: Sweeps' --out folders, or their results folders.
        out: Folder for the site: new, empty, or of an earlier report.
        figures: Folders that are searched for what rice pca, tsne, tokens and the like wrote; links are not followed.
        title: Heading of the page.
        card: Write a model card for each encoder, too: OUT/cards.
    """
    from probes.results import rows_of
    from reports.measurements import measurements
    from reports.page.build import refuse_foreign, write_site
    from reports.page.content import fingerprints, page_data
    from reports.page.media import find
    from reports.paper.beside import beside
    from reports.reading import read, say_left_out

    if not results:
        raise RiceError("expected a sweep's --out folder; see: rice report --help")
    refuse_foreign(out)
    documents, left = read(results)
    shown, left_of_figures = find(figures)
    left += left_of_figures
    found = measurements(rows_of(documents))
    besides = beside(found)
    data = page_data(documents, found, besides)
    data["left"] = [[one.file, one.reason] for one in left]
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(fingerprints(data)):
        for name in names:
            rows.setdefault(name, []).append(row)
    page = write_site(out, title=title, data=data, figures=shown, tables=_paper(besides), rows_of=rows)
    if card:
        from reports.cards.hub import write_cards

        write_cards(documents, out)
    say_left_out(left)
    counts = f"encoders: {len(data['rows'])}, cells: {len(data['cells'])}, figures: {len(shown)}"
    print(f"wrote {page} ({format_bytes(page.stat().st_size)}): {counts}")  # noqa: T201


def _paper(besides: "Sequence[Beside]") -> list[tuple[str, str]]:
    """(name, HTML) of each of the paper's tables, measured rows below the reported ones."""
    from reports.grid import grid_html
    from reports.paper.printed import TABLES
    from reports.paper.tables import paper_grid

    return [(table, grid_html(paper_grid(table, besides))) for table in TABLES]
