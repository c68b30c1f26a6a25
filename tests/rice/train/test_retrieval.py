"""Region retrieval, against scikit-learn's average precision."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from rice.train.retrieval import retrieve


@pytest.mark.parametrize("regions", [7, 600])  # one chunk, and more than one
def test_equals_scikit_learns_average_precision_and_a_plain_search_of_each_label(regions: int) -> None:
    torch.manual_seed(regions)
    embeddings = torch.randn(regions, 6)
    labels, images = torch.randint(-1, 4, (regions,)), torch.randint(0, max(regions // 3, 2), (regions,))
    unit = (embeddings / embeddings.norm(dim=1, keepdim=True)).numpy()
    precisions: dict[int, list[float]] = {}
    hits: dict[int, list[bool]] = {}
    for query in range(regions):
        others = (images != images[query]).numpy() & (labels >= 0).numpy()
        right = (labels == labels[query]).numpy()[others]
        if labels[query] < 0 or not right.any():
            continue
        similarity = unit[others] @ unit[query]
        precisions.setdefault(int(labels[query]), []).append(average_precision_score(right, similarity))
        hits.setdefault(int(labels[query]), []).append(right[np.argmax(similarity)])
    score = retrieve(embeddings, labels, images)
    assert score.n == sum(map(len, hits.values())) > 0
    assert score.top1 == pytest.approx(100 * np.mean([np.mean(of_label) for of_label in hits.values()]))
    assert score.mean_ap == pytest.approx(
        100 * np.mean([np.mean(of_label) for of_label in precisions.values()]), abs=1e-4
    )


def test_regions_of_the_same_photo_never_answer() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    score = retrieve(embeddings, torch.tensor([5, 5, 5]), torch.tensor([0, 0, 1]))
    assert (score.top1, score.mean_ap, score.n) == (100.0, 100.0, 3)
    lonely = retrieve(embeddings[:2], torch.tensor([5, 5]), torch.tensor([0, 0]))
    assert lonely.n == 0
    assert math.isnan(lonely.top1)
