"""Every engine's figures are pycocotools', or lvis'; the engines stay quiet and leave their neighbours alone."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_samples import (
    COCO_KEYS,
    Json,
    by_pycocotools,
    code,
    federate,
    imitate,
    per_class,
    small_predictions,
    small_truth,
)

from probes.detection import evaluators
from probes.detection.bootstrap import ap_of, items
from probes.detection.evaluators import Evaluator
from probes.detection.score import IouType, evaluate, prepare
from rice.errors import MissingExtraError, RiceError

LVIS_KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR@300", "ARs@300", "ARm@300", "ARl@300")
COCO_ENGINES: tuple[Evaluator, ...] = ("faster", "pycocotools")
LVIS_ENGINES: tuple[Evaluator, ...] = ("faster", "lvis")
REAL = (
    "coco/annotations/instances_train2017.json",
    "coco/annotations/instances_val2017.json",
    "facade/valid/_annotations.coco.json",
)


def by_lvis(folder: Path, truth: Json, predictions: list[Json], iou: str, limit: int = 300) -> Any:
    """lvis-api's own example, from files."""
    pytest.importorskip("lvis")
    from lvis import LVIS, LVISEval, LVISResults

    gt, dt = folder / "gt.json", folder / "dt.json"
    gt.write_text(json.dumps(truth))
    dt.write_text(json.dumps(predictions))
    engine = LVISEval(LVIS(str(gt)), LVISResults(str(gt), str(dt), limit), iou)
    np.float = float  # type: ignore[attr-defined] # the package was written for numpy 1
    try:
        engine.run()
    finally:
        del np.float  # type: ignore[attr-defined]
    return engine


@pytest.mark.data
@pytest.mark.parametrize("file", REAL)
@pytest.mark.parametrize("iou", ["bbox", "segm"])
def test_every_figure_is_pycocotools_own_on_real_data(
    file: str, iou: IouType, tmp_path: Path, shared_data: Path
) -> None:
    truth = json.loads((shared_data / file).read_text())
    predictions = imitate(truth, masks=iou == "segm")
    engine = by_pycocotools(tmp_path, truth, predictions, iou)
    precision_TRK = engine.eval["precision"][:, :, :, 0, -1]
    for evaluator in COCO_ENGINES:
        scores = evaluate(tmp_path / "gt.json", tmp_path / "dt.json", iou=iou, evaluator=evaluator)
        assert tuple(scores.values) == COCO_KEYS
        np.testing.assert_allclose(list(scores.values.values()), engine.stats, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.precision, precision_TRK, rtol=0, atol=1e-12)
        np.testing.assert_allclose([c.ap for c in scores.per_class], per_class(precision_TRK), rtol=0, atol=1e-12)
        np.testing.assert_allclose([c.ap50 for c in scores.per_class], per_class(precision_TRK[:1]), rtol=0, atol=1e-12)
        assert 0.05 < scores.values["AP"] < 0.6


@pytest.mark.data
@pytest.mark.parametrize("file", ["lvis/lvis_v0.5_val_100.json", REAL[0]])
@pytest.mark.parametrize("iou", ["bbox", "segm"])
def test_every_figure_is_lvis_own_on_real_data(file: str, iou: IouType, tmp_path: Path, shared_data: Path) -> None:
    truth = json.loads((shared_data / file).read_text())
    truth = truth if "lvis" in file else federate(truth)
    predictions = imitate(truth, masks=iou == "segm", clutter=30)
    engine = by_lvis(tmp_path, truth, predictions, iou)
    expected = {key.replace("AR@", "AR").removesuffix("@300"): engine.results[key] for key in LVIS_KEYS}
    for evaluator in LVIS_ENGINES:
        scores = evaluate(tmp_path / "gt.json", tmp_path / "dt.json", iou=iou, evaluator=evaluator, lvis=True)
        assert scores.values == pytest.approx(expected, abs=1e-12)
        assert list(scores.values) == list(expected)
        np.testing.assert_allclose(scores.precision, engine.eval["precision"][..., 0], rtol=0, atol=1e-12)
        assert 0.05 < scores.values["AP"] < 0.8


@pytest.mark.data
def test_LVIS_limits_an_image_to_its_best_300_of_all_categories(tmp_path: Path, shared_data: Path) -> None:
    truth = json.loads((shared_data / "lvis/lvis_v0.5_val_100.json").read_text())
    truth["images"] = truth["images"][:12]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in kept]
    predictions = imitate(truth, masks=False, clutter=500)
    engine = by_lvis(tmp_path, truth, predictions, "bbox")
    for evaluator in LVIS_ENGINES:
        scores = evaluate(truth, predictions, iou="bbox", lvis=True, evaluator=evaluator)
        assert scores.values["AP"] == pytest.approx(engine.results["AP"], abs=1e-12)
    assert evaluate(truth, predictions, iou="bbox", lvis=True, max_detections=2000).values["AP"] != pytest.approx(
        engine.results["AP"], abs=1e-6
    )


def test_blocks_of_categories_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = federate(small_truth())
    truth["categories"] += [{"id": 100 + k, "name": str(k), "frequency": "c"} for k in range(5)]
    predictions = small_predictions(bbox=[3, 3, 10, 8])
    for lvis in (False, True):
        whole = evaluate(truth, predictions, iou="bbox", lvis=lvis)
        monkeypatch.setattr(evaluators, "_PAIRS_AT_ONCE", 3)
        parts = evaluate(truth, predictions, iou="bbox", lvis=lvis)
        monkeypatch.undo()
        assert whole.values == parts.values
        np.testing.assert_array_equal(whole.precision, parts.precision)


# Few enough boxes that they match often and tie; of every area, and of none.
_boxes = st.tuples(
    st.sampled_from([0, 0, 2, 4]),
    st.just(0),
    st.sampled_from([30, 32, 60, 110, 0]),
    st.sampled_from([32, 34, 64, 110, 0]),
).map(list)
_image, _category = st.sampled_from([3, 10]), st.sampled_from([0, 4])
_instances = st.fixed_dictionaries(
    {"image_id": _image, "category_id": _category, "bbox": _boxes, "iscrowd": st.sampled_from([0, 0, 0, 1])}
)
_found = st.fixed_dictionaries(
    {"image_id": _image, "category_id": _category, "bbox": _boxes, "score": st.sampled_from([0.1, 0.5, 0.5, 0.9])}
)


def world(instances: list[Json]) -> Json:
    records = [
        one | {"id": number, "area": float(one["bbox"][2] * one["bbox"][3])} for number, one in enumerate(instances, 1)
    ]
    images = [{"id": id_, "width": 160, "height": 160} for id_ in (3, 10)]
    return {"images": images, "categories": [{"id": 0, "name": "a"}, {"id": 4, "name": "b"}], "annotations": records}


def as_masks(records: list[Json]) -> list[Json]:
    masked = []
    for record in records:
        x, y, w, h = record["bbox"]
        pixels = np.zeros((160, 160), dtype=np.uint8)
        pixels[y : y + h, x : x + w] = 1
        masked.append({k: v for k, v in record.items() if k != "bbox"} | {"segmentation": code(pixels)})
    return masked


@settings(max_examples=60, deadline=None)
@given(st.lists(_instances, min_size=1, max_size=8), st.lists(_found, min_size=1, max_size=14), st.booleans())
def test_engines_agree_on_small_worlds_with_ties_and_crowds(
    tmp_path_factory: pytest.TempPathFactory, instances: list[Json], found: list[Json], masks: bool
) -> None:
    truth = world(instances)
    iou: IouType = "segm" if masks else "bbox"
    if masks:
        truth["annotations"] = as_masks(truth["annotations"])
        found = as_masks(found)
    folder = tmp_path_factory.mktemp("world")
    engine = by_pycocotools(folder, truth, found, iou)
    for evaluator in COCO_ENGINES:
        scores = evaluate(truth, found, iou=iou, evaluator=evaluator)
        np.testing.assert_allclose(list(scores.values.values()), engine.stats, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.precision, engine.eval["precision"][:, :, :, 0, -1], rtol=0, atol=1e-12)
    values = ap_of(items(prepare(truth, found, iou=iou)))
    assert list(values.values()) == pytest.approx(engine.stats[:3].tolist(), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(_instances, min_size=1, max_size=8),
    st.lists(_found, min_size=1, max_size=14),
    st.lists(st.sets(_category), min_size=4, max_size=4),
    st.integers(1, 5),
    st.booleans(),
)
def test_LVIS_engines_and_items_agree_on_small_worlds(
    tmp_path_factory: pytest.TempPathFactory,
    instances: list[Json],
    found: list[Json],
    lists: list[set[int]],
    limit: int,
    masks: bool,
) -> None:
    """With crowds, which LVIS takes for instances, with `ignore`, and with things of no area, which it leaves out."""
    truth = world([one | {"ignore": int(k % 4 == 3)} for k, one in enumerate(instances)])
    iou: IouType = "segm" if masks else "bbox"
    if masks:
        truth["annotations"] = as_masks(truth["annotations"])
        found = as_masks(found)
    for image, negative, open_ended in zip(truth["images"], lists[:2], lists[2:], strict=True):
        image |= {"neg_category_ids": sorted(negative), "not_exhaustive_category_ids": sorted(open_ended)}
    for category, frequency in zip(truth["categories"], "rf", strict=True):
        category["frequency"] = frequency
    engine = by_lvis(tmp_path_factory.mktemp("world"), truth, found, iou, limit)
    expected = [engine._summarize("ap"), engine.eval["recall"][..., 0]]
    for evaluator in LVIS_ENGINES:
        scores = evaluate(truth, found, iou=iou, lvis=True, evaluator=evaluator, max_detections=limit)
        np.testing.assert_allclose(scores.precision, engine.eval["precision"][..., 0], rtol=0, atol=1e-12)
        assert scores.values["AP"] == pytest.approx(expected[0], abs=1e-12)
        judged = expected[1][expected[1] > -1]
        assert scores.values[f"AR{limit}"] == pytest.approx(judged.mean() if judged.size else -1, abs=1e-12)
    values = ap_of(items(prepare(truth, found, iou=iou, lvis=True, max_detections=limit)))
    assert values["AP"] == pytest.approx(expected[0], abs=1e-9)


def test_LVIS_leaves_out_detections_without_area(tmp_path: Path) -> None:
    predictions = [*small_predictions(), {"image_id": 1, "category_id": 0, "score": 0.95, "bbox": [9, 9, 0, 5]}]
    for prediction in predictions:
        prediction.pop("segmentation", None)
    engine = by_lvis(tmp_path, small_truth(), predictions, "bbox")
    for evaluator in LVIS_ENGINES:
        scores = evaluate(small_truth(), predictions, iou="bbox", lvis=True, evaluator=evaluator)
        assert scores.values["AP"] == pytest.approx(engine.results["AP"], abs=1e-12) == pytest.approx(1.0)
    assert evaluate(small_truth(), predictions, iou="bbox").values["AP"] == pytest.approx(0.75)


@pytest.mark.parametrize("evaluator", ["faster", "pycocotools", "lvis"])
def test_nothing_is_printed_or_logged(
    evaluator: Evaluator, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    if evaluator == "lvis":
        pytest.importorskip("lvis")
    evaluate(small_truth(), small_predictions(), iou="segm", evaluator=evaluator, lvis=evaluator == "lvis")
    assert capfd.readouterr() == ("", "")
    assert not [warning for warning in recwarn if "numpy" not in str(warning.filename)]
    assert not logging.getLogger("lvis.results").disabled


def test_lvis_runs_without_OpenCV_and_numpy_stays_as_it_was() -> None:
    pytest.importorskip("lvis")
    script = (
        "import sys; sys.modules['cv2'] = None\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import numpy as np\nfrom score_samples import *\nfrom probes.detection.score import evaluate\n"
        "print(evaluate(small_truth(), small_predictions(), iou='segm', lvis=True, evaluator='lvis').values['AP'])\n"
        "assert 'lvis' not in sys.modules and 'float' not in vars(np)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx(1.0), done.stderr


def test_missing_lvis_tells_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rice-suite\[lvis\]'"):
        evaluate(small_truth(), small_predictions(), iou="bbox", lvis=True, evaluator="lvis")


@pytest.mark.parametrize(("evaluator", "lvis", "words"), [("pycocotools", True, "LVIS"), ("lvis", False, "--lvis")])
def test_an_engine_refuses_the_protocol_that_it_does_not_know(evaluator: Evaluator, lvis: bool, words: str) -> None:
    with pytest.raises(RiceError, match=words):
        evaluate(small_truth(), small_predictions(), iou="bbox", evaluator=evaluator, lvis=lvis)
