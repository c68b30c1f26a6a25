"""How good are these boxes or masks? Average precision in COCO's or LVIS's protocol, by a choice of engines.

Shapes: T = 10 IoU thresholds, R = 101 recalls, K categories by id.

    scores = evaluate(Path("instances_val2017.json"), Path("results.json"), iou="bbox")
    scores.values["AP"], scores.per_class[0].ap
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.detection.evaluators import Curves, Evaluator, limits, run, version
from probes.detection.score_inputs import FREQUENCIES, Inputs, IouType, prepare

__all__ = ["ClassScore", "Evaluator", "Inputs", "IouType", "Scores", "evaluate", "judge", "prepare"]

_AREA_LETTERS = ("s", "m", "l")
_IOU_50, _IOU_75 = 0, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One category. ap, ap50: fractions, all areas, -1 without instances; instances: those that count (no crowds)."""

    id: int
    name: str
    ap: float
    ap50: float
    instances: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What an evaluator says.

    values: fractions as pycocotools prints them, -1 where the truth has nothing to judge.
        COCO: AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl. LVIS: AP AP50 AP75 APs APm APl APr APc APf AR300 ARs
        ARm ARl. With another limit of detections, ARn carries its number.
    precision: (T, R, K), all areas, at the largest limit; -1 for categories without instances.
    detections: predictions on the judged images, before any limit. notes: where ours would differ from a bare engine.
    """

    iou: IouType
    evaluator: Evaluator
    lvis: bool
    values: dict[str, float]
    per_class: tuple[ClassScore, ...]
    precision: NDArray[np.float64]
    images: int
    detections: int
    versions: dict[str, str]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """`values` at the top level, and everything else but the curves."""
        return {
            **self.values,
            "iou": self.iou,
            "evaluator": self.evaluator,
            "lvis": self.lvis,
            "images": self.images,
            "detections": self.detections,
            "per_class": [
                {"id": c.id, "name": c.name, "AP": c.ap, "AP50": c.ap50, "instances": c.instances}
                for c in self.per_class
            ],
            "versions": self.versions,
            "notes": list(self.notes),
        }


def evaluate(
    truth: Path | Mapping[str, Any],
    predictions: Path | Sequence[Mapping[str, Any]],
    *,
    iou: IouType,
    lvis: bool = False,
    evaluator: Evaluator = "faster",
    max_detections: int | None = None,
    image_ids: Iterable[int] | None = None,
) -> Scores:
    """Score predictions in COCO's results format against a truth in COCO's layout.

    lvis: LVIS's federated protocol. max_detections: instead of 100 for each category in an image (LVIS: 300 an image).
    image_ids: judge only these. Where the first prediction has a box, small, medium and large go by the boxes' areas,
    for masks too, as in pycocotools; leave the boxes out, as Detectron2 does, to go by the masks'.
    Errors: RiceError, see `prepare` and `evaluators.run`.
    """
    inputs = prepare(truth, predictions, iou=iou, lvis=lvis, max_detections=max_detections, image_ids=image_ids)
    return judge(inputs, evaluator)


def judge(inputs: Inputs, evaluator: Evaluator = "faster") -> Scores:
    """`evaluate` for what `prepare` has read: the items for the standard error come from the same `inputs`."""
    curves = run(inputs, evaluator)
    precision_TRK = curves.precision[..., 0, -1]
    return Scores(
        iou=inputs.iou,
        evaluator=evaluator,
        lvis=inputs.lvis,
        values=_summary(inputs, curves),
        per_class=_per_class(inputs, precision_TRK),
        precision=precision_TRK,
        images=len(inputs.images),
        detections=len(inputs.detections),
        versions=version(evaluator),
        notes=inputs.notes,
    )


def _summary(inputs: Inputs, curves: Curves) -> dict[str, float]:
    """pycocotools' and lvis' `summarize`, at any limit of detections."""
    precision_TRKA, recall_TKA = curves.precision[..., -1], curves.recall[..., -1]
    values = {
        "AP": _mean(precision_TRKA[..., 0]),
        "AP50": _mean(precision_TRKA[_IOU_50, ..., 0]),
        "AP75": _mean(precision_TRKA[_IOU_75, ..., 0]),
    }
    values |= {f"AP{letter}": _mean(precision_TRKA[..., a]) for a, letter in enumerate(_AREA_LETTERS, start=1)}
    if inputs.lvis:
        frequencies = np.array([category["frequency"] for category in inputs.categories])
        values |= {f"AP{letter}": _mean(precision_TRKA[:, :, frequencies == letter, 0]) for letter in FREQUENCIES}
    values |= {f"AR{limit}": _mean(curves.recall[..., 0, m]) for m, limit in enumerate(limits(inputs))}
    return values | {f"AR{letter}": _mean(recall_TKA[..., a]) for a, letter in enumerate(_AREA_LETTERS, start=1)}


def _per_class(inputs: Inputs, precision_TRK: NDArray[np.float64]) -> tuple[ClassScore, ...]:
    instances = Counter(record["category_id"] for record in inputs.truth if inputs.counts(record))
    return tuple(
        ClassScore(
            id=category["id"],
            name=str(category.get("name", category["id"])),
            ap=_mean(precision_TRK[:, :, k]),
            ap50=_mean(precision_TRK[_IOU_50, :, k]),
            instances=instances[category["id"]],
        )
        for k, category in enumerate(inputs.categories)
    )


def _mean(values: NDArray[np.float64]) -> float:
    """-1 where nothing is judged."""
    judged = values[values > -1]
    return float(judged.mean()) if judged.size else -1.0
