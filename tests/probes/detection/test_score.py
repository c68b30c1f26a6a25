"""What comes from outside is checked in one line, or judged as COCO's own tools judge it."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask
from score_samples import COCO_KEYS, Json, box_mask, by_pycocotools, code, small_predictions, small_truth

from probes.detection.score import IouType, evaluate
from probes.detection.score_masks import foreground_pixels
from rice.data.segmentation import decode_segmentation
from rice.errors import RiceError


def refusal(truth: Any, predictions: Any, iou: IouType = "bbox", lvis: bool = False) -> str:
    with pytest.raises(RiceError) as caught:
        evaluate(truth, predictions, iou=iou, lvis=lvis)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": math.nan}, "prediction 0: expected a finite number as score, got nan"),
        ({"score": "0.9"}, "prediction 0: expected a finite number as score, got '0.9'"),
        ({"score": True}, "score, got True"),
        ({"score": 10**400}, "expected a finite number as score"),
        ({"bbox": [0, 0, math.inf, 1]}, "prediction 0: expected bbox as finite"),
        ({"bbox": [0, 0, 1]}, "expected bbox as finite"),
        ({"bbox": [0, 0, "1", 1]}, "expected bbox as finite"),
        ({"bbox": [9, 9, -1, 4]}, "sides >= 0, got [9, 9, -1, 4]"),
        ({"bbox": None, "segmentation": None}, "expected a segmentation"),
        ({"image_id": 77}, "prediction 0: unknown image_id 77 (1 of 2 have one that the truth has not)"),
        ({"category_id": 3}, "prediction 0: unknown category_id 3 (1 of 2"),
        ({"category_id": None}, "prediction 0: expected an integer as category_id, got None"),
        ({"image_id": "1"}, "expected an integer as image_id, got '1'"),
    ],
)
def test_a_bad_prediction_is_named(change: Json, words: str) -> None:
    assert words in refusal(small_truth(), small_predictions(**change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [0, math.nan, 1, 1]}, "annotation 5: expected bbox as finite"),
        ({"bbox": []}, "annotation 5: expected bbox"),
        ({"area": math.inf}, "annotation 5: expected a finite number as area"),
        ({"iscrowd": 2}, "annotation 5: expected 0 or 1 as iscrowd"),
        ({"id": 6}, "annotation 6: expected ids that are used once"),
        ({"id": "5"}, "expected an integer as id"),
        ({"image_id": 9}, "annotation 5: unknown image_id 9"),
        ({"category_id": 9}, "annotation 5: unknown category_id 9"),
    ],
)
def test_a_bad_instance_is_named(change: Json, words: str) -> None:
    assert words in refusal(small_truth(**change), small_predictions())


def _cut(counts: str) -> str:
    return counts[: len(counts) // 2]


FULL = code(box_mask(2, 3, 10, 8))


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "expected a segmentation"),
        ([], "expected a segmentation"),
        ({"size": [30, 40], "counts": _cut(FULL["counts"])}, "run lengths"),
        ({"size": [30, 40], "counts": _cut(FULL["counts"]).encode()}, "run lengths"),
        ({"size": [30, 40], "counts": FULL["counts"] + "é"}, "run lengths"),
        ({"size": [30, 40], "counts": ""}, "run lengths"),
        ({"size": [40, 30], "counts": FULL["counts"]}, "size [30, 40]"),
        ({"size": [30, 40], "counts": [100, 50]}, "add up to 1200"),
        ({"size": [30, 40], "counts": [1210, -10]}, "add up to 1200"),
        ({"size": [30, 40]}, "run lengths"),
        ([[0, 0, 5, 0, math.nan, 5]], "polygon"),
        ([[0, 0, 5, 0, 1e9, 5]], "polygon"),
        ([[0, 0, 5, 0, 5]], "polygon"),
        ([["0", 0, 5, 0, 5, 5]], "polygon"),
        ("mask", "expected a segmentation"),
    ],
)
def test_a_damaged_mask_is_named_in_truth_and_predictions(segmentation: Any, words: str) -> None:
    message = refusal(small_truth(), small_predictions(segmentation=segmentation), "segm")
    assert "prediction 0" in message
    assert words in message
    message = refusal(small_truth(segmentation=segmentation), small_predictions(), "segm")
    assert "annotation 5" in message
    assert words in message


@pytest.mark.parametrize(
    ("truth", "predictions", "words"),
    [
        ([], [], "expected a COCO object"),
        ({"images": []}, [], "expected at least one image"),
        ({"images": [{"id": 1}], "categories": []}, [], "expected at least one category"),
        ({"images": [{"id": 1}, {"id": 1}], "categories": []}, [], "image 1: expected ids that are used once"),
        ({"categories": []}, [], "expected a list as 'images'"),
        ({"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": 3}, [], "list as 'annotations'"),
        (small_truth(), {"annotations": []}, "expected a list of {image_id, category_id, score"),
        (small_truth(), [3], "expected an object at position 0"),
    ],
)
def test_another_kind_of_document_is_told(truth: Any, predictions: Any, words: str, tmp_path: Path) -> None:
    assert words in refusal(truth, predictions) if not isinstance(truth, list) else True
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(predictions))
    assert words in refusal(tmp_path / "gt.json", tmp_path / "dt.json")


def test_files_that_are_cut_missing_or_folders_are_told(tmp_path: Path) -> None:
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    gt.write_text(json.dumps(small_truth()))
    dt.write_text(json.dumps(small_predictions())[:-30])
    assert f"{dt} is not valid JSON" in refusal(gt, dt)
    assert "cannot read" in refusal(gt, tmp_path / "none.json")
    assert "cannot read" in refusal(tmp_path, dt)


@pytest.mark.parametrize(
    ("place", "key", "words"),
    [
        ("categories", "frequency", "category 0: expected r, c or f as frequency, got None"),
        ("images", "neg_category_ids", "image 1: expected a list as neg_category_ids"),
        ("images", "not_exhaustive_category_ids", "image 1: expected a list as not_exhaustive_category_ids"),
    ],
)
def test_LVIS_needs_its_fields(place: str, key: str, words: str) -> None:
    truth = small_truth()
    del truth[place][0][key]
    message = refusal(truth, small_predictions(), lvis=True)
    assert words in message
    assert "without --lvis" in message


def test_masks_need_the_size_of_their_image() -> None:
    truth = small_truth()
    del truth["images"][0]["height"]
    assert "image 1: expected a height and a width" in refusal(truth, small_predictions(), "segm")
    assert evaluate(truth, small_predictions(), iou="bbox").values["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize("iou", ["bbox", "segm"])
@pytest.mark.parametrize("lvis", [False, True])
def test_no_prediction_scores_zero_and_no_instance_scores_minus_one(iou: IouType, lvis: bool) -> None:
    for evaluator in ("faster", "lvis" if lvis else "pycocotools"):
        if evaluator == "lvis":
            pytest.importorskip("lvis")
        nothing = evaluate(small_truth(), [], iou=iou, lvis=lvis, evaluator=evaluator)  # type: ignore[arg-type]
        assert nothing.values["AP"] == 0
        assert nothing.values["APl"] == -1
        bare = small_truth() | {"annotations": []}
        empty = evaluate(bare, small_predictions(), iou=iou, lvis=lvis, evaluator=evaluator)  # type: ignore[arg-type]
        assert set(empty.values.values()) == {-1.0}
        assert [c.ap for c in empty.per_class] == [-1.0, -1.0]


@pytest.mark.parametrize(
    "change",
    [
        {"iscrowd": 1},
        {"iscrowd": 1, "segmentation": {"size": [30, 40], "counts": [60, 20, 1120]}},
        {"segmentation": FULL},
        {"segmentation": [[2, 3, 12, 3, 12, 11, 2, 11], [20, 20, 25, 25]]},
        {"segmentation": [[2, 3, 12, 3, 12, 11, 2, 11], [20, 20]]},
        {"segmentation": [[5, 5, 5, 5, 5, 5]], "area": 0, "bbox": [5, 5, 0, 0]},
        {"segmentation": [[-2, 3, 12, 3, 42, 31, 2, 11]]},
        {"area": 2000.0},
    ],
)
@pytest.mark.parametrize("iou", ["bbox", "segm"])
def test_odd_instances_are_judged_as_by_pycocotools(change: Json, iou: IouType, tmp_path: Path) -> None:
    truth, predictions = small_truth(**change), small_predictions(score=0.7)
    predictions += small_predictions(bbox=[4, 3, 12, 9], segmentation=code(box_mask(4, 3, 12, 9)))
    engine = by_pycocotools(tmp_path, truth, predictions, iou)
    for evaluator in ("faster", "pycocotools"):
        scores = evaluate(truth, predictions, iou=iou, evaluator=evaluator)  # type: ignore[arg-type]
        np.testing.assert_allclose([scores.values[key] for key in COCO_KEYS], engine.stats, rtol=0, atol=1e-12)


@pytest.mark.parametrize("polygons", [[[1, 2]], [[1, 2, 3, 4]], [[1, 2], [3, 4, 5, 6]], [[]]])
def test_polygons_that_enclose_nothing_match_nothing(polygons: Any) -> None:
    scores = evaluate(small_truth(segmentation=polygons), small_predictions(), iou="segm")
    assert [c.ap for c in scores.per_class] == [0.0, pytest.approx(1.0)]


def test_every_form_of_a_mask_gives_the_same_figures() -> None:
    runs = mask.decode({"size": [30, 40], "counts": FULL["counts"].encode()}).T.ravel()
    edges = np.flatnonzero(np.diff(runs, prepend=0, append=runs[-1])).tolist()
    counts = np.diff([0, *edges, 1200]).tolist()
    forms = [
        FULL,
        {"size": [30, 40], "counts": FULL["counts"].encode()},
        {"size": (30, 40), "counts": counts},
        [[2, 3, 12, 3, 12, 11, 2, 11]],
        [np.array([2, 3, 12, 3, 12, 11, 2, 11], dtype=np.float32)],
    ]
    predictions = [small_predictions(segmentation=form) for form in forms]
    truths = [small_truth(segmentation=form) for form in forms]
    values = [evaluate(truths[0], one, iou="segm").values for one in predictions]
    values += [evaluate(one, predictions[0], iou="segm").values for one in truths]
    assert all(one == values[0] for one in values)
    assert values[0]["AP"] == pytest.approx(1.0)


def test_what_roboflow_leaves_out_is_filled_in() -> None:
    box = [0, 0, 38, 29]  # of medium area
    whole = evaluate(small_truth(bbox=box, area=38 * 29), small_predictions(bbox=box), iou="bbox")
    truth = small_truth(bbox=box)
    for annotation in truth["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    assert evaluate(truth, small_predictions(bbox=box), iou="bbox").values == whole.values
    assert whole.values["APm"] == pytest.approx(1.0)


def test_categories_of_one_name_stay_apart() -> None:
    scores = evaluate(small_truth(), small_predictions()[:1], iou="bbox")
    assert [(c.id, c.name, c.ap, c.instances) for c in scores.per_class] == [
        (0, "cat", pytest.approx(1.0), 1),
        (7, "cat", 0.0, 1),
    ]


def test_an_instance_with_id_zero_can_be_found() -> None:
    scores = evaluate(small_truth(id=0), small_predictions(), iou="bbox")
    assert scores.values["AP"] == pytest.approx(1.0)
    assert "id 0" in scores.notes[0]
    assert not evaluate(small_truth(), small_predictions(), iou="bbox").notes


def test_areas_go_by_the_first_prediction_as_in_pycocotools(tmp_path: Path) -> None:
    """Unmatched masks outside an area range are ignored there: by their own area, or by their box's."""
    thin = np.eye(30, 40, dtype=np.uint8)
    bare = [{k: v for k, v in p.items() if k != "bbox"} for p in small_predictions()]
    bare += [{"image_id": 1, "category_id": 0, "score": 0.95, "segmentation": code(thin)}]
    boxed = [p | {"bbox": [0, 0, 40, 40]} for p in bare]
    values = []
    for predictions in (bare, boxed):
        engine = by_pycocotools(tmp_path, small_truth(), predictions, "segm")
        scores = evaluate(small_truth(), predictions, iou="segm")
        np.testing.assert_allclose([scores.values[key] for key in COCO_KEYS], engine.stats, rtol=0, atol=1e-12)
        values.append(scores.values["APs"])
    assert values[0] != values[1]


def test_boxes_are_drawn_round_masks_where_predictions_have_none(tmp_path: Path) -> None:
    predictions = [{k: v for k, v in p.items() if k != "bbox"} for p in small_predictions()]
    engine = by_pycocotools(tmp_path, small_truth(), predictions, "bbox")
    scores = evaluate(small_truth(), predictions, iou="bbox")
    np.testing.assert_allclose([scores.values[key] for key in COCO_KEYS], engine.stats, rtol=0, atol=1e-12)


def test_only_the_images_asked_for_are_judged(tmp_path: Path) -> None:
    truth, predictions = small_truth(), small_predictions(bbox=[30, 3, 5, 5])
    chosen = evaluate(truth, predictions, iou="bbox", image_ids=[2])
    assert (chosen.images, chosen.detections, chosen.values["AP"]) == (1, 1, pytest.approx(1.0))
    with pytest.raises(RiceError, match="1 of the images to judge are unknown, such as 9"):
        evaluate(truth, predictions, iou="bbox", image_ids=[2, 9])
    with pytest.raises(RiceError, match="at least one image"):
        evaluate(truth, predictions, iou="bbox", image_ids=[])


def test_the_limit_of_detections_names_the_recall() -> None:
    predictions = [{"image_id": 1, "category_id": 0, "score": 0.95, "bbox": [25, 15, 9, 9]}, *small_predictions()]
    assert evaluate(small_truth(), predictions, iou="bbox", max_detections=1).values["AR1"] == pytest.approx(0.5)
    values = evaluate(small_truth(), predictions, iou="bbox", max_detections=5).values
    assert [key for key in values if key.startswith("AR")] == ["AR1", "AR5", "ARs", "ARm", "ARl"]
    assert values["AR5"] == pytest.approx(1.0)
    with pytest.raises(RiceError, match="at least 1 detection"):
        evaluate(small_truth(), predictions, iou="bbox", max_detections=0)


@pytest.mark.parametrize("iou", ["bbox", "segm"])
def test_objects_given_are_left_as_they_are(iou: IouType) -> None:
    truth, predictions = small_truth(), small_predictions()
    before = copy.deepcopy((truth, predictions))
    evaluate(truth, predictions, iou=iou)
    evaluate(truth, predictions, iou=iou, evaluator="pycocotools")
    assert (truth, predictions) == before


def test_numpy_numbers_are_numbers() -> None:
    predictions = small_predictions(
        score=np.float32(0.9), image_id=np.int64(1), bbox=np.array([2, 3, 10, 8], dtype=np.float32)
    )
    assert evaluate(small_truth(), predictions, iou="bbox").values["AP"] == pytest.approx(1.0)


def test_run_lengths_are_checked_as_one_at_a_time() -> None:
    """Thousands of codes at once, half of them damaged, against the decoder for one (rice.data.segmentation)."""
    rng = np.random.default_rng(0)
    codes, pixels, expected = [], [], []
    for _ in range(3000):
        height, width = (int(edge) for edge in rng.integers(1, 300 if rng.random() < 0.1 else 12, size=2))
        text = bytearray(mask.encode(np.asfortranarray(rng.random((height, width)) < rng.random(), np.uint8))["counts"])
        if rng.random() < 0.5:
            place = int(rng.integers(len(text)))
            damage = int(rng.integers(4))
            text = text[:place] if damage == 0 else text
            if damage == 1:
                text[place] = int(rng.integers(256))
            elif damage == 2:
                text.insert(place, int(rng.integers(48, 112)))
            elif damage == 3:
                text[place] ^= 1 << int(rng.integers(6))
        try:
            sound = int(decode_segmentation({"size": [height, width], "counts": bytes(text)}, height, width).sum())
        except ValueError:
            sound = -1
        codes.append(bytes(text))
        pixels.append(height * width)
        expected.append(sound)
    assert foreground_pixels(codes, np.array(pixels)).tolist() == expected
    assert 0.3 < np.mean(np.array(expected) < 0) < 0.7


def packed(runs: list[int], characters: int = 1) -> bytes:
    """COCO's text form of any numbers, each in at least so many characters (maskApi.c, rleToString)."""
    text = bytearray()
    for place, run in enumerate(runs):
        value, written, more = run - (runs[place - 2] if place > 2 else 0), 0, True
        while more:
            symbol, value, written = value & 31, value >> 5, written + 1
            more = written < characters or value != (-1 if symbol & 16 else 0)
            text.append((symbol | (32 if more else 0)) + 48)
    return bytes(text)


@pytest.mark.parametrize(
    ("runs", "characters", "foreground"),
    [
        ([100, 50, 1050], 1, 50),
        ([100, 50, 1050], 7, 50),
        ([100, 50, 1050], 8, -1),  # longer than any image's run can be
        ([10, -5, 1195], 1, -1),  # adds up all the same
        ([0, 1200], 1, 1200),
        ([1200], 1, 0),
        ([100, 50, 100, 50, 100, 50, 750], 1, 150),
        ([100, 50, 1051], 1, -1),
    ],
)
def test_run_lengths_are_those_of_the_text_form(runs: list[int], characters: int, foreground: int) -> None:
    assert foreground_pixels([packed([7, 1193]), packed(runs, characters)], np.array([1200, 1200])).tolist() == [
        1193,
        foreground,
    ]
