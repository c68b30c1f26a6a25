"""The drawn curves are the evaluator's, and every category has its panel."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from score_samples import Json, small_predictions, small_truth

from probes.detection.curves import class_sheet, mean_curves, write_curves
from probes.detection.score import evaluate

FILES = [f"{name}.{kind}" for name in ("precision_recall", "precision_recall_classes") for kind in ("png", "pdf")]


def many(categories: int) -> Json:
    truth = small_truth()
    truth["categories"] = [{"id": k, "name": f"category ${k}"} for k in range(categories)]
    first = truth["annotations"][0]
    truth["annotations"] = [first | {"id": k + 1, "category_id": k} for k in range(categories)]
    return truth


def test_the_mean_curve_is_the_mean_over_categories_of_the_truth() -> None:
    scores = evaluate(small_truth(), small_predictions(bbox=[3, 3, 10, 8]), iou="bbox")
    axes = mean_curves(scores).axes[0]
    for line, chosen in zip(axes.lines, ([0], [5], range(10)), strict=True):
        expected = scores.precision[list(chosen)].mean(axis=(0, 2))
        np.testing.assert_allclose(np.asarray(line.get_ydata()), expected)
    assert [text.get_text().split(": AP ")[1] for text in axes.get_legend().get_texts()] == [
        f"{scores.values[key]:.3f}" for key in ("AP50", "AP75", "AP")
    ]


def test_every_category_of_the_truth_has_a_panel_on_some_page(tmp_path: Path) -> None:
    scores = evaluate(many(100), small_predictions(), iou="bbox")
    labels = [
        text.get_text().split("\n")[0]
        for page in range(2)
        for text in class_sheet(scores, page).axes[0].texts
        if "AP" in text.get_text()
    ]
    assert sorted(labels) == sorted(f"category ${k}" for k in range(100))
    write_curves(tmp_path, scores)
    assert (tmp_path / "precision_recall_classes.pdf").read_bytes().count(b"/Count 2") == 1


@pytest.mark.parametrize("found", [small_predictions(), []])
@pytest.mark.parametrize("bare", [False, True])
def test_pictures_are_written_whole_even_of_nothing(tmp_path: Path, found: list[Json], bare: bool) -> None:
    truth = small_truth() | ({"annotations": []} if bare else {})
    written = write_curves(tmp_path, evaluate(truth, found, iou="bbox"))
    assert [path.name for path in written] == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for path in written:
        if path.suffix == ".png":
            assert np.asarray(Image.open(path).convert("L")).std() > 1
        else:
            assert path.read_bytes().rstrip().endswith(b"%%EOF")
