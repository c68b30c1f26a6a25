"""The three engines behind one signature: faster-coco-eval (the default), pycocotools and lvis (the references).

Shapes: T = 10 IoU thresholds .50, .55 ... .95; R = 101 recalls 0, .01 ... 1; K categories by id; A = 4 areas
(all, small < 32^2, medium, large > 96^2 pixels); M limits of detections, ascending.

Nothing is printed. The engines see records that `prepare` has checked, with annotation ids from 1.
"""

import contextlib
import importlib
import io
import itertools
import logging
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec, module_from_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.detection.score_inputs import Inputs
from probes.detection.score_masks import Record
from rice.errors import RiceError, require

Evaluator = Literal["faster", "pycocotools", "lvis"]

THRESHOLDS = 10
RECALLS = 101
AREAS = 4

_PACKAGES: dict[Evaluator, str] = {"faster": "faster-coco-eval", "pycocotools": "pycocotools", "lvis": "lvis"}
_PAIRS_AT_ONCE = 400_000
"""Images x categories that faster-coco-eval holds at once, at about 1 kB each: COCO val in one go, LVIS in blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Precision (T, R, K, A, M) and recall (T, K, A, M), fractions; -1 where the truth has no instance."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def limits(inputs: Inputs) -> list[int]:
    """Detections judged: 1, 10 and 100 of each category in an image (COCO); 300 of an image (LVIS)."""
    if inputs.lvis:
        return [inputs.max_detections]
    return [*(few for few in (1, 10) if few < inputs.max_detections), inputs.max_detections]


def check_protocol(evaluator: Evaluator, *, lvis: bool) -> None:
    """Errors: RiceError for an engine that does not know the protocol; MissingExtraError when lvis is not installed."""
    if lvis and evaluator == "pycocotools":
        raise RiceError("pycocotools does not know LVIS's protocol; use --evaluator faster, or lvis")
    if not lvis and evaluator == "lvis":
        raise RiceError(
            "lvis judges by LVIS's protocol only, and this is COCO's; use --evaluator faster, or pycocotools, or for "
            "rice detect score --lvis"
        )
    if evaluator == "lvis" and find_spec("lvis") is None:
        require("lvis", "lvis")


def run(inputs: Inputs, evaluator: Evaluator) -> Curves:
    """Match, and draw the curves. Errors: see `check_protocol`."""
    check_protocol(evaluator, lvis=inputs.lvis)
    engine = {"faster": _faster, "pycocotools": _pycocotools, "lvis": _lvis}[evaluator]
    return engine(inputs)


def version(evaluator: Evaluator) -> dict[str, str]:
    """Package name and installed version of an engine."""
    return {_PACKAGES[evaluator]: metadata.version(_PACKAGES[evaluator])}


def no_curves(inputs: Inputs, categories: int) -> Curves:
    """Curves of categories without an instance."""
    m = len(limits(inputs))
    return Curves(
        np.full((THRESHOLDS, RECALLS, categories, AREAS, m), -1.0), np.full((THRESHOLDS, categories, AREAS, m), -1.0)
    )


def _faster(inputs: Inputs) -> Curves:
    """In blocks of categories, each with only the images that it occurs on: LVIS has 24 million pairs."""
    truth, detections = federated(inputs) if inputs.lvis else (inputs.truth, inputs.detections)
    ids = [category["id"] for category in inputs.categories]
    width = max(1, _PAIRS_AT_ONCE // len(inputs.images))
    truth_of, detections_of = _by_block(truth, ids, width), _by_block(detections, ids, width)
    image_of = {image["id"]: image for image in inputs.images}
    blocks = []
    for number, start in enumerate(range(0, len(ids), width)):
        categories = inputs.categories[start : start + width]
        block = no_curves(inputs, len(categories))
        if truth_of[number]:
            block = _faster_block(inputs, image_of, categories, truth_of[number], detections_of[number])
        blocks.append(block)
    return Curves(
        np.concatenate([block.precision for block in blocks], axis=2),
        np.concatenate([block.recall for block in blocks], axis=1),
    )


def _by_block(records: list[Record], category_ids: list[int], width: int) -> dict[int, list[Record]]:
    if len(category_ids) <= width:
        return {0: records}
    block_of = {id_: index // width for index, id_ in enumerate(category_ids)}
    blocks: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        blocks[block_of[record["category_id"]]].append(record)
    return blocks


def _faster_block(
    inputs: Inputs,
    image_of: dict[int, Record],
    categories: list[Record],
    truth: list[Record],
    detections: list[Record],
) -> Curves:
    from faster_coco_eval import COCO, COCOeval_faster

    class Engine(COCOeval_faster):  # type: ignore[misc] # untyped
        def _prepare(self) -> None:
            super()._prepare()
            if inputs.lvis:  # the engine ignores what `iscrowd` says; LVIS knows `ignore` and no crowd
                for record in truth:
                    record["ignore"] = record["lvis_ignore"]

    used = {record["image_id"] for record in itertools.chain(truth, detections)}
    images = [image_of[id_] for id_ in sorted(used)]
    apis = [_index(COCO(), images, categories, records) for records in (truth, detections)]
    engine = Engine(*apis, iouType=inputs.iou, print_function=_say_nothing)
    engine.params.maxDets = limits(inputs)
    engine.evaluate()
    engine.accumulate()
    return Curves(engine.eval["precision"], engine.eval["recall"])


def federated(inputs: Inputs) -> tuple[list[Record], list[Record]]:
    """LVIS's protocol (lvis-api, eval.py and results.py) as flags for an engine of COCO's: truth and detections.

    The best `max_detections` of each image count. Of those, the ones of categories that were not looked for in their
    image are dropped; unmatched ones of categories that are not exhaustively annotated there are ignored (`lvis_mark`).
    Instances and detections without area are left out, crowds are instances, and `ignore` is heeded (`lvis_ignore`).
    """
    truth = [
        record | {"iscrowd": 0, "lvis_ignore": int(bool(record.get("ignore")))}
        for record in inputs.truth
        if record["area"] > 0
    ]
    open_ended = {image["id"]: set(image["not_exhaustive_category_ids"]) for image in inputs.images}
    judged = {image["id"]: set(image["neg_category_ids"]) for image in inputs.images}
    for record in truth:
        judged[record["image_id"]].add(record["category_id"])
    detections = []
    for record in _best(inputs.detections, inputs.max_detections):
        image_id, category_id = record["image_id"], record["category_id"]
        if category_id in judged[image_id] and record["area"] > 0:
            record["lvis_mark"] = category_id in open_ended[image_id]
            detections.append(record)
    return truth, detections


def _best(detections: list[Record], count: int) -> list[Record]:
    """The `count` best of each image; of equal scores the earlier ones."""
    of_image: defaultdict[int, list[Record]] = defaultdict(list)
    for record in detections:
        of_image[record["image_id"]].append(record)
    chosen = []
    for records in of_image.values():
        if len(records) > count:
            records = sorted(records, key=lambda record: record["score"], reverse=True)[:count]
        chosen.extend(records)
    return chosen


def _pycocotools(inputs: Inputs) -> Curves:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not inputs.truth:
        return no_curves(inputs, len(inputs.categories))
    with contextlib.redirect_stdout(io.StringIO()):
        apis = [_index(COCO(), inputs.images, inputs.categories, r) for r in (inputs.truth, inputs.detections)]
        engine = COCOeval(*apis, inputs.iou)
        engine.params.maxDets = limits(inputs)
        engine.evaluate()
        engine.accumulate()
    return Curves(engine.eval["precision"], engine.eval["recall"])


def _lvis(inputs: Inputs) -> Curves:
    lvis, results, evaluation = _import_lvis()
    if not inputs.truth:
        return no_curves(inputs, len(inputs.categories))
    with _quiet_lvis():
        api = _lvis_index(lvis.LVIS, inputs, inputs.truth)
        if inputs.detections:
            detections = results.LVISResults(api, list(inputs.detections), max_dets=inputs.max_detections)
        else:  # LVISResults looks at the first detection
            detections = _lvis_index(results.LVISResults, inputs, [])
        engine = evaluation.LVISEval(api, detections, inputs.iou)
        engine.evaluate()
        with _numpy_1_names():
            engine.accumulate()
    return Curves(engine.eval["precision"][..., None], engine.eval["recall"][..., None])


def _lvis_index(kind: Any, inputs: Inputs, annotations: list[Record]) -> Any:
    """`LVIS(path)` without its path."""
    api = kind.__new__(kind)
    api.logger = logging.getLogger("lvis.lvis")
    api.dataset = {"images": inputs.images, "categories": inputs.categories, "annotations": annotations}
    api._create_index()
    return api


def _import_lvis() -> tuple[Any, Any, Any]:
    """lvis' modules `lvis`, `results`, `eval`, without running its `__init__`: that imports OpenCV for drawing, which
    fails where libGL is missing. Errors: MissingExtraError."""
    names = ("lvis.lvis", "lvis.results", "lvis.eval")
    spec = find_spec("lvis")
    if spec is None:
        require("lvis", "lvis")
    if "lvis" not in sys.modules and spec is not None:
        sys.modules["lvis"] = module_from_spec(spec)  # not executed
        try:
            loaded = tuple(importlib.import_module(name) for name in names)
        finally:
            for name in ("lvis", *names):
                sys.modules.pop(name, None)
    else:
        loaded = tuple(importlib.import_module(name) for name in names)
    return loaded[0], loaded[1], loaded[2]


@contextlib.contextmanager
def _numpy_1_names() -> Iterator[None]:
    """lvis 0.5.3, its last release, says `np.float`, which numpy 1.24 took away. It meant Python's float."""
    if "float" in vars(np):
        yield
        return
    np.float = float  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del np.float  # type: ignore[attr-defined]


@contextlib.contextmanager
def _quiet_lvis() -> Iterator[None]:
    loggers = [logging.getLogger(f"lvis.{name}") for name in ("lvis", "results", "eval")]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # logger.warn
        try:
            for logger in loggers:
                logger.disabled = True
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled


def _index(api: Any, images: list[Record], categories: list[Record], annotations: list[Record]) -> Any:
    """COCO's index over records that are in memory already."""
    api.dataset = {"images": images, "categories": categories, "annotations": annotations}
    api.createIndex()
    return api


_say_nothing: Callable[..., None] = lambda *_, **__: None  # noqa: E731
