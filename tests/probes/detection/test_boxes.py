"""Boxes on a pyramid against their definitions, and against torchvision where its own rounding is not in the way."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, roi_align
from torchvision.ops.poolers import initLevelMapper

from probes.detection.boxes import Matching, cell_anchors, distance_sum, grid_anchors, level_of, pool, sample
from probes.detection.pyramid import levels

CPU = torch.device("cpu")
RATIOS = (0.5, 1.0, 2.0)


pytestmark = pytest.mark.usefixtures("one_thread")


def random_boxes(count: int, edge: float, seed: int = 0, least: float = 0.0) -> Tensor:
    """Boxes of all sizes, evenly in the logarithm of their edges."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * edge
    extent = (torch.rand(count, 2, generator=generator) * math.log(edge)).exp() + least
    return torch.cat([centre - extent / 2, centre + extent / 2], 1)


@pytest.mark.parametrize("stride", [3.5, 4.0, 16.0, 56.0])
@pytest.mark.parametrize("ratios", [RATIOS, (1.0,), (0.3, 3.0)])
def test_anchors_around_the_origin_have_the_area_and_the_ratio_asked_for(
    stride: float, ratios: tuple[float, ...]
) -> None:
    anchors = cell_anchors(stride, 8.0, ratios).double()
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    expected = torch.full((len(ratios),), (8 * stride) ** 2, dtype=torch.float64)
    torch.testing.assert_close(width * height, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(height / width, torch.tensor(ratios, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(anchors[:, :2], -anchors[:, 2:], rtol=0, atol=0)


@pytest.mark.parametrize("stride", [3.5, 16.0])
def test_an_anchor_stands_at_its_cell_times_the_exact_stride(stride: float) -> None:
    rows, columns = 5, 3
    anchors = grid_anchors((rows, columns), stride, 8.0, RATIOS, CPU).double()
    expected = []
    for i in range(rows):
        for j in range(columns):
            for ratio in RATIOS:
                width = 8 * stride / math.sqrt(ratio)
                height = width * ratio
                x, y = j * stride, i * stride
                expected.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    torch.testing.assert_close(anchors, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize("stride", [4, 8, 16, 32, 64])
def test_square_anchors_on_whole_strides_are_torchvisions(stride: int) -> None:
    """Its other ratios are rounded to whole pixels."""
    rows, columns = 6, 4
    generator = AnchorGenerator(((8 * stride,),), ((1.0,),))
    images = ImageList(torch.zeros(1, 3, rows * stride, columns * stride), [(rows * stride, columns * stride)])
    (expected,) = generator(images, [torch.zeros(1, 1, rows, columns)])
    torch.testing.assert_close(grid_anchors((rows, columns), float(stride), 8.0, (1.0,), CPU), expected)


@pytest.mark.parametrize("stride", [4.0, 16.0])
def test_all_anchors_on_whole_strides_are_torchvisions_but_for_its_rounding(stride: float) -> None:
    generator = AnchorGenerator(((int(8 * stride),),), (RATIOS,))
    images = ImageList(torch.zeros(1, 3, int(5 * stride), int(7 * stride)), [(int(5 * stride), int(7 * stride))])
    (expected,) = generator(images, [torch.zeros(1, 1, 5, 7)])
    ours = grid_anchors((5, 7), stride, 8.0, RATIOS, CPU)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0.5)


def test_the_level_of_a_box_is_torchvisions_where_strides_are_powers_of_two() -> None:
    strides = [4.0, 8.0, 16.0, 32.0]
    boxes = random_boxes(5000, 1024)
    edge = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    clear = (edge.log2() - (edge / 7).log2().floor() - math.log2(7)).abs() > 1e-5  # not where rounding decides
    mapper = initLevelMapper(2, 5, canonical_scale=224, canonical_level=4)
    expected = mapper([boxes[clear]])
    assert set(expected.tolist()) == {0, 1, 2, 3}
    assert torch.equal(level_of(boxes[clear], strides), expected)


def test_a_box_changes_level_at_14_cells_of_the_patch_grid_and_its_doubles() -> None:
    for patch in (14, 16, 8):
        strides = [level.stride for level in levels(patch)][:-1]
        edges = torch.tensor([6.9, 7.1, 13.9, 14.1, 27.9, 28.1, 1000.0, 0.01]) * patch
        boxes = torch.stack([edges * 0, edges * 0, edges, edges], 1)
        assert level_of(boxes, strides).tolist() == [0, 1, 1, 2, 2, 3, 3, 0]


def test_a_box_without_an_area_is_on_the_finest_level() -> None:
    boxes = torch.tensor([[3.0, 3, 3, 3], [0, 5, 9, 5]])
    assert level_of(boxes, [4.0, 8.0, 16.0, 32.0]).tolist() == [0, 0]


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_levels_do_not_depend_on_the_unit_of_length(seed: int) -> None:
    boxes = random_boxes(200, 512, seed)
    sixteen, fourteen = ([level.stride for level in levels(patch)][:-1] for patch in (16, 14))
    assert torch.equal(level_of(boxes * 14 / 16, fourteen), level_of(boxes, sixteen))


STRIDES = {16: [4.0, 8.0, 16.0, 32.0], 14: [3.5, 7.0, 14.0, 28.0]}


def level_by_hand(box: Tensor, patch: int) -> int:
    left, top, right, bottom = box.double().tolist()
    cells = math.sqrt((right - left) * (bottom - top)) / patch
    return min(max(math.floor(math.log2(cells / 14)) + 2, 0), 3)


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("counts", [(9, 6), (5, 0, 8), (0, 0), (0, 3)])
def test_pooling_takes_every_box_from_its_image_and_level_in_order(patch: int, counts: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    strides, edge = STRIDES[patch], patch * 40
    features = [
        torch.randn(len(counts), 3, round(edge / stride), round(edge / stride), generator=generator)
        for stride in strides
    ]
    boxes = [random_boxes(count, edge, seed=7 + index, least=1.0) for index, count in enumerate(counts)]
    pooled = pool(features, boxes, strides, 5)
    assert pooled.shape == (sum(counts), 3, 5, 5)
    row, seen = 0, set()
    for image, part in enumerate(boxes):
        for box in part:
            level = level_by_hand(box, patch)
            seen.add(level)
            alone = roi_align(
                features[level][image : image + 1], [box[None]], 5, 1 / strides[level], sampling_ratio=0, aligned=True
            )
            torch.testing.assert_close(pooled[row], alone[0], rtol=0, atol=1e-6)
            row += 1
    assert sum(counts) < 9 or len(seen) > 2, "the boxes should come from several levels"


def test_pooling_reads_the_picture_at_the_box_and_not_half_a_cell_beside_it() -> None:
    """A map that says its own x: the pooled value of a box inside is the x of its centre, in cells."""
    for stride in (3.5, 4.0):
        cells = 60
        ramp = (torch.arange(cells) + 0.5).expand(1, 1, cells, cells)
        box = torch.tensor([[10.0, 20, 34, 30]])
        pooled = pool([ramp, ramp, ramp, ramp], [box], [stride, 2 * stride, 4 * stride, 8 * stride], 7)
        assert pooled.mean().item() == pytest.approx(22 / stride, abs=1e-4)


def test_pooling_is_fp32_and_lets_gradients_through_to_the_level_it_used() -> None:
    features = [torch.zeros(1, 2, n, n, dtype=torch.bfloat16, requires_grad=True) for n in (32, 16, 8, 4)]
    pooled = pool(features, [torch.tensor([[0.0, 0, 126, 126]])], STRIDES[16], 7)
    assert pooled.dtype == torch.float32
    pooled.sum().backward()
    used = [feature.grad is not None and bool(feature.grad.any()) for feature in features]
    assert used == [False, True, False, False]


def match_by_hand(truth: Tensor, boxes: Tensor, high: float, low: float, best_too: bool) -> list[tuple[int, int]]:
    """(truth, label) of each box, with loops."""
    overlap = box_iou(truth, boxes).tolist()
    found = []
    for n in range(len(boxes)):
        column = [row[n] for row in overlap]
        best = column.index(max(column))
        label = 1 if column[best] >= high else 0 if column[best] < low else -1
        if best_too and any(row[n] == max(row) for row in overlap):
            label = 1
        found.append((best, label))
    return found


lattice = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 5)] * 2)
"""(left, top, width, height) on a coarse lattice: equal overlaps are frequent."""


def from_lattice(drawn: list[tuple[int, ...]]) -> Tensor:
    return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in drawn], dtype=torch.float32).reshape(-1, 4)


@given(st.lists(lattice, min_size=1, max_size=5), st.lists(lattice, min_size=1, max_size=12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_matching_is_its_definition(truth: list[tuple[int, ...]], boxes: list[tuple[int, ...]], best_too: bool) -> None:
    truth_G4, boxes_N4 = from_lattice(truth), from_lattice(boxes)
    for high, low in ((0.7, 0.3), (0.5, 0.5)):
        matched_N, label_N = Matching(high, low, best_too=best_too)(truth_G4, boxes_N4)
        expected = match_by_hand(truth_G4, boxes_N4, high, low, best_too)
        assert label_N.tolist() == [label for _, label in expected]
        positive = [n for n, (_, label) in enumerate(expected) if label == 1]
        assert matched_N[positive].tolist() == [expected[n][0] for n in positive]


def test_all_boxes_that_tie_for_a_truth_box_are_positive_however_low() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 2], [0, 8, 10, 10], [0, 0, 10, 1], [20, 20, 30, 30]])
    assert Matching(0.7, 0.3, best_too=True)(truth, boxes)[1].tolist() == [1, 1, 0, 0]
    assert Matching(0.7, 0.3, best_too=False)(truth, boxes)[1].tolist() == [0, 0, 0, 0]


def test_a_low_quality_match_belongs_to_the_truth_box_that_it_overlaps_most() -> None:
    """Box 0 is the best of truth box 1, and overlaps truth box 0 more: it is positive, for truth box 0."""
    truth = torch.tensor([[0.0, 0, 10, 10], [9, 0, 29, 10]])
    boxes = torch.tensor([[2.0, 0, 12, 10], [0, 0, 10, 10]])
    matched, label = Matching(0.7, 0.3, best_too=True)(truth, boxes)
    assert label.tolist() == [1, 1]
    assert matched.tolist() == [0, 0]


def test_at_the_threshold_itself_a_box_is_positive() -> None:
    truth, boxes = torch.tensor([[0.0, 0, 2, 1]]), torch.tensor([[0.0, 0, 1, 1]])
    assert Matching(0.5, 0.5, best_too=False)(truth, boxes)[1].tolist() == [1]
    assert Matching(0.5000001, 0.5, best_too=False)(truth, boxes)[1].tolist() == [-1]


def test_without_truth_all_boxes_are_negative() -> None:
    matched, label = Matching(0.7, 0.3, best_too=True)(torch.zeros(0, 4), random_boxes(9, 100))
    assert label.tolist() == matched.tolist() == [0] * 9


@given(
    labels=st.lists(st.sampled_from([-1, 0, 1]), max_size=60),
    count=st.integers(1, 40),
    share=st.sampled_from([0.25, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_a_sample_is_full_disjoint_and_of_the_right_labels(
    labels: list[int], count: int, share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    positive, negative = (part.tolist() for part in sample(torch.tensor(labels, dtype=torch.int64), count, share))
    assert all(labels[n] == 1 for n in positive)
    assert all(labels[n] == 0 for n in negative)
    assert len(set(positive)) == len(positive)
    assert len(set(negative)) == len(negative)
    assert len(positive) == min(labels.count(1), math.floor(count * share))
    assert len(negative) == min(labels.count(0), count - len(positive))


def test_every_positive_and_every_negative_is_drawn_equally_often() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([1, 0, -1] * 8)
    draws, times = 3000, torch.zeros(24)
    for _ in range(draws):
        for part in sample(labels, 8, 0.5):
            times[part] += 1
    expected = torch.tensor([4 / 8, 4 / 8, 0.0] * 8) * draws
    spread = math.sqrt(draws * 0.5 * 0.5)
    assert ((times - expected).abs() < 5 * spread).all()
    assert times[2::3].sum() == 0


def test_the_distance_is_the_sum_of_absolute_differences() -> None:
    left, right = random_boxes(20, 50), random_boxes(20, 50, seed=1)
    expected = sum(
        abs(a - b) for x, y in zip(left.tolist(), right.tolist(), strict=True) for a, b in zip(x, y, strict=True)
    )
    assert distance_sum(left, right).item() == pytest.approx(expected, rel=1e-5)
