"""Scores against scikit-learn, standard errors against closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score

from probes.dense.evaluate import (
    PixelCounts,
    count_pixels,
    score_with_error,
    stack_counts,
)
from probes.dense.scores import foreground_iou, mean_iou, pixel_accuracy
from rice.data.coco import IGNORE
from rice.errors import RiceError

CLASSES = 6


def random_counts(seed: int, pictures: int = 3) -> tuple[PixelCounts, np.ndarray, np.ndarray]:
    """Counts of random maps of various sizes, and all valid pixels' truth and prediction."""
    generator = np.random.default_rng(seed)
    counts, truths, predictions = [], [], []
    for _ in range(pictures):
        shape = generator.integers(2, 12, 2)
        truth = generator.choice([0, 1, 2, 4, IGNORE], shape)
        predicted = np.where(generator.random(shape) < 0.5, np.minimum(truth, 3), generator.integers(0, CLASSES, shape))
        counts.append(count_pixels(torch.from_numpy(predicted), torch.from_numpy(truth), CLASSES))
        truths.append(truth[truth != IGNORE])
        predictions.append(predicted[truth != IGNORE])
    return stack_counts(counts), np.concatenate(truths), np.concatenate(predictions)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    counts, truth, predicted = random_counts(seed)
    labels = np.unique(truth)
    assert score_with_error(counts, mean_iou)[0] == pytest.approx(
        jaccard_score(truth, predicted, labels=labels, average="macro", zero_division=0)
    )
    assert score_with_error(counts, pixel_accuracy)[0] == pytest.approx(accuracy_score(truth, predicted))
    foreground = labels[labels > 0]
    if len(foreground):
        assert score_with_error(counts, foreground_iou)[0] == pytest.approx(
            jaccard_score(truth, predicted, labels=foreground, average="macro", zero_division=0)
        )


def test_a_class_that_is_predicted_but_absent_does_not_enter_the_mean() -> None:
    truth, predicted = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 5, 1, 1]])
    counts = stack_counts([count_pixels(predicted, truth, CLASSES)])
    assert score_with_error(counts, mean_iou)[0] == pytest.approx((0.5 + 1) / 2)


def test_standard_error_is_that_of_a_mean_where_pictures_have_one_size() -> None:
    right = np.random.default_rng(0).integers(0, 101, 400)
    truth = np.full((400, 1), 100)
    counts = PixelCounts(right[:, None], truth, truth)
    value, stderr = score_with_error(counts, pixel_accuracy)
    assert value == pytest.approx(right.mean() / 100)
    assert stderr == pytest.approx(right.std() / 100 / 20, rel=0.07)  # 1,000 replicates: 2 % off on average


def test_one_picture_has_no_standard_error() -> None:
    counts, _, _ = random_counts(0, pictures=1)
    assert score_with_error(counts, mean_iou)[1] is None


def test_a_split_without_a_pixel_to_judge_is_refused() -> None:
    ignored = torch.full((3, 3), IGNORE)
    with pytest.raises(RiceError, match="all are ignored"):
        stack_counts([count_pixels(torch.zeros(3, 3, dtype=torch.int64), ignored, CLASSES)])
