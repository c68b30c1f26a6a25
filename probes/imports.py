"""Results that were made elsewhere, as results of ours: lmms-eval's and mteb's files, told apart by their content.

    for imported in read_results(Path("20260101_120000_results.json")):
        store(directory, imported.result)

Imports no torch. COCO detections and tracks have to be scored first: `probes.import_formats.detections`,
`reports.import_command`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from probes.import_formats import lmms_eval, mteb
from probes.import_formats.document import Document, read_document
from probes.import_formats.foreign import Imported, Whose
from probes.results import RESULTS, check_metrics, items_path, result_path, store
from probes.stored import parse
from rice.errors import RiceError

Kind = Literal["lmms-eval", "mteb", "mteb model", "detections"]
State = Literal["new", "already there", "replaces another"]

KNOWN = (
    "lmms-eval's aggregated *_results.json, mteb's TASK.json, COCO detections [{image_id, category_id, score, bbox or "
    "segmentation}, ...], or a folder of tracks"
)


def recognise(value: Any) -> Kind:
    """What a parsed file is, by its content. Errors: RiceError listing what is known."""
    if lmms_eval.recognises(value):
        return "lmms-eval"
    if mteb.recognises(value):
        return "mteb"
    if mteb.recognises_meta(value):
        return "mteb model"
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, dict) and {"image_id", "category_id", "score"} <= first.keys():
        return "detections"
    raise RiceError(f"is in no known format; expected {KNOWN}")


def read_results(source: Path | Document, whose: Whose | None = None, seed: int = 0) -> list[Imported]:
    """The results of one file of lmms-eval or mteb, none of a model's description.

    `whose`: the encoder that they belong to, None for the model that the file names. Errors: RiceError in one line that
    begins with the file, for whatever is wrong with it.
    """
    document = source if isinstance(source, Document) else read_document(source)
    try:
        kind = recognise(document.value)
        if kind == "mteb model":
            return []
        if kind == "detections":
            raise RiceError("holds detections, which must be scored first")
        read = lmms_eval.read_lmms_eval if kind == "lmms-eval" else mteb.read_mteb
        return list(read(document, whose, seed))
    except RiceError as error:
        raise RiceError(f"{document.path}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What storing an import would do."""

    imported: Imported
    state: State

    def store(self, directory: Path) -> None:
        """Write it unless it is there: its items first, since a result promises them."""
        if self.state == "already there":
            return
        items = items_path(directory, self.imported.result.key)
        if self.imported.write_items is not None:
            self.imported.write_items(items)
        else:
            items.unlink(missing_ok=True)
        store(directory, self.imported.result)


def plan(directory: Path, imports: Sequence[Imported], *, overwrite: bool = False) -> list[Planned]:
    """What is new under a sweep's --out and what is there; nothing is written.

    Errors: RiceError where a result of the same key says something else, unless `overwrite`; where two of `imports` do;
    where `directory` cannot be such a folder.
    """
    if directory.exists() and not directory.is_dir():
        raise RiceError(f"expected a folder as --out, got the file {directory}")
    if not (directory / RESULTS).is_dir() and any(len(path.stem) == 64 for path in directory.glob("*.json")):
        raise RiceError(f"expected the --out of a sweep, got its folder of results {directory}; give the one above it")
    planned: dict[str, Planned] = {}
    for imported in imports:
        result = imported.result
        if result.key in planned:
            other = planned[result.key].imported
            if _told(_document(other)) != _told(_document(imported)):
                raise RiceError(f"{_name(imported)} is given twice, with other values; import one, or give it a --seed")
            continue
        state = _state(result_path(directory, result.key), imported, overwrite)
        planned[result.key] = Planned(imported=imported, state=state)
    return list(planned.values())


def _state(path: Path, imported: Imported, overwrite: bool) -> State:
    try:
        stored = parse(path.read_bytes(), path.stem)
    except FileNotFoundError:
        return "new"
    except (OSError, RiceError) as error:
        if overwrite:
            return "replaces another"
        raise RiceError(f"{path} {error}; move it away, or replace it: --overwrite") from error
    there, here = _told(stored), _told(_document(imported))
    if there == here:
        return "already there"
    if overwrite:
        return "replaces another"
    field = next(name for name in here if there[name] != here[name])
    raise RiceError(
        f"{_name(imported)} is stored with other {field} ({path.name[:8]}...); import it under another --seed, or "
        "replace it: --overwrite"
    )


def _document(imported: Imported) -> dict[str, Any]:
    """As the store writes it."""
    return dataclasses.asdict(dataclasses.replace(imported.result, metrics=check_metrics(imported.result.metrics)))


def _told(document: dict[str, Any]) -> dict[str, Any]:
    """What two imports of one measurement must agree in."""
    values = {(m["name"], m["split"]): m for m in document["metrics"]}
    return {"values": values} | {name: document[name] for name in ("encoder", "reference", "dataset")}


def _name(imported: Imported) -> str:
    result = imported.result
    return f"{result.encoder}, {result.identity.probe} {result.dataset}, seed {result.seed}"
