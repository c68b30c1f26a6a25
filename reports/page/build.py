"""Writes the site: `index.html` with its data, style and script inside, and under `media/` what is too large for that.

Everything from files goes into blocks of JSON that the script reads as texts. The page's own policy lets run only the
script whose hash it names, and asks nothing of any network.
"""

import base64
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reports.cards.hub import CARDS
from reports.page.media import Asset, Figure
from rice.errors import RiceError
from rice.files import atomic_write, leftovers, sha256_file
from rice.page.single import INDEX, allowed_scripts, is_page, render

MEDIA = "media"
INLINE_BYTES = 2 << 20
"""Larger media lie beside the page."""

_VERB = "report"
_TEMPLATE = Path(__file__).parent / "template"
_SCRIPTS = (
    "store",
    "format",
    "bars",
    "board",
    "grid",
    "toolbar",
    "provenance",
    "encoder",
    "figures",
    "routes",
)
_OWN_MEDIA = re.compile(r"[0-9a-f]{16}\.(mp4|png|html)")
_FENCE = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="'
    "default-src 'none'; script-src {}; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; form-action 'none'; base-uri 'none'\">\n"
)
"""Before a page that another verb wrote: the scripts that it brings may draw, and ask nothing of any network."""


def refuse_foreign(out: Path) -> None:
    """Errors: RiceError unless `out` is new, empty, or holds only what an earlier report wrote."""
    if not out.exists():
        return
    if not out.is_dir():
        raise RiceError(f"--out {out} is a file; give a folder")
    own = {MEDIA, CARDS, *(path.name for path in leftovers(out / INDEX))}
    foreign = sorted(path.name for path in out.iterdir() if path.name not in own and not is_page(path, _VERB))
    media = out / MEDIA
    if media.is_dir():
        half_done = re.compile(rf"\.{_OWN_MEDIA.pattern}\..*\.tmp")
        names = sorted(path.name for path in media.iterdir())
        foreign += [f"{MEDIA}/{n}" for n in names if not (_OWN_MEDIA.fullmatch(n) or half_done.fullmatch(n))]
    if foreign:
        raise RiceError(f"--out {out} already holds {foreign[0]!r}, not written by this; choose another --out")


def write_site(
    out: Path,
    *,
    title: str,
    data: Mapping[str, Any],
    figures: Sequence[Figure],
    tables: Sequence[tuple[str, str]],
    rows_of: Mapping[str, Sequence[int]],
) -> Path:
    """Write or replace the site; returns its index.html. Media come first and stale ones go last, so that a reader
    never sees a page that lacks its clips.

    `data`: `reports.page.content.page_data`; `tables`: (name, HTML) of the paper's tables; `rows_of`: encoder's
    fingerprint -> rows of `data`. Errors: RiceError for an `out` that holds anything else.
    """
    refuse_foreign(out)
    store = _Media(out)
    shown = [_figure(figure, store, rows_of) for figure in figures]
    with atomic_write(out / INDEX, "wb") as file:
        file.write(_render(title, {**data, "title": title, "figures": shown}, tables, store.inline))
    for path in _stale(out, store.kept):
        path.unlink(missing_ok=True)
    return out / INDEX


class _Media:
    """Where assets go: into the page, or beside it under the hash of their content."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.inline: list[str] = []
        self.kept: set[str] = set()
        self._places: dict[str, dict[str, Any]] = {}

    def place(self, asset: Asset) -> dict[str, Any]:
        """{type, inline: number} or {type, file: relative path}. What is there twice is stored once."""
        digest = sha256_file(asset.path)
        if digest not in self._places:
            self._places[digest] = {"type": asset.media_type} | self._store(asset, digest)
        return self._places[digest]

    def _store(self, asset: Asset, digest: str) -> dict[str, Any]:
        if asset.suffix != ".html" and asset.path.stat().st_size <= INLINE_BYTES:
            self.inline.append(base64.b64encode(asset.path.read_bytes()).decode("ascii"))
            return {"inline": len(self.inline) - 1}
        name = f"{digest[:16]}{asset.suffix}"
        self.kept.add(name)
        with asset.path.open("rb") as source, atomic_write(self.out / MEDIA / name, "wb") as copy:
            if asset.suffix == ".html":
                scripts = allowed_scripts(asset.path.read_text(encoding="utf-8", errors="replace"))
                copy.write(_FENCE.format(scripts or "'none'").encode())
            shutil.copyfileobj(source, copy)
        return {"file": f"{MEDIA}/{name}"}


def _figure(figure: Figure, store: _Media, rows_of: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    return {
        "kind": figure.kind,
        "title": figure.title,
        "facts": figure.facts,
        "rows": sorted({row for encoder in figure.encoders for row in rows_of.get(encoder, ())}),
        "pictures": [store.place(asset) for asset in figure.pictures],
        "clip": None if figure.clip is None else store.place(figure.clip),
        "page": None if figure.page is None else store.place(figure.page),
    }


def _render(title: str, data: Mapping[str, Any], tables: Sequence[tuple[str, str]], media: Sequence[str]) -> bytes:
    return render(
        _TEMPLATE / "index.html.j2",
        _VERB,
        data,
        styles=[_TEMPLATE / "page.css"],
        scripts=[_TEMPLATE / f"{name}.js" for name in _SCRIPTS],
        title=title,
        tables=[(name, Markup(html)) for name, html in tables],
        media=media,
    )


def _stale(out: Path, kept: set[str]) -> Iterator[Path]:
    yield from leftovers(out / INDEX)
    if (out / MEDIA).is_dir():
        yield from [path for path in (out / MEDIA).iterdir() if path.name not in kept]
