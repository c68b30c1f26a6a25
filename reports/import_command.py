"""`rice import`: results made elsewhere, into the store of results; detections and tracks are scored first."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from probes.detection.score_inputs import IouType
from probes.import_formats.document import Document, label, read_document
from probes.import_formats.foreign import Imported, Whose, make_result
from probes.imports import KNOWN, Planned, plan, read_results, recognise
from rice.errors import RiceError
from rice.files import sha256_file, sha256_json
from tracking.items import metrics, write_items
from tracking.protocols import DEFAULT_PROTOCOL, PROTOCOLS, READS, known

_MARKS = {"new": "stored", "already there": "already there", "replaces another": "replaced"}


def import_results(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    out: Path,
    encoder: str | None = None,
    dataset: str | None = None,
    seed: int = 0,
    gt: Path | None = None,
    iou: IouType | None = None,
    protocol: Annotated[str | None, tyro.conf.arg(metavar="{" + ",".join(PROTOCOLS) + "}")] = None,
    absent: Path | None = None,
    cover: Path | None = None,
    sizes: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Bring results made elsewhere into a folder of results, so that tables and reports show them beside our own.

    Takes lmms-eval's aggregated DATE_results.json, mteb's TASK.json (with the model_meta.json beside it), COCO
    detections, and folders of tracks; a file is known by its content. The latter two are scored first, as by rice
    detect score and rice track score. Values stay as the files have them; what a file does not say is left unknown.

    All files are checked before anything is written; bad input ends with one line and status 2. Importing a file again
    changes nothing.

    Example: rice import logs/org__model/20260101_120000_results.json --encoder rice-l14-560 --out out

    COCO: rice import results.json --gt instances_val2017.json --encoder rice-b16-512 --dataset coco --out out

    Tracks: rice import tracks/ --gt annos/ --absent absent/ --protocol lasot-matlab --encoder rice-b16-512 --out out

    Args:
        files: Files of results, folders of tracks.
        out: A sweep's --out, or a new folder.
        encoder: Whose results these are: a name of the zoo, which brings its facts (NAME@SIZE,layer=-2 says more), or
            any other label. Default: the model that lmms-eval or mteb names.
        dataset: What to call the data set of detections or tracks. Default: the name of --gt.
        seed: Which of several runs of the same measurement this is.
        gt: Truth of detections (COCO's layout) or tracks (a folder with a SEQUENCE.txt each).
        iou: Score only boxes (bbox) or only masks (segm) of detections. Default: whichever are there.
        protocol: Whose definitions score tracks; see rice track score --help.
        absent: Folder with a 1 for each frame where the target is absent, else 0.
        cover: Folder with GOT-10k's visible shares.
        sizes: File with a line SEQUENCE WIDTH HEIGHT for each, or JSON (got10k).
        overwrite: Replace stored results that say something else.
        dry_run: Show what would be stored, and write nothing.
    """
    if not files:
        raise RiceError(f"expected at least one file of results: {KNOWN}")
    whose = None if encoder is None else Whose.named(encoder)
    sides = {"absent": absent, "cover": cover, "sizes": sizes}
    scoring = _Scoring(whose=whose, dataset=dataset, seed=seed, gt=gt, iou=iou, protocol=protocol, sides=sides)
    planned = plan(out, _read(files, scoring), overwrite=overwrite)
    if not dry_run:
        for item in planned:
            item.store(out)
    print(summary(planned, out, dry_run=dry_run))  # noqa: T201


def summary(planned: Sequence[Planned], out: Path, *, dry_run: bool) -> str:
    """What a person reads: a line a result, what was left out, how to go on."""
    lines = [f"{_mark(item, dry_run):<13}  {_line(item.imported)}" for item in planned]
    lines += [f"note: {note}" for note in dict.fromkeys(n for item in planned for n in item.imported.notes)]
    there = sum(item.state == "already there" for item in planned)
    before = f", {there} there already" if there else ""
    if dry_run:
        return "\n".join([*lines, f"{len(planned) - there} to be stored in {out}{before}; nothing was written"])
    then = f"Next: rice tables {out}, or rice report {out}"
    return "\n".join([*lines, f"{len(planned) - there} stored in {out}{before}. {then}"])


def _mark(item: Planned, dry_run: bool) -> str:
    return item.state if dry_run else _MARKS[item.state]


def _line(imported: Imported) -> str:
    result = imported.result
    first, *others = result.metrics
    error = "" if first.stderr is None else f" ± {first.stderr:.3g}"
    unit = "" if first.unit in ("fraction", "as reported") else f" {first.unit}"
    count = f", n = {first.n:,}" if first.n else ""
    more = f", and {len(others)} more" if others else ""
    return (
        f"{result.encoder}  {result.identity.probe}  {result.dataset} ({first.split}{count})  "
        f"{first.name} {first.value:.4g}{unit}{error}{more}"
    )


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """The flags. `sides`: what accompanies a truth of tracks, by flag."""

    whose: Whose | None
    dataset: str | None
    seed: int
    gt: Path | None
    iou: IouType | None
    protocol: str | None
    sides: dict[str, Path | None]

    def owner(self, what: Path) -> Whose:
        """Errors: RiceError where nobody says whose results these are."""
        if self.whose is None:
            raise RiceError(f"{what} does not say whose results it holds; add --encoder NAME")
        return self.whose

    def truth(self, what: Path) -> Path:
        """Errors: RiceError where there is no truth to score against."""
        if self.gt is None:
            raise RiceError(f"{what} holds no scores; add --gt, the truth to score it against")
        return self.gt

    def check_use(self, kinds: set[str]) -> None:
        """Errors: RiceError for a flag that none of the files needs."""
        given = {"iou": self.iou, "protocol": self.protocol} | self.sides
        unused = {"gt": self.gt, "dataset": self.dataset} if not kinds & {"detections", "tracks"} else {}
        unused |= {"iou": given.pop("iou")} if "detections" not in kinds else {}
        given.pop("iou", None)
        unused |= given if "tracks" not in kinds else {}
        named = [f"--{name}" for name, value in unused.items() if value is not None]
        if named:
            raise RiceError(f"{', '.join(named)} is for results to be scored, of which there are none; leave it out")


def _read(files: Sequence[Path], scoring: _Scoring) -> list[Imported]:
    documents = [None if path.is_dir() else read_document(path) for path in files]
    kinds: list[str] = []
    for path, document in zip(files, documents, strict=True):
        try:
            kinds.append("tracks" if document is None else recognise(document.value))
        except RiceError as error:
            raise RiceError(f"{path} {error}") from error
    scoring.check_use(set(kinds))
    imports: list[Imported] = []
    for path, document, kind in zip(files, documents, kinds, strict=True):
        if document is None:
            imports.append(_score_tracks(path, scoring))
        elif kind == "detections":
            imports.append(_score_detections(document, scoring))
        else:
            imports += read_results(document, scoring.whose, scoring.seed)
    if not imports:
        raise RiceError("expected results, got only descriptions of models; give the files beside them")
    return imports


def _score_detections(document: Document, scoring: _Scoring) -> Imported:
    from probes.import_formats.detections import score_detections

    truth, whose = scoring.truth(document.path), scoring.owner(document.path)
    return score_detections(
        document, truth=truth, iou=scoring.iou, dataset=scoring.dataset, whose=whose, seed=scoring.seed
    )


def _score_tracks(folder: Path, scoring: _Scoring) -> Imported:
    """The result of a folder of tracks. Errors: RiceError, as `rice track score`."""
    from tracking.score import judge
    from tracking.score_inputs import Sides, read_predictions, read_truths

    truth, whose, protocol = scoring.truth(folder), scoring.owner(folder), known(scoring.protocol)
    sides = {name: path for name, path in scoring.sides.items() if path is not None}
    reads = {"sizes" if field == "size" else field for field in READS[protocol]}
    unread = sorted(sides.keys() - reads)
    if unread:
        raise RiceError(f"--{unread[0]} is not read: {protocol} does not use it; leave it out")
    truths, notes = read_truths(
        truth, Sides(absent=sides.get("absent"), cover=sides.get("cover"), sizes=sides.get("sizes"))
    )
    predictions, more = read_predictions(folder, truths)
    scores = judge(protocol, truths, predictions)
    notes = [*scores.notes, *notes, *more]
    benchmark = next((name for name, official in DEFAULT_PROTOCOL.items() if official == protocol), "folder")
    result = make_result(
        whose=whose,
        model=["label", whose.label],
        weights=whose.label,
        probe="tracking",
        dataset=label(scoring.dataset or truth.resolve().name, "the dataset's name", identifier=True),
        data=sha256_json({"gt": _hashes(truth)} | {name: _hashes(path) for name, path in sides.items()}),
        config={"source": "tracks", "protocol": protocol, "sides": sorted(sides)},
        settings={
            "imported_from": {"name": folder.resolve().name, "sha256": sha256_json(_hashes(folder))},
            "judged_on": truth.resolve().name,
            "notes": notes,
        },
        metrics=list(metrics(benchmark, scores, truth.resolve().name, "tracks made elsewhere")),
        versions={},
        seconds=0.0,
        seed=scoring.seed,
    )
    return Imported(
        result=result,
        notes=tuple(notes),
        write_items=partial(write_items, scores={benchmark: scores}),
    )


def _hashes(path: Path) -> dict[str, str]:
    """SHA-256 by name, of a file or of the text files of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.txt") if file.is_file())
    root = path.parent if path.is_file() else path
    return {label(file.relative_to(root).as_posix(), f"a file of {path}"): sha256_file(file) for file in files}
