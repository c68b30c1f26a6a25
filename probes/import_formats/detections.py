"""COCO's results format, which has to be scored: boxes, and masks where there are any, as the detection probe does.

scored = score_detections(document, truth=Path("instances_val2017.json"), iou=None, dataset="coco", ...)
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

from probes.detection.bootstrap import items, standard_error, write_items
from probes.detection.score import IouType, Scores, judge, prepare
from probes.import_formats.document import Document, label, read_document
from probes.import_formats.foreign import Imported, Whose, make_result
from probes.protocol import Metric
from rice.errors import RiceError

PROBE = "detection"
NAMES: dict[IouType, str] = {"bbox": "box", "segm": "mask"}
"""As the detection probe names its metrics: box AP, mask AP50, ..."""

_ROBOFLOW = "_annotations.coco.json"


def score_detections(
    document: Document, *, truth: Path, iou: IouType | None, dataset: str | None, whose: Whose, seed: int
) -> Imported:
    """The result of a list of detections, by LVIS's protocol where the truth has its lists, else by COCO's.

    truth: in COCO's layout. iou: judge these only; None: what there is. dataset: None for the truth's name. Items are
    written for boxes, as the probe's. Errors: RiceError in one line, as `rice detect score`, or nothing to judge.
    """
    given = read_document(truth)
    known = given.value if isinstance(given.value, dict) else {}
    lvis = any("neg_category_ids" in image for image in _records(known, "images"))
    kinds = _kinds(document.value, known) if iou is None else [iou]
    metrics: list[Metric] = []
    scored: list[Scores] = []
    write = None
    for kind in kinds:
        # A mask's size is its own area, as the probe has it, so its box must not come along.
        results = document.value if kind == "bbox" else [_without_box(record) for record in document.value]
        try:
            inputs = prepare(given.value, results, iou=kind, lvis=lvis)
        except RiceError as error:
            raise RiceError(f"{document.path} against {truth.name}: {error}") from error
        table, scores = items(inputs), judge(inputs)
        if kind == "bbox":
            write = partial(write_items, table=table)
        metrics += _metrics(NAMES[kind], scores, standard_error(table), _split(truth))
        scored.append(scores)
    if not metrics:
        raise RiceError(f"{truth}: expected instances to be judged on, found none")
    notes = list(dict.fromkeys(note for scores in scored for note in scores.notes))
    result = make_result(
        whose=whose,
        model=["label", whose.label],
        weights=whose.label,
        probe=PROBE,
        dataset=label(dataset or _split(truth), "the dataset's name", identifier=True),
        data=given.sha256,
        config={"source": "COCO results", "iou": list(kinds), "lvis": lvis},
        settings={"imported_from": document.origin, "judged_on": given.origin, "notes": notes},
        metrics=metrics,
        versions=dict(scored[0].versions),
        seconds=0.0,
        seed=seed,
    )
    return Imported(result=result, notes=tuple(notes), write_items=write)


def _metrics(kind: str, scores: Scores, errors: dict[str, float], split: str) -> list[Metric]:
    """Those that the probe gives; what the truth has nothing of is left out."""
    rules = "LVIS's federated protocol" if scores.lvis else "COCO's protocol"
    return [
        Metric(
            name=f"{kind} {key}",
            value=value,
            n=scores.images,
            unit="fraction",
            higher_is_better=True,
            split=split,
            stderr=errors[key] if math.isfinite(errors.get(key, math.nan)) else None,
            protocol=f"{key} of {'boxes' if kind == 'box' else 'masks'}, {rules} ({scores.evaluator}); "
            "detections made elsewhere",
        )
        for key, value in scores.values.items()
        if value >= 0 and key.startswith("AP")
    ]


def _kinds(detections: list[Any], truth: dict[str, Any]) -> list[IouType]:
    """By the first of both, as the evaluators. Errors: RiceError where there is neither box nor mask."""
    first, annotations = detections[0], _records(truth, "annotations")
    kinds: list[IouType] = ["bbox"] if first.get("bbox") else []
    if first.get("segmentation") and any(record.get("segmentation") for record in annotations):
        kinds.append("segm")
    if not kinds:
        raise RiceError("expected boxes, or masks on both sides, in detections and truth, found none; see --iou")
    return kinds


def _records(document: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """Objects of a list of the truth; what is none is `prepare`'s to name."""
    records = document.get(part)
    return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []


def _without_box(record: Any) -> Any:
    return {key: value for key, value in record.items() if key != "bbox"} if isinstance(record, dict) else record


def _split(truth: Path) -> str:
    """instances_val2017.json -> val2017; Roboflow's files all have one name, and the split is their folder's."""
    return truth.parent.name if truth.name == _ROBOFLOW else truth.stem.removeprefix("instances_")
