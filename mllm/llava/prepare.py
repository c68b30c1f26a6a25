"""The verb `rice llava prepare`: conversations about pictures, from whatever layout, as one checked folder of rows."""

import contextlib
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from mllm.llava.parse import Change, Draft, Picture, Reason, RefusedRowError, id_of, parse_row
from mllm.llava.pictures import IMAGES, THREADS, Found, Gallery, PictureConfig
from mllm.llava.rows import FORMAT, PREPARED, ROWS, ROWS_PER_GROUP, Row
from mllm.llava.rows_writer import RowsWriter, writing_rows
from mllm.llava.sources import Source, find_sources
from mllm.llava.tally import Tally, lines, total
from rice.errors import RiceError
from rice.files import leftovers, publish_folder, remove_folder, sha256_json, temporary_folder, write_json
from rice.progress import BarProgress, Progress
from rice.runs import RUN, refuse_other, same_run

_BATCH, _PARQUET_BATCH = 32 * ROWS_PER_GROUP, ROWS_PER_GROUP
"""Rows at a time; those in Parquet bring their pictures along."""


def prepare(
    rows: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    out: Path,
    pictures: Annotated[PictureConfig, tyro.conf.arg(name="")],
    images: Path | None = None,
    strict: bool = False,
) -> None:
    """Check conversations about pictures and write them as one folder that `rice llava train` reads.

    Layouts, in .json (a list, or an object with "data"), .jsonl or .parquet: LLaVA's (conversations of from/value, with
    image), ShareGPT's (messages of role/content, with images), Mantis's (conversation of role/content, with images),
    DocVQA's (question, answers, image). Several pictures in a row and none are both fine. Videos are not supported:
    their rows are refused. Several files become one mixture, in their order; the column source says whose a row is.

    A row is kept, or refused for a reason that is counted and named: a missing or unreadable picture, a path that
    leaves the image root, another number of <image> marks than pictures, an unknown role, turns that do not alternate,
    no answer, a picture that is too long for its width. As LLaVA-NeXT does, an answer before the first question is
    dropped and the only mark of a turn moves to its front; one picture without a mark gets one. That is counted, too.

    OUT/rows.parquet holds the rows, OUT/prepared.json all counts with the first 20 rows of every reason, OUT/images
    pictures that came as bytes, in Parquet. The same command makes the same folder anew.

    Example: rice llava prepare blip_laion_cc_sbu_558k.json --images pretrain/images --out rows/stage1

    A mixture: rice llava prepare LLaVA-NeXT-Data/ mantis/train.json --out rows/stage2

    Args:
        rows: Files, or folders of Parquet files as the hub has them.
        out: Folder to write: a new one, or the one that this command wrote.
        images: Folder that image paths start from; each file's own folder where it is not given.
        pictures: Which pictures are taken.
        strict: Write nothing, and say why, where a row would be refused.
    """
    for path in leftovers(out):
        print(f"left by a run that was killed, or another one at work: {path}")  # noqa: T201
    report = prepare_rows(rows, images, out, config=pictures, strict=strict, progress=BarProgress())
    print("\n".join(lines(report)))  # noqa: T201
    print(f"{report['kept']:,} rows with {report['pictures']:,} pictures written to {out}")  # noqa: T201


def prepare_rows(
    sources: Sequence[Path],
    images: Path | None,
    out: Path,
    *,
    config: PictureConfig,
    progress: Progress,
    strict: bool = False,
) -> dict[str, Any]:
    """Write `out` as a whole, from files or folders of rows; returns what prepared.json says.

    images: the image root; None: paths start from the folder of the file that names them. strict: a refused row is an
    error.
    Errors: RiceError: a source that cannot be read; no row is left; `out` holds something else; see `strict`.
    """
    found = find_sources(sources)
    root, prefixes = _image_root(found, images)
    facts = _facts(found, root, config, progress)
    _refuse_foreign(out, facts, sources)
    with _replaced(out) as folder:
        gallery = Gallery(root, folder, config)
        with writing_rows(folder / ROWS) as writer, ThreadPoolExecutor(THREADS, thread_name_prefix="look") as pool:
            mixture = _Mixture(gallery, pool, writer)
            tallies = {source.name: mixture.add(source, prefixes[source.name], progress) for source in found}
        _check(total(tallies.values()), root, strict)
        report = _report(found, tallies, facts, config)
        report |= {"pictures": writer.pictures, "text_only": writer.text_only, "fingerprint": writer.fingerprint()}
        write_json(folder / PREPARED, report)
        same_run(folder, facts)
    return report


class _Mixture:
    """Rows of one source after another, with ids that are unique among all."""

    def __init__(self, gallery: Gallery, pool: ThreadPoolExecutor, writer: RowsWriter) -> None:
        self.gallery, self.pool, self.writer = gallery, pool, writer
        self.taken: Counter[str] = Counter()

    def add(self, source: Source, prefix: str, progress: Progress) -> Tally:
        """Write the source's rows; returns what became of them. prefix: of its image paths."""
        tally = Tally()
        values = progress.track(enumerate(source.values()), f"reading {source.name}", source.count())
        while batch := list(itertools.islice(values, _PARQUET_BATCH if source.in_parquet else _BATCH)):
            self._add(source, prefix, batch, tally)
        return tally

    def _add(self, source: Source, prefix: str, batch: list[tuple[int, Any]], tally: Tally) -> None:
        drafts = [(id_of(value) or f"{source.name}-{index}", _parsed(value, prefix)) for index, value in batch]
        named = [picture for _, draft in drafts if isinstance(draft, Draft) for picture in draft.pictures]
        looked = self.gallery.look(named, self.pool)
        for name, draft in drafts:
            if isinstance(draft, RefusedRowError):
                tally.refuse(name, draft)
                continue
            seen = [looked[picture] for picture in draft.pictures]
            refusal = next((one for one in seen if isinstance(one, RefusedRowError)), None)
            if refusal is not None:
                tally.refuse(name, refusal)
                continue
            unique = self._unique(name)
            found = [one for one in seen if isinstance(one, Found)]
            for picture, one in zip(draft.pictures, found, strict=True):
                self.gallery.keep(picture, one.name)
            self.writer.write(source.name, _row(unique, draft, found))
            tally.keep([*draft.changes, *([Change.ID_MADE] if unique != name else [])])

    def _unique(self, name: str) -> str:
        """The name, or NAME#2, NAME#3, ... where others have it."""
        chosen = name
        while chosen in self.taken:
            self.taken[name] += 1
            chosen = f"{name}#{self.taken[name]}"
        self.taken[chosen] += 1
        return chosen


def _parsed(value: Any, prefix: str) -> Draft | RefusedRowError:
    if isinstance(value, RefusedRowError):  # a line that is no JSON
        return value
    try:
        draft = parse_row(value)
    except RefusedRowError as error:
        return error
    placed = (picture if picture.content is not None else Picture(prefix + picture.path) for picture in draft.pictures)
    return replace(draft, pictures=tuple(placed)) if prefix else draft


def _row(name: str, draft: Draft, found: Sequence[Found]) -> Row:
    return Row(name, draft.turns, tuple(one.name for one in found), tuple((one.height, one.width) for one in found))


def _image_root(sources: Sequence[Source], images: Path | None) -> tuple[Path, dict[str, str]]:
    """The image root, and what stands before the image paths of each source, "" or "FOLDER/".

    Where `images` is not given, a source's paths start from its own folder, and the root is what all folders share.
    Errors: RiceError where there is no such folder.
    """
    if not sources:
        raise RiceError("expected files of rows before --out: .json, .jsonl or .parquet")
    if images is not None:
        if not images.is_dir():
            raise RiceError(f"expected the folder of the pictures, found none at {images}; correct --images")
        return images.resolve(), {source.name: "" for source in sources}
    folders = {source.name: source.folder.resolve() for source in sources}
    root = Path(os.path.commonpath(folders.values()))
    below = {name: folder.relative_to(root).as_posix() for name, folder in folders.items()}
    return root, {name: "" if path == "." else f"{path}/" for name, path in below.items()}


def _facts(sources: Sequence[Source], root: Path, config: PictureConfig, progress: Progress) -> dict[str, Any]:
    """What makes two runs the same: the files' bytes, the image root, the limits."""
    digests = [[source.name, sha256_json(source.digests())] for source in progress.track(sources, "hashing the files")]
    return {"made_by": "rice llava prepare", "rows": digests, "images": str(root)} | asdict(config)


def _refuse_foreign(out: Path, facts: dict[str, Any], places: Sequence[Path]) -> None:
    """Errors: RiceError where `out` holds anything but what the same command wrote, or lies where it reads."""
    inside = [place for place in places if place.is_dir() and out.resolve().is_relative_to(place.resolve())]
    if inside:
        raise RiceError(f"--out {out} lies in {inside[0]}, whose Parquet files are read; choose a place outside")
    refuse_other(out, facts, RUN)
    foreign = sorted({path.name for path in out.iterdir()} - {RUN, ROWS, PREPARED, IMAGES}) if out.is_dir() else []
    if foreign:
        raise RiceError(f"--out {out} also holds {foreign[0]!r}, which would be removed; choose another --out")


@contextlib.contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """A folder that takes the place of `out` on a clean exit, and leaves everything as it was on an exception."""
    temporary = temporary_folder(out)
    try:
        yield temporary
        if out.exists():
            remove_folder(out)
        publish_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(whole: Tally, root: Path, strict: bool) -> None:
    """Errors: RiceError with all reasons where no row is left, or one is refused and none may be."""
    refused = whole.read - whole.kept
    if not whole.kept or (strict and refused):
        wish = "every row to be sound" if strict else "rows to train on"
        said = "; ".join(whole.reasons()) or "the files are empty"
        said += f"; image paths start from {root}" if whole.refused[Reason.MISSING] else ""
        raise RiceError(f"expected {wish}, {refused:,} of {whole.read:,} are refused: {said}")


def _report(
    sources: Sequence[Source], tallies: dict[str, Tally], facts: dict[str, Any], config: PictureConfig
) -> dict[str, Any]:
    """prepared.json without what the rows hold."""
    whole = total(tallies.values())
    counts = whole.counts()
    named = {str(reason): rows for reason, rows in whole.named.items()}
    refused = {reason: {"count": count, "rows": named[reason]} for reason, count in counts["refused"].items()}
    of_sources = {source.name: tallies[source.name].counts() | {"sha256": source.digests()} for source in sources}
    facts = {"format": FORMAT, "images": facts["images"], "limits": asdict(config)}
    return facts | counts | {"refused": refused, "sources": of_sources}
