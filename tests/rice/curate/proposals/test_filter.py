"""Which proposals are taken, against brute force and torchvision."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.ops import nms

from rice.curate.proposals.config import ProposalConfig
from rice.curate.proposals.filter import ABOVE_CAP, DUPLICATE, NOT_FINITE, OUTSIDE, SMALL, select
from rice.curate.proposals.proposer import Proposals, build_proposer
from rice.errors import RiceError

WIDTH, HEIGHT = 60, 40

coordinates = st.floats(-20, 80) | st.sampled_from([0.0, 8.0, 7.5, 40.0, 60.0, np.nan, np.inf, -np.inf])
scores = st.floats(0, 1, width=32) | st.sampled_from([0.5, 0.25, np.nan])
ordered = st.tuples(st.floats(-5, 40), st.floats(-5, 30), st.floats(0, 50), st.floats(0, 40)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
rows = st.lists(st.tuples(ordered | st.tuples(*[coordinates] * 4), scores), max_size=25)
configs = st.builds(
    ProposalConfig,
    min_region=st.integers(1, 12),
    duplicate_iou=st.floats(0, 1),
    most_regions=st.integers(1, 12),
)


def _proposals(found: list[Any]) -> Proposals:
    boxes = np.array([box for box, _ in found], dtype=np.float64).reshape(-1, 4)
    return Proposals(boxes, np.array([score for _, score in found], dtype=np.float32))


def _iou(one: NDArray[Any], other: NDArray[Any]) -> float:
    """By painting both boxes."""
    canvas = np.zeros((2, HEIGHT, WIDTH), dtype=bool)
    for layer, (left, top, right, bottom) in zip(canvas, (one, other), strict=True):
        layer[top:bottom, left:right] = True
    return float((canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum())


@given(found=rows, config=configs)
def test_every_proposal_is_taken_or_counted_once(found: list[Any], config: ProposalConfig) -> None:
    taken = select(_proposals(found), WIDTH, HEIGHT, config)
    assert len(taken.boxes) == len(taken.scores) <= config.most_regions
    assert len(taken.boxes) + taken.dropped.total() == len(found)
    assert all(count > 0 for count in taken.dropped.values())


@given(found=rows, config=configs)
def test_regions_lie_in_the_picture_are_large_enough_and_distinct(found: list[Any], config: ProposalConfig) -> None:
    boxes, scores, _ = select(_proposals(found), WIDTH, HEIGHT, config)
    assert (boxes.dtype, scores.dtype) == (np.uint16, np.float32)
    assert (boxes <= [WIDTH, HEIGHT] * 2).all()
    assert (boxes[:, 2:].astype(int) - boxes[:, :2] >= config.min_region).all()
    assert (np.diff(scores) <= 0).all()
    for index, box in enumerate(boxes):
        assert all(_iou(box, other) <= config.duplicate_iou for other in boxes[:index])


@given(found=rows, config=configs)
def test_selecting_again_changes_nothing(found: list[Any], config: ProposalConfig) -> None:
    once = select(_proposals(found), WIDTH, HEIGHT, config)
    again = select(Proposals(once.boxes.astype(np.float64), once.scores), WIDTH, HEIGHT, config)
    np.testing.assert_array_equal(again.boxes, once.boxes)
    np.testing.assert_array_equal(again.scores, once.scores)
    assert not again.dropped


@given(found=rows, config=configs)
def test_the_selection_is_what_the_words_say_one_proposal_at_a_time(found: list[Any], config: ProposalConfig) -> None:
    dropped: Counter[str] = Counter()
    usable = []
    for order, (box, score) in enumerate(found):
        if not np.isfinite([*box, score]).all():
            dropped[NOT_FINITE] += 1
            continue
        left, right = (min(max(x, 0), WIDTH) for x in box[::2])
        top, bottom = (min(max(y, 0), HEIGHT) for y in box[1::2])
        if right <= left or bottom <= top:
            dropped[OUTSIDE] += 1
        elif min(right - left, bottom - top) < config.min_region:
            dropped[SMALL] += 1
        else:
            whole = [int(left // 1), int(top // 1), int(-(-right // 1)), int(-(-bottom // 1))]
            usable.append((-float(np.float32(score)), order, whole))
    kept: list[list[int]] = []
    for _, _, box in sorted(usable):
        if any(_iou(box, better) > config.duplicate_iou for better in kept):
            dropped[DUPLICATE] += 1
        else:
            kept.append(box)
    dropped[ABOVE_CAP] += max(len(kept) - config.most_regions, 0)
    taken = select(_proposals(found), WIDTH, HEIGHT, config)
    assert taken.boxes.tolist() == kept[: config.most_regions]
    assert taken.dropped == +dropped


@given(found=st.lists(ordered, min_size=1, max_size=40), limit=st.sampled_from([0.31, 0.53, 0.71, 0.89]))
def test_duplicates_are_those_of_torchvision(found: list[Any], limit: float) -> None:
    boxes = np.array(found).round().clip(0, [WIDTH, HEIGHT] * 2)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)]
    scores = np.linspace(1, 0, len(boxes), dtype=np.float32)
    config = ProposalConfig(min_region=1, duplicate_iou=limit, most_regions=99)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores).double(), limit).numpy()
    taken = select(Proposals(boxes, scores), WIDTH, HEIGHT, config)
    np.testing.assert_array_equal(taken.boxes, boxes[expected])
    np.testing.assert_array_equal(taken.scores, scores[expected])


def _edges(width: float, left: float = 0.0, picture: int = 400) -> Counter[str]:
    boxes = np.array([[left, 10.0, left + width, 300.0]])
    return select(Proposals(boxes, np.ones(1, np.float32)), picture, 400, ProposalConfig()).dropped


def test_an_edge_of_128_is_enough_and_127_and_a_half_is_not_even_where_it_covers_129_pixels() -> None:
    assert _edges(128) == {}
    assert _edges(128, left=0.5) == {}
    assert _edges(127.5) == {SMALL: 1}
    assert _edges(127.5, left=0.75) == {SMALL: 1}


def test_an_edge_counts_as_far_as_it_is_in_the_picture() -> None:
    assert _edges(200, left=-72) == {}
    assert _edges(200, left=-72.5) == {SMALL: 1}
    assert _edges(200, left=272) == {}
    assert _edges(200, left=-200) == {OUTSIDE: 1}


def test_of_equals_the_earlier_is_taken() -> None:
    boxes = np.array([[0, 0, 10, 10], [30, 0, 40, 10], [0, 0, 10, 10], [15, 0, 25, 10]], dtype=np.float64)
    config = ProposalConfig(min_region=1, most_regions=2)
    taken = select(Proposals(boxes, np.full(4, 0.5, np.float32)), WIDTH, HEIGHT, config)
    np.testing.assert_array_equal(taken.boxes, boxes[:2])
    assert taken.dropped == {DUPLICATE: 1, ABOVE_CAP: 1}


def test_among_hundreds_of_equals_the_first_are_taken() -> None:
    boxes = np.array([[x, 0, x + 1, 1] for x in range(300)], dtype=np.float64)
    scores = np.tile(np.float32([0.5, 1, 0.25]), 100)
    taken = select(Proposals(boxes, scores), 300, 1, ProposalConfig(min_region=1, most_regions=120))
    np.testing.assert_array_equal(taken.boxes, np.concatenate([boxes[1::3], boxes[::3][:20]]))


def test_a_limit_of_1_takes_even_the_same_box_twice() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 2, dtype=np.float64)
    taken = select(
        Proposals(boxes, np.ones(2, np.float32)), WIDTH, HEIGHT, ProposalConfig(min_region=1, duplicate_iou=1.0)
    )
    assert len(taken.boxes) == 2


def test_a_picture_that_16_bits_cannot_measure_is_refused() -> None:
    with pytest.raises(RiceError, match="65535 pixels an edge, got 65536x10"):
        select(_proposals([]), 65_536, 10, ProposalConfig())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("proposals", "guess"), ("min_region", 0), ("duplicate_iou", -0.1), ("duplicate_iou", 1.1)),
        *(("duplicate_iou", float("nan")), ("most_regions", 0), ("points_per_side", 0), ("sam_iou", 1.5)),
        *(("sam_stability", -1.0), ("pictures_per_batch", 0), ("points_per_batch", 0)),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(RiceError, match=rf"{field}={value} is out of range; see rice curate propose --help"):
        ProposalConfig(**{field: value})


def test_annotated_boxes_have_no_proposer() -> None:
    with pytest.raises(ValueError, match="come with the pictures"):
        build_proposer(ProposalConfig(proposals="boxes"), "cpu")
