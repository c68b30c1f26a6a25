"""AP from the items is the evaluator's, on any multiset of images; its standard error follows the closed form."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_samples import Json, by_pycocotools, federate, imitate, small_predictions, small_truth

from probes.detection.bootstrap import Items, ap_of, items, read_items, standard_error, write_items
from probes.detection.score import IouType, evaluate, prepare
from rice.errors import RiceError


def scattered(seed: int, images: int = 8) -> tuple[Json, list[Json]]:
    """Boxes on a coarse grid, distinct scores, crowds."""
    rng = np.random.default_rng(seed)
    truth: Json = {
        "images": [{"id": 3 * k + 1, "width": 64, "height": 64} for k in range(images)],
        "categories": [{"id": k, "name": str(k)} for k in (0, 5, 9)],
        "annotations": [],
    }
    predictions: list[Json] = []
    for image in truth["images"]:
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = (int(v) for v in rng.integers([0, 0, 4, 4], [40, 40, 24, 24]))
            annotation = {"image_id": image["id"], "category_id": int(rng.choice([0, 5, 9])), "bbox": [x, y, w, h]}
            crowd = int(rng.random() < 0.15)
            truth["annotations"].append(
                annotation | {"id": len(truth["annotations"]) + 1, "iscrowd": crowd, "area": w * h}
            )
            for _ in range(rng.integers(0, 4)):
                moved = [x + int(rng.integers(-2, 3)), y, w + int(rng.integers(0, 3)), h]
                predictions.append(annotation | {"bbox": moved, "score": float(rng.random())})
        predictions.append(
            {"image_id": image["id"], "category_id": 5, "bbox": [1, 1, 20, 20], "score": float(rng.random())}
        )
    return truth, predictions


def replicate(truth: Json, predictions: list[Json], weights: list[int]) -> tuple[Json, list[Json]]:
    """Image k as often as `weights[k]` says, each copy under an id of its own."""
    images, annotations, found = [], [], []
    for image, weight in zip(truth["images"], weights, strict=True):
        for _ in range(weight):
            id_ = len(images) + 1
            images.append(image | {"id": id_})
            annotations += [a | {"image_id": id_} for a in truth["annotations"] if a["image_id"] == image["id"]]
            found += [p | {"image_id": id_} for p in predictions if p["image_id"] == image["id"]]
    annotations = [annotation | {"id": number} for number, annotation in enumerate(annotations, 1)]
    return truth | {"images": images, "annotations": annotations}, found


@pytest.mark.data
@pytest.mark.parametrize("iou", ["bbox", "segm"])
@pytest.mark.parametrize("lvis", [False, True])
def test_items_give_the_evaluators_AP_on_real_data(iou: IouType, lvis: bool, shared_data: Path) -> None:
    truth = json.loads((shared_data / "coco/annotations/instances_train2017.json").read_text())
    truth = federate(truth) if lvis else truth
    inputs_of = {"iou": iou, "lvis": lvis}
    predictions = imitate(truth, masks=iou == "segm")
    scores = evaluate(truth, predictions, **inputs_of)  # type: ignore[arg-type]
    values = ap_of(items(prepare(truth, predictions, **inputs_of)))  # type: ignore[arg-type]
    assert list(values) == ["AP", "AP50", "AP75"] + ["APr", "APc", "APf"] * lvis
    assert values == pytest.approx({name: scores.values[name] for name in values}, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_weights_count_images_as_pycocotools_counts_copies(
    tmp_path_factory: pytest.TempPathFactory, seed: int, weights: list[int]
) -> None:
    truth, predictions = scattered(seed)
    copies, found = replicate(truth, predictions, weights)
    values = ap_of(items(prepare(truth, predictions, iou="bbox")), np.array(weights))
    if not found:
        return
    engine = by_pycocotools(tmp_path_factory.mktemp("copies"), copies, found, "bbox")
    assert list(values.values()) == pytest.approx(engine.stats[:3].tolist(), abs=1e-9)


def test_matches_are_pycocotools_own(tmp_path: Path) -> None:
    """Detection by detection and threshold by threshold, over all areas."""
    for seed in range(10):
        truth, predictions = scattered(seed)
        engine = by_pycocotools(tmp_path, truth, predictions, "bbox")
        table = items(prepare(truth, predictions, iou="bbox"))
        expected = sorted(
            (
                e["image_id"],
                e["category_id"],
                e["dtScores"][d],
                tuple(e["dtMatches"][:, d] > 0),
                tuple(e["dtIgnore"][:, d]),
            )
            for e in engine.evalImgs
            if e is not None and e["aRng"] == [0, 1e10]
            for d in range(len(e["dtScores"]))
        )
        got = sorted(
            (table.image_ids[i], table.category_ids[c], s, bits(m), bits(g))
            for i, c, s, m, g in zip(
                table.image, table.category, table.score, table.matched, table.ignored, strict=True
            )
        )
        assert got == expected


def test_of_two_instances_as_near_the_later_one_is_taken(tmp_path: Path) -> None:
    """The first detection may take either; which one decides whether the second still finds one."""
    predictions = small_predictions(bbox=[4, 0, 20, 20], score=0.9)[:1]
    predictions.append(predictions[0] | {"bbox": [12, 0, 20, 20], "score": 0.8})
    for boxes in ([[0, 0, 20, 20], [8, 0, 20, 20]], [[8, 0, 20, 20], [0, 0, 20, 20]]):
        truth = small_truth()
        one = truth["annotations"][0]
        truth["annotations"] = [one | {"id": k, "bbox": box, "area": 400.0} for k, box in enumerate(boxes, 1)]
        engine = by_pycocotools(tmp_path, truth, predictions, "bbox")
        values = ap_of(items(prepare(truth, predictions, iou="bbox")))
        assert list(values.values()) == pytest.approx(engine.stats[:3].tolist(), abs=1e-9)


def bits(value: np.uint16) -> tuple[bool, ...]:
    return tuple(bool(value >> t & 1) for t in range(10))


def test_a_category_that_is_not_drawn_is_left_out() -> None:
    table = items(prepare(small_truth(), small_predictions()[:1], iou="bbox"))
    assert ap_of(table)["AP"] == pytest.approx(0.5)
    assert ap_of(table, np.array([1, 0]))["AP"] == pytest.approx(1.0)
    assert ap_of(table, np.array([0, 3]))["AP"] == 0.0
    assert ap_of(table, np.zeros(2))["AP"] == -1.0


def even_world(found: int, images: int) -> Items:
    """One instance an image, the first `found` of them found, no false alarm: AP is the interpolated recall."""
    truth: Json = {
        "images": [{"id": k} for k in range(images)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": k + 1, "image_id": k, "category_id": 1, "bbox": [0, 0, 9, 9]} for k in range(images)],
    }
    predictions = [{"image_id": k, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5} for k in range(found)]
    return items(prepare(truth, predictions, iou="bbox"))


def test_the_standard_error_of_a_recall_is_the_binomials() -> None:
    error = standard_error(even_world(60, 200), replicates=2000)
    assert error["AP"] == pytest.approx(np.sqrt(0.3 * 0.7 / 200), rel=0.06)
    assert error["AP"] == pytest.approx(error["AP50"])


def test_the_standard_error_is_reproducible_and_needs_two_images() -> None:
    truth, predictions = scattered(1)
    table = items(prepare(truth, predictions, iou="bbox"))
    assert standard_error(table, 40, seed=3) == standard_error(table, 40, seed=3)
    assert standard_error(table, 40, seed=3) != standard_error(table, 40, seed=4)
    assert standard_error(table, 40)["AP"] > 0
    assert np.isnan(standard_error(even_world(1, 1), 5)["AP"])


@pytest.mark.parametrize("empty", [False, True])
def test_items_survive_the_file(tmp_path: Path, empty: bool) -> None:
    truth, predictions = scattered(2)
    table = items(prepare(truth, [] if empty else predictions, iou="bbox"))
    write_items(tmp_path / "items.parquet", table)
    again = read_items(tmp_path / "items.parquet")
    for name in Items.__slots__:
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    import pandas as pd

    frame = pd.read_parquet(tmp_path / "items.parquet")
    assert frame["image_id"].tolist() == [image["id"] for image in truth["images"]]
    assert list(tmp_path.iterdir()) == [tmp_path / "items.parquet"]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(RiceError, match="expected the items of a detection probe"):
        read_items(tmp_path / "items.parquet")
    with pytest.raises(RiceError, match="expected the items"):
        read_items(tmp_path / "none.parquet")
