"""`rice detect score`: AP of a results file, as a table, as JSON, and as files with curves."""

import csv
import json as json_format
from pathlib import Path
from typing import Annotated

import tyro

from probes.detection.curves import write_curves
from probes.detection.score import ClassScore, Evaluator, IouType, Scores, evaluate
from rice.errors import RiceError
from rice.files import atomic_write, write_json


def score(
    *,
    gt: Path,
    pred: Path,
    iou: IouType = "bbox",
    lvis: bool = False,
    evaluator: Evaluator = "faster",
    max_detections: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Score detections against a truth: average precision and recall as COCO or LVIS define them.

    Prints one line of averages and one line for each category, the best first. Figures are fractions as pycocotools
    prints them (0.432 is what papers write as 43.2); -1 means that the truth has nothing to judge there, as in
    pycocotools. AP is the mean over IoU .50 to .95; AP50 and AP75 are at one IoU; s, m, l are for areas up to 32x32
    pixels, up to 96x96 and over it; AR100 is the recall with 100 detections; LVIS's APr, APc, APf are for its rare,
    common and frequent categories.

    Bad input ends with one line and status 2, and nothing is written.

    Example: rice detect score --gt annotations/instances_val2017.json --pred results.json

    Masks: rice detect score --gt instances_val2017.json --pred results.json --iou segm --out scores/

    LVIS: rice detect score --gt lvis_v1_val.json --pred results.json --iou segm --lvis

    Args:
        gt: Truth in COCO's layout (Roboflow's exports too): images, categories, annotations.
        pred: Results in COCO's format: [{"image_id": 139, "category_id": 1, "bbox": [x, y, width, height], "score":
            0.9}, ...]; for masks "segmentation" with run lengths or polygons. Where the first has a box, s, m, l go by
            the boxes' areas, for masks too.
        iou: What overlaps: bbox or segm (masks).
        lvis: LVIS's federated protocol; the truth then needs neg_category_ids, not_exhaustive_category_ids, frequency.
        evaluator: faster: faster-coco-eval, the same figures in a fraction of the time; pycocotools, lvis: the
            references (lvis needs the extra `lvis`, and --lvis).
        max_detections: Judge the N best of each category in an image instead of 100; with --lvis the N best of an
            image instead of 300.
        json: Print one JSON object instead of tables.
        out: Folder for scores.json, per_class.csv, and precision over recall as precision_recall.png and .pdf and
            precision_recall_classes.png and .pdf.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise RiceError(f"expected a folder as --out, got the file {out}")
    scores = evaluate(gt, pred, iou=iou, lvis=lvis, evaluator=evaluator, max_detections=max_detections)
    if out is not None:
        _write(out, scores)
    print(json_format.dumps(scores.as_json(), allow_nan=False) if json else table(scores))  # noqa: T201
    if out is not None and not json:
        print(f"written to {out}")  # noqa: T201


def table(scores: Scores) -> str:
    """What a person reads: averages, sizes, categories by descending AP."""
    engine = ", ".join(f"{name} {version}" for name, version in scores.versions.items())
    protocol = "LVIS" if scores.lvis else "COCO"
    lines = [
        f"{scores.iou}, {protocol}'s protocol, by {engine}: "
        f"{scores.images:,} images, {scores.detections:,} detections, {len(scores.per_class):,} categories",
        "  ".join(f"{name:>6}" for name in scores.values),
        "  ".join(f"{_figure(value):>6}" for value in scores.values.values()),
        "",
        f"{'AP':>6}  {'AP50':>6}  {'instances':>9}  {'id':>5}  category",
    ]
    ordered = sorted(scores.per_class, key=_rank)
    lines += [f"{_figure(c.ap):>6}  {_figure(c.ap50):>6}  {c.instances:>9,}  {c.id:>5}  {c.name}" for c in ordered]
    return "\n".join([*lines, *(f"note: {note}" for note in scores.notes)])


def _rank(scored: ClassScore) -> tuple[float, int]:
    return -scored.ap, scored.id


def _figure(value: float) -> str:
    return "-1" if value == -1 else f"{value:.3f}"


def _write(out: Path, scores: Scores) -> None:
    """scores.json comes last: where it stands, the other files belong to it."""
    write_curves(out, scores)
    with atomic_write(out / "per_class.csv") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "name", "AP", "AP50", "instances"])
        rows.writerows([c.id, c.name, c.ap, c.ap50, c.instances] for c in scores.per_class)
    write_json(out / "scores.json", scores.as_json())
