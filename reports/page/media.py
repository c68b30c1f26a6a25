"""Clips and figures that other verbs made, found in folders: PCA, t-SNE, token distances, Table 5's curves.

Files found there may have been written by anybody: their kind is told by their first bytes, texts are only texts, links
are not followed, and what is not as expected is left out with its reason.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.stored import Rejected
from probes.visual.pca.workplace import REPORT, STRIP, VIDEO
from rice.errors import RiceError
from rice.files import read_json

_TSNE, _TOKENS, _CURVES = "tsne.json", "tokens.json", "table5.png"
_LARGEST_REPORT = 64 << 20
_DEPTH = 4
_INTERNAL = frozenset({"verb", "format", "digest", "commit"})
_HASH = re.compile(r"[0-9a-f]{64}")
_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".html": "text/html"}


@dataclass(frozen=True)
class Asset:
    """A file to show, checked to be of the kind that its name says."""

    path: Path

    @property
    def suffix(self) -> str:
        """'.mp4', '.png' or '.html'."""
        return self.path.suffix

    @property
    def media_type(self) -> str:
        """As browsers name it."""
        return _TYPES[self.suffix]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one folder shows. `facts` are (name, text) from its report; `encoders` the fingerprints that it names."""

    kind: str
    title: str
    facts: tuple[tuple[str, str], ...] = ()
    encoders: frozenset[str] = frozenset()
    pictures: tuple[Asset, ...] = ()
    clip: Asset | None = None
    page: Asset | None = None


def find(folders: Sequence[Path]) -> tuple[list[Figure], list[Rejected]]:
    """Figures anywhere under the folders, in the order of their paths, and what looks like one and is none.

    Errors: RiceError for a folder that is not there.
    """
    figures, left = [], []
    for root in folders:
        if not root.is_dir():
            raise RiceError(f"expected a folder of figures, got {root}; give what rice pca or rice tsne wrote")
        for place, folders_below, names in os.walk(root):
            folders_below.sort()
            for report in sorted({REPORT, _TSNE, _TOKENS, _CURVES} & set(names)):
                folder = Path(place)
                try:
                    figures.append(_figure(folder, report))
                except RiceError as error:
                    label = Path(root.resolve().name, folder.relative_to(root), report)
                    left.append(Rejected(str(label), str(error)))
    return figures, left


def _figure(folder: Path, name: str) -> Figure:
    if name == _CURVES:
        return Figure(kind="curves", title="Table 5 as curves", pictures=(_asset(folder / _CURVES),))
    report = _report(folder / name)
    encoders = frozenset(_fingerprints(report))
    if name == REPORT:
        return _pca(folder, report, encoders)
    if name == _TSNE:
        page = folder / "tsne.html"
        return Figure(
            kind="tsne",
            title=_title("t-SNE", report),
            facts=_scalars(report),
            encoders=encoders,
            pictures=(_asset(folder / "tsne.png"),),
            page=_asset(page) if page.exists() else None,
        )
    title, picture = _title("Token distances", report), _asset(folder / "tokens.png")
    return Figure(kind="tokens", title=title, facts=_scalars(report), encoders=encoders, pictures=(picture,))


def _pca(folder: Path, report: dict[str, Any], encoders: frozenset[str]) -> Figure:
    strip = folder / STRIP
    rows, columns = (_pair(report.get("grid")), _pair(_at(report, "key", "input")))
    facts = {
        "source": _at(report, "source", "name"),
        "encoder": _at(report, "encoder", "encoder"),
        "weights": _at(report, "encoder", "weights"),
        "input": f"{columns} px" if columns else None,
        "tokens": rows,
        "frames": _at(report, "key", "frames"),
        "stride": _at(report, "key", "stride"),
        "device": report.get("device"),
    }
    shown = tuple((name, str(value)) for name, value in facts.items() if isinstance(value, (str, int)))
    title = " — ".join(text for name, text in shown if name in ("source", "encoder")) or "PCA"
    pictures = (_asset(strip),) if strip.exists() else ()
    clip = _asset(folder / VIDEO)
    return Figure(kind="pca", title=title, facts=shown, encoders=encoders, pictures=pictures, clip=clip)


def _asset(path: Path) -> Asset:
    """Errors: RiceError unless `path` is a file itself, of its name's kind."""
    if path.is_symlink() or not path.is_file():
        raise RiceError(f"expected the file {path.name} beside it; run the verb again")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise RiceError(f"{path.name} cannot be read: {error.strerror}") from error
    expected = {
        ".mp4": start[4:8] == b"ftyp",
        ".png": start.startswith(b"\x89PNG\r\n\x1a\n"),
        ".html": start.lstrip().lower().startswith((b"<!doctype html", b"<html")),
    }
    if not expected[path.suffix]:
        raise RiceError(f"{path.name} is not what its name says; run the verb again")
    return Asset(path)


def _report(path: Path) -> dict[str, Any]:
    if path.is_symlink() or path.stat().st_size > _LARGEST_REPORT:
        raise RiceError("is a link, or larger than any report; run the verb again")
    try:
        report = read_json(path)
    except RiceError as error:
        raise RiceError("is not JSON that can be read; run the verb again") from error
    if not isinstance(report, dict):
        raise RiceError("is not a report; run the verb again")
    return report


def _at(report: Mapping[str, Any], *keys: str) -> Any:
    value: Any = report
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _pair(value: Any) -> str | None:
    """[32, 48], which is height and width, as '48 × 32'."""
    pair = isinstance(value, list) and len(value) == 2 and all(type(edge) is int for edge in value)
    return f"{value[1]} × {value[0]}" if pair else None  # noqa: RUF001


def _title(what: str, report: Mapping[str, Any]) -> str:
    """'Token distances — a, b': the encoders as the report labels them."""
    encoders = report.get("encoders")
    found = [_at(one, "label") for one in encoders if isinstance(one, dict)] if isinstance(encoders, list) else []
    labels = [label for label in found if isinstance(label, str)]
    return f"{what} — {', '.join(labels)}" if labels else what


def _scalars(report: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A report's caption; else texts and numbers of its settings, without those that only the program reads."""
    caption = report.get("caption")
    if isinstance(caption, str):
        return (("", caption),)
    config = report.get("config")
    fields = config if isinstance(config, dict) else report
    plain = {name: str(value) for name, value in fields.items() if value and isinstance(value, (str, int, float))}
    return tuple((name, text) for name, text in plain.items() if name not in _INTERNAL and not _HASH.fullmatch(text))


def _fingerprints(value: Any, depth: int = _DEPTH) -> Iterator[str]:
    """Texts under `fingerprint` or `fingerprints`, wherever a report keeps its encoders."""
    if depth and isinstance(value, dict):
        for name, inner in value.items():
            if name == "fingerprint" and isinstance(inner, str):
                yield inner
            elif name == "fingerprints" and isinstance(inner, list):
                yield from (one for one in inner if isinstance(one, str))
            else:
                yield from _fingerprints(inner, depth - 1)
    elif depth and isinstance(value, list):
        for inner in value:
            yield from _fingerprints(inner, depth - 1)
