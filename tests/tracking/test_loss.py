"""The losses are CenterNet's loops, GIoU's closed forms, and reach everything that learns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tracking.config import HeadsConfig
from tracking.loss import focal_loss, heat_map, tracking_loss
from tracking.model import Maps, build_head


def radius_by_hand(width: float, height: float) -> int:
    """Of three quadratics a r^2 + b r + c the terms (b + root) / 2, as CornerNet first had them; whole cells."""
    overlap = 0.7
    quadratics = [
        (1, width + height, width * height * (1 - overlap) / (1 + overlap)),
        (4, 2 * (width + height), (1 - overlap) * width * height),
        (4 * overlap, -2 * overlap * (width + height), (overlap - 1) * width * height),
    ]
    return max(int(min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in quadratics)), 0)


def map_by_hand(box: tuple[float, ...], cells: int) -> NDArray[np.float64]:
    """Cell by cell: CenterNet's Gaussian of sigma (2 r + 1) / 6 within r cells of the rounded centre."""
    x, y, width, height = (np.float32(value) * np.float32(cells) for value in box)
    radius = radius_by_hand(float(width), float(height))
    across, down = (round(float(start + size / np.float32(2))) for start, size in ((x, width), (y, height)))
    sigma = (2 * radius + 1) / 6
    drawn = np.zeros((cells, cells))
    for row in range(cells):
        for column in range(cells):
            if abs(row - down) <= radius and abs(column - across) <= radius:
                drawn[row, column] = math.exp(-((row - down) ** 2 + (column - across) ** 2) / (2 * sigma**2))
    return drawn


sides, starts = st.floats(0.0078125, 0.875, width=32), st.floats(-0.625, 1.125, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(starts, starts, sides, sides), min_size=1, max_size=4), st.sampled_from([4, 12, 16, 18]))
def test_the_heat_map_is_centernets_drawn_cell_by_cell(boxes: list[tuple[float, ...]], cells: int) -> None:
    # A radius or centre at a rounding's very edge may fall either way in fp32.
    boxes = [box for box in boxes if clear(box, cells)]
    if not boxes:
        return
    found = heat_map(torch.tensor(boxes), cells)
    assert found.shape == (len(boxes), 1, cells, cells)
    np.testing.assert_allclose(found[:, 0], [map_by_hand(box, cells) for box in boxes], rtol=0, atol=1e-5)


def clear(box: tuple[float, ...], cells: int) -> bool:
    small, large = (radius_by_hand(*(side * cells * factor for side in box[2:])) for factor in (1 - 1e-5, 1 + 1e-5))
    centres = [(box[k] + box[k + 2] / 2) * cells for k in (0, 1)]
    return small == large and all(abs(centre % 1 - 0.5) > 1e-4 for centre in centres)


def test_the_cell_of_the_centre_is_one_and_others_are_less() -> None:
    found = heat_map(torch.tensor([[0.25, 0.5, 0.25, 0.25]]), 16)[0, 0]  # its centre: 6, 10
    assert found[10, 6] == 1
    assert (found == 1).sum() == 1
    assert found[10, 7] == found[10, 5] == found[11, 6] == found[9, 6] > found[11, 7] > 0


@pytest.mark.parametrize("box", [(0.9, 0.4, 0.3, 0.2), (-0.5, -0.5, 0.4, 0.4), (0.98, 0.98, 0.04, 0.04)])
def test_a_centre_outside_the_map_has_no_cell_that_is_one(box: tuple[float, ...]) -> None:
    found = heat_map(torch.tensor([box]), 16)
    assert (found < 1).all()
    np.testing.assert_allclose(found[0, 0], map_by_hand(box, 16), atol=1e-6)
    loss = focal_loss(torch.full((1, 1, 16, 16), 0.1), found)
    assert torch.isfinite(loss)
    assert loss > 0


def focal_by_hand(score: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    total, hits = 0.0, 0
    for p, t in zip(score.flatten(), truth.flatten(), strict=True):
        if t == 1:
            hits += 1
            total -= (1 - p) ** 2 * math.log(p)
        else:
            total -= (1 - t) ** 4 * p**2 * math.log(1 - p)
    return total / max(hits, 1)


@pytest.mark.parametrize("boxes", [[(0.2, 0.3, 0.4, 0.2), (0.1, 0.1, 0.7, 0.8)], [(0.1, 0.2, 0.8, 0.7), (2, 2, 1, 1)]])
def test_the_focal_loss_is_its_definition_per_target(boxes: list[tuple[float, ...]]) -> None:
    truth = heat_map(torch.tensor(boxes, dtype=torch.float64), 16)
    assert ((truth > 0) & (truth < 1)).any(), "cells near the centre weigh less"
    score = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.98 + 0.01
    assert focal_loss(score, truth).item() == pytest.approx(focal_by_hand(score.numpy(), truth.numpy()), rel=1e-12)


def maps_of(boxes: list[tuple[float, ...]], cells: int = 8) -> Maps:
    """Whose highest score has these boxes (centre x, centre y, width, height), whose other cells have others."""
    score = torch.full((len(boxes), 1, cells, cells), 0.1)
    offset, size = torch.full((len(boxes), 2, cells, cells), 7.0), torch.full((len(boxes), 2, cells, cells), 0.9)
    for k, (x, y, width, height) in enumerate(boxes):
        column, row = int(x * cells), int(y * cells)
        score[k, 0, row, column] = 0.8
        offset[k, :, row, column] = torch.tensor([x * cells - column, y * cells - row])
        size[k, :, row, column] = torch.tensor([width, height])
    return Maps(score, offset, size)


@pytest.mark.parametrize(
    ("predicted", "truth", "giou", "l1"),
    [
        ((0.5, 0.5, 0.25, 0.5), (0.375, 0.25, 0.25, 0.5), 1.0, 0.0),  # the same box
        ((0.125, 0.125, 0.25, 0.25), (0.75, 0.75, 0.25, 0.25), -0.875, 0.75),  # in opposite corners
        ((0.25, 0.5, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0), 0.5, 0.125),  # half of it
        ((0.25, 0.25, 0.5, 0.5), (0.25, 0.0, 0.5, 0.5), 1 / 3, 0.125),  # moved by half its width
        ((0.25, 0.5, 0.5, 1.0), (-1.0, 0.0, 1.5, 1.0), 1.0, 0.0),  # the truth is cut at the region
        ((0.75, 0.5, 0.5, 1.0), (0.5, 0.0, 1.0, 2.0), 1.0, 0.0),
    ],
)
def test_box_losses_have_their_closed_forms(
    predicted: tuple[float, ...], truth: tuple[float, ...], giou: float, l1: float
) -> None:
    parts = tracking_loss(maps_of([predicted]), torch.tensor([truth]))
    assert parts["giou"].item() == pytest.approx(2 * (1 - giou), abs=1e-5)
    assert parts["l1"].item() == pytest.approx(5 * l1, abs=1e-6)


def test_the_loss_is_the_mean_over_pairs_of_weighted_parts() -> None:
    boxes = [(0.5, 0.5, 0.25, 0.5), (0.125, 0.125, 0.25, 0.25)]
    truths = torch.tensor([(0.375, 0.25, 0.25, 0.5), (0.75, 0.75, 0.25, 0.25)])
    maps = maps_of(boxes)
    parts = tracking_loss(maps, truths)
    assert list(parts) == ["focal", "giou", "l1"]
    assert parts["giou"].item() == pytest.approx(2 * 1.875 / 2, abs=1e-5)
    assert parts["l1"].item() == pytest.approx(5 * 0.75 / 2, abs=1e-6)
    expected = focal_by_hand(maps.score.double().numpy(), heat_map(truths.double(), 8).numpy())
    assert parts["focal"].item() == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_every_weight_of_all_branches() -> None:
    head = build_head(HeadsConfig(channels=8, head_dim=4), width=8, template=(2, 2), search=(4, 4))
    dice = torch.Generator().manual_seed(0)
    template, search = (torch.randn(6, cells, 8, generator=dice) for cells in (4, 16))
    truth = torch.tensor([[0.1 * k, 0.3, 0.3, 0.4] for k in range(6)])
    parts: dict[str, Tensor] = tracking_loss(head(template, search), truth)
    sum(parts.values(), torch.zeros(())).backward()
    still = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in still if "kv.bias" not in name], still
    for branch in (head.center.score, head.center.offset, head.center.size):
        assert all(p.grad is not None and p.grad.any() for p in branch[-1].parameters())


def test_a_truth_of_a_pixel_or_of_all_the_region_gives_a_finite_loss() -> None:
    truth = torch.tensor([[0.5, 0.5, 1e-4, 1e-4], [-3.0, -3.0, 7.0, 7.0]])
    parts = tracking_loss(maps_of([(0.5, 0.5, 1e-4, 1e-4), (0.5, 0.5, 1.0, 1.0)]), truth)
    assert all(torch.isfinite(value) for value in parts.values())
