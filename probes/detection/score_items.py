"""Per-image items: all that AP over all areas needs of an image, for intervals and paired comparisons.

Shapes: I images, K categories, D detections kept, G truth counts; T = 10 IoU thresholds. Bit t of a mask is
threshold t.

Matching is a second implementation of COCO's and LVIS's rules, apart from the engines'.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.detection.evaluators import THRESHOLDS, federated
from probes.detection.score_inputs import Inputs
from probes.detection.score_masks import Record
from rice.errors import RiceError
from rice.files import atomic_write

_IOUS = np.linspace(0.5, 0.95, THRESHOLDS)
_ALL = (1 << THRESHOLDS) - 1
_METADATA = b"rice.detection"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Items:
    """Images in order of their ids; of each, detections in the evaluator's order (category, then score).

    category_ids, frequencies: (K,), in order of the ids; frequencies "" but in LVIS. image_ids (I,).
    image, category, score, matched, ignored: (D,), the first two as indices. matched, ignored: bits over T.
    truth_image, truth_category, truth_count: (G,).
    """

    category_ids: tuple[int, ...]
    frequencies: tuple[str, ...]
    image_ids: NDArray[np.int64]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    score: NDArray[np.float64]
    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    truth_image: NDArray[np.int64]
    truth_category: NDArray[np.int64]
    truth_count: NDArray[np.int64]


def items(inputs: Inputs) -> Items:
    """Match every detection, as the evaluators do."""
    truth, detections = federated(inputs) if inputs.lvis else (inputs.truth, inputs.detections)
    image_of = {image["id"]: index for index, image in enumerate(inputs.images)}
    category_of = {category["id"]: index for index, category in enumerate(inputs.categories)}
    truth_of: defaultdict[tuple[int, int], list[Record]] = defaultdict(list)
    instances: defaultdict[tuple[int, int], int] = defaultdict(int)
    for record in truth:
        key = image_of[record["image_id"]], category_of[record["category_id"]]
        truth_of[key].append(record)
        instances[key] += inputs.counts(record)
    detections_of: defaultdict[tuple[int, int], list[Record]] = defaultdict(list)
    for record in detections:
        detections_of[image_of[record["image_id"]], category_of[record["category_id"]]].append(record)
    rows: list[tuple[int, int, float, int, int]] = []
    for key in sorted(detections_of):
        best = sorted(detections_of[key], key=lambda record: -record["score"])[: inputs.max_detections]
        flags = _match(best, truth_of.get(key, []), inputs)
        rows.extend((*key, record["score"], *bits) for record, bits in zip(best, flags, strict=True))
    image, category, score, matched, ignored = zip(*rows, strict=True) if rows else ((),) * 5
    counted = [(*key, count) for key, count in sorted(instances.items()) if count]
    truth_image, truth_category, truth_count = zip(*counted, strict=True) if counted else ((),) * 3
    return Items(
        category_ids=tuple(category_of),
        frequencies=tuple(category["frequency"] if inputs.lvis else "" for category in inputs.categories),
        image_ids=np.array(list(image_of), dtype=np.int64),
        image=np.array(image, dtype=np.int64),
        category=np.array(category, dtype=np.int64),
        score=np.array(score, dtype=np.float64),
        matched=np.array(matched, dtype=np.uint16),
        ignored=np.array(ignored, dtype=np.uint16),
        truth_image=np.array(truth_image, dtype=np.int64),
        truth_category=np.array(truth_category, dtype=np.int64),
        truth_count=np.array(truth_count, dtype=np.int64),
    )


def _match(detections: list[Record], truth: list[Record], inputs: Inputs) -> list[tuple[int, int]]:
    """(matched, ignored) bits of each detection, best score first (pycocotools' `evaluateImg`, all areas).

    A detection takes the free instance of the highest IoU; of equal ones the last; ignored ones only if no other is
    left. Crowds are never used up.
    """
    flags = [(0, _ALL if record.get("lvis_mark") else 0) for record in detections]
    if not truth:
        return flags
    skip = [not inputs.counts(record) for record in truth]
    order = sorted(range(len(truth)), key=lambda g: skip[g])
    ious_DG = _ious(detections, truth, inputs.iou)
    taken = [0] * len(truth)
    for d in np.flatnonzero(ious_DG.max(axis=1) >= _IOUS[0]).tolist():
        row = ious_DG[d].tolist()
        near = [g for g in order if row[g] >= _IOUS[0]]
        matched = ignored = 0
        for t, threshold in enumerate(_IOUS.tolist()):
            best = _choose(
                near, row, threshold, [bool(taken[g] >> t & 1) and not truth[g]["iscrowd"] for g in near], skip
            )
            if best is not None:
                taken[best] |= 1 << t
                matched |= 1 << t
                ignored |= skip[best] << t
        flags[d] = matched, ignored | (flags[d][1] & ~matched)
    return flags


def _choose(near: list[int], row: list[float], threshold: float, used: list[bool], skip: list[bool]) -> int | None:
    best = None
    for g, is_used in zip(near, used, strict=True):
        if is_used or row[g] < threshold:
            continue
        if best is not None and not skip[best] and skip[g]:
            break
        if best is None or row[g] >= row[best]:
            best = g
    return best


def _ious(detections: list[Record], truth: list[Record], iou: str) -> NDArray[np.float64]:
    from pycocotools import mask

    crowd = [record["iscrowd"] for record in truth]
    if iou == "bbox":
        ious = mask.iou([r["bbox"] for r in detections], [r["bbox"] for r in truth], crowd)
    else:
        ious = mask.iou([r["segmentation"] for r in detections], [_run_lengths(r, detections[0]) for r in truth], crowd)
    return np.asarray(ious, dtype=np.float64)


def _run_lengths(record: Record, beside: Record) -> Any:
    """Polygons as run lengths, of the size that masks of the same image have."""
    from pycocotools import mask

    if isinstance(record["segmentation"], dict):
        return record["segmentation"]
    return mask.merge(mask.frPyObjects(record["segmentation"], *beside["segmentation"]["size"]))


def write_items(path: Path, table: Items) -> None:
    """items.parquet: a row per image, atomically.

    image_id; of the detections kept, lists: category (index), score, matched, ignored (bits over the IoU thresholds
    .50, .55 ... .95); of the instances, lists: truth_category, truth_count. Category ids stand in the file's metadata.
    """
    import pyarrow as pa
    from pyarrow import parquet

    rows = len(table.image_ids)

    def lists(values: NDArray[Any], owner: NDArray[np.int64], kind: Any) -> Any:
        ends = np.searchsorted(owner, np.arange(rows + 1)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.astype(kind)))

    columns = {
        "image_id": pa.array(table.image_ids),
        "category": lists(table.category, table.image, np.int32),
        "score": lists(table.score, table.image, np.float64),
        "matched": lists(table.matched, table.image, np.uint16),
        "ignored": lists(table.ignored, table.image, np.uint16),
        "truth_category": lists(table.truth_category, table.truth_image, np.int32),
        "truth_count": lists(table.truth_count, table.truth_image, np.int32),
    }
    about = json.dumps({"category_ids": table.category_ids, "frequencies": table.frequencies})
    with atomic_write(path, "wb") as file:
        parquet.write_table(pa.table(columns).replace_schema_metadata({_METADATA: about}), file)


def read_items(path: Path) -> Items:
    """What `write_items` wrote. Errors: RiceError for another file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        frame = parquet.read_table(path)
        about = json.loads(frame.schema.metadata[_METADATA])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RiceError(f"expected the items of a detection probe at {path}: {error}") from error

    def flat(name: str, kind: Any) -> NDArray[Any]:
        return frame[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(kind)  # type: ignore[no-any-return]

    def owner(name: str) -> NDArray[np.int64]:
        lengths = [len(values) for values in frame[name]]
        return np.repeat(np.arange(len(lengths)), lengths)

    return Items(
        category_ids=tuple(about["category_ids"]),
        frequencies=tuple(about["frequencies"]),
        image_ids=frame["image_id"].to_numpy().astype(np.int64),
        image=owner("category"),
        category=flat("category", np.int64),
        score=flat("score", np.float64),
        matched=flat("matched", np.uint16),
        ignored=flat("ignored", np.uint16),
        truth_image=owner("truth_category"),
        truth_category=flat("truth_category", np.int64),
        truth_count=flat("truth_count", np.int64),
    )
