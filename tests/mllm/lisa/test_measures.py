"""Measures of referring segmentation, against hand-computed cases, LISA's histogram form and COCO's own IoU."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from mllm.lisa.measures import Overlap, overlaps, summary
from mllm.lisa.pictures import IGNORE


def masks(*rows: str) -> torch.Tensor:
    """'110.' a row: 1 target, 0 not, . does not count."""
    return torch.tensor([[{"1": 1, "0": 0, ".": IGNORE}[c] for c in row] for row in rows], dtype=torch.uint8)[:, None]


def by_histogram(predicted: torch.Tensor, true: torch.Tensor) -> tuple[float, float]:
    """Intersection and union of class 1 as LISA counts them: ignored pixels leave the prediction, then histograms."""
    said, true = predicted.double().clone(), true.double()
    said[true == IGNORE] = IGNORE
    both = torch.histc(said[said == true], bins=2, min=0, max=1)
    union = torch.histc(said, bins=2, min=0, max=1) + torch.histc(true, bins=2, min=0, max=1) - both
    return float(both[1]), float(union[1])


def test_hand_computed_pixels() -> None:
    predicted = masks("1100", "1111", "0000", "0110", "0000").bool()
    true = masks("0110", "11..", "0000", "0000", "0011")
    assert overlaps(predicted, true) == [
        Overlap(1, 3, target=True, empty=False),
        Overlap(2, 2, target=True, empty=False),
        Overlap(0, 0, target=False, empty=True),
        Overlap(0, 2, target=False, empty=False),
        Overlap(0, 2, target=True, empty=True),
    ]


def test_hand_computed_summary() -> None:
    predicted = masks("1100", "1111", "0000", "0110", "0000").bool()
    true = masks("0110", "11..", "0000", "0000", "0011")
    found = summary(overlaps(predicted, true))
    values = {name: (measure.value, measure.n) for name, measure in found.items()}
    assert values == {
        "ciou": (pytest.approx(100 * 3 / 9), 5),
        "giou": (pytest.approx(100 * (1 / 3 + 1 + 1 + 0 + 0) / 5), 5),
        "pr50": (pytest.approx(100 / 3), 3),
        "n_acc": (50.0, 2),
        "t_acc": (pytest.approx(200 / 3), 3),
    }


def test_exactly_half_counts_as_precise() -> None:
    assert summary([Overlap(1, 2, target=True, empty=False)])["pr50"].value == 100


def test_a_prediction_within_ignored_pixels_is_empty() -> None:
    (one,) = overlaps(masks("1100").bool(), masks("..00"))
    assert one == Overlap(0, 0, target=False, empty=True)
    assert one.iou == 1


def test_what_there_is_nothing_to_judge_by_is_left_out() -> None:
    assert summary([]) == {}
    assert set(summary([Overlap(0, 0, target=False, empty=True)])) == {"giou", "n_acc"}
    assert set(summary([Overlap(1, 2, target=True, empty=False)])) == {"ciou", "giou", "pr50", "t_acc"}


def test_sums_are_exact_beyond_the_integers_of_floats() -> None:
    large = 2**53
    found = summary([Overlap(large + 1, 2 * large + 2, target=True, empty=False), Overlap(0, 0, False, True)])
    assert found["ciou"].value == 50
    many = [Overlap(2**62 + 1, 2**63 - 1, target=True, empty=False)] * 3  # beyond 64 bits together
    assert found["ciou"].n == 2
    assert summary(many)["ciou"].value == pytest.approx(100 * (2**62 + 1) / (2**63 - 1), rel=1e-15)


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        overlaps(torch.zeros(1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 3, dtype=torch.uint8))


PIXELS = st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, IGNORE])), min_size=12, max_size=12)


@given(st.lists(PIXELS, min_size=1, max_size=5))
@settings(deadline=None)
def test_agrees_with_lisas_histograms(pictures: list[list[tuple[bool, int]]]) -> None:
    predicted = torch.tensor([[said for said, _ in picture] for picture in pictures]).view(-1, 3, 4)
    true = torch.tensor([[value for _, value in picture] for picture in pictures], dtype=torch.uint8).view(-1, 3, 4)
    found = overlaps(predicted, true)
    expected = [by_histogram(p, t) for p, t in zip(predicted, true, strict=True)]
    assert [(one.intersection, one.union) for one in found] == expected
    ious = [i / u if u else 1.0 for i, u in expected]
    assert summary(found)["giou"].value == pytest.approx(100 * np.mean(ious))
    if sum(u for _, u in expected):
        ciou = 100 * sum(i for i, _ in expected) / sum(u for _, u in expected)
        assert summary(found)["ciou"].value == pytest.approx(ciou)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=12, max_size=12))
@settings(deadline=None)
def test_iou_agrees_with_coco(pixels: list[tuple[bool, bool]]) -> None:
    predicted, true = np.array(pixels, dtype=np.uint8).T.reshape(2, 3, 4)
    (one,) = overlaps(torch.tensor(predicted, dtype=torch.bool)[None], torch.tensor(true)[None])
    codes = [coco.encode(np.asfortranarray(mask)) for mask in (predicted, true)]
    expected = coco.iou([codes[0]], [codes[1]], [0])[0, 0] if one.union else 1.0
    assert one.iou == pytest.approx(expected)
