"""Following: what the maps say is where the box goes, and the template's tokens of the first frame serve for all."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tracker import Box, Frame, config, square_frames, tiny_encoder, tiny_tracker, walk
from torch import Tensor, nn

from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.errors import RiceError
from tracking.config import TrackingConfig
from tracking.model import Maps
from tracking.tracker import Found, Tracker, cut_all
from tracking.windows import Window

CELLS = 8
START: Box = (24.0, 16.0, 16.0, 12.0)


class Scripted(nn.Module):
    """A head that says what it is told: score, offset and size by cell."""

    search = (CELLS, CELLS)

    def __init__(self, cells: dict[tuple[int, int], tuple[float, ...]]) -> None:
        super().__init__()
        self.cells = cells
        self.templates: list[Tensor] = []

    def forward(self, template_BZD: Tensor, search_BXD: Tensor) -> Maps:
        self.templates.append(template_BZD)
        batch = len(search_BXD)
        maps = Maps(*(torch.full((batch, channels, CELLS, CELLS), 1e-4) for channels in (1, 2, 2)))
        for (row, column), (score, *offset_size) in self.cells.items():
            maps.score[:, 0, row, column] = score
            maps.offset[:, :, row, column] = torch.tensor(offset_size[:2])
            maps.size[:, :, row, column] = torch.tensor(offset_size[2:])
        return maps


class Matching(nn.Module):
    """A head without weights: the centroid of the search tokens that resemble the template's middle."""

    search = (CELLS, CELLS)

    def forward(self, template_BZD: Tensor, search_BXD: Tensor) -> Maps:
        edge = math.isqrt(template_BZD.shape[1])
        middle = template_BZD.unflatten(1, (edge, edge))[
            :, edge // 2 - 1 : edge // 2 + 1, edge // 2 - 1 : edge // 2 + 1
        ]
        wanted = middle.flatten(1, 2).mean(1, keepdim=True)
        weight = (-20 * (search_BXD - wanted).square().mean(2)).exp() + 1e-9
        batch = len(search_BXD)
        at = torch.arange(CELLS) + 0.5
        grid = weight.view(batch, CELLS, CELLS)
        x, y = (grid.sum(axis) @ at / weight.sum(1) for axis in (1, 2))
        maps = Maps(*(torch.full((batch, channels, CELLS, CELLS), 1e-4) for channels in (1, 2, 2)))
        for k in range(batch):
            row, column = int(y[k]), int(x[k])
            maps.score[k, 0, row, column] = 0.9999
            maps.offset[k, :, row, column] = torch.stack([x[k] - column, y[k] - row])
            maps.size[k, :, row, column] = 1 / 4
        return maps


def with_head(head: Any, encoder: Encoder | None = None, settings: TrackingConfig | None = None) -> Tracker:
    settings = settings or config(margin=1.0)
    encoder = encoder or tiny_encoder()
    return Tracker(encoder, head, settings.sizes(encoder.spec), settings)


def black(height: int = 64, width: int = 96) -> Frame:
    return np.zeros((height, width, 3), np.uint8)


def step(tracker: Tracker, box: Box = START, frame: Frame | None = None) -> Found:
    frame = black() if frame is None else frame
    (found,) = tracker.follow([frame], [box], tracker.templates([frame], [box]))
    return found


@pytest.mark.parametrize(("row", "column"), [(3, 4), (2, 5), (0, 7)])
def test_the_box_is_the_peaks_cell_offset_and_size_in_the_search_window(row: int, column: int) -> None:
    found = step(with_head(Scripted({(row, column): (0.9, 0.3, 0.8, 0.2, 0.15)})))
    side = math.ceil(math.sqrt(16 * 12) * 4)
    left, top = round(24 + 8 - side / 2), round(16 + 6 - side / 2)
    x, y = left + side * (column + 0.3) / CELLS, top + side * (row + 0.8) / CELLS
    width, height = 0.2 * side, 0.15 * side
    corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    corners = np.clip(corners, 0, [96, 64, 96, 64])
    expected = (corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1])
    assert found.box == pytest.approx(expected, abs=1e-4)
    hann = np.hanning(CELLS + 2)[1:-1]
    assert found.score == pytest.approx(0.9 * hann[row] * hann[column], abs=1e-6)


def test_of_two_like_peaks_the_nearer_one_to_where_the_target_was_wins() -> None:
    near, far = (0.5, 0.5, 0.5, 0.1, 0.1), (0.6, 0.5, 0.5, 0.3, 0.3)
    found = step(with_head(Scripted({(3, 3): near, (1, 1): far})))
    assert found.box[2] == pytest.approx(0.1 * 56, abs=1e-4)
    faint = (0.05, *near[1:])
    assert step(with_head(Scripted({(3, 3): faint, (1, 1): far}))).box[2] == pytest.approx(0.3 * 56, abs=1e-3)


def test_a_box_keeps_its_margin_inside_the_frame() -> None:
    tracker = with_head(Scripted({(0, 0): (0.9, 0.0, 0.0, 0.01, 0.01)}), settings=config(margin=10.0))
    assert step(tracker, (2.0, 2.0, 16.0, 12.0)).box == (0, 0, 10, 10)
    tracker = with_head(Scripted({(7, 7): (0.9, 1.0, 1.0, 0.01, 0.01)}), settings=config(margin=10.0))
    assert step(tracker, (86.0, 56.0, 8.0, 8.0)).box == pytest.approx((86, 54, 10, 10))


@pytest.mark.parametrize("encoder", ["tiny", "shipped"])
def test_cached_template_tokens_are_those_of_every_frame_exactly(encoder: str) -> None:
    tracker = tiny_tracker(tiny_encoder() if encoder == "tiny" else load_encoder("mini-s8-128"))
    boxes = walk(12, START, (3.0, 1.5))
    frames = square_frames(boxes, [(64, 96)] * 12)
    cached = tracker.templates(frames[:1], [START])
    assert torch.equal(cached, tracker.templates(frames[:1], [START]))
    found = list(tracker.track(iter(frames), START))
    assert found[0] == Found(START, 1.0)
    expected = [Found(START, 1.0)]
    for frame in frames[1:]:
        anew = tracker.templates(frames[:1], [START])
        expected += tracker.follow([frame], [expected[-1].box], anew)
    assert found == expected
    assert len({one.box for one in found}) > 6, "the tracker moves"


def test_the_first_frames_template_is_never_renewed() -> None:
    head = Scripted({(4, 4): (0.9, 0.5, 0.5, 0.2, 0.2)})
    frames = square_frames(walk(6, START, (2, 0)), [(64, 96)] * 6)
    tracker = with_head(head)
    found = list(tracker.track(frames, START))
    assert len(found) == 6
    assert len(head.templates) == 5
    assert all(torch.equal(template, tracker.templates(frames[:1], [START])) for template in head.templates)


def test_the_encoder_sees_the_windows_in_zero_to_one_at_the_trackers_sizes() -> None:
    seen: list[Tensor] = []

    class Watched(Encoder):
        def forward(self, images_B3HW: Tensor) -> Any:
            seen.append(images_B3HW)
            return super().forward(images_B3HW)

    plain = tiny_encoder()
    encoder = Watched(plain.module, plain.spec, plain._extract, weights="random")
    frame = square_frames([START], [(64, 96)])[0]
    step(with_head(Scripted({(4, 4): (0.9, 0.5, 0.5, 0.2, 0.2)}), encoder), frame=frame)
    template, search = (Window.around(START, factor).cut(frame, size) for factor, size in ((2.0, 16), (4.0, 32)))
    for images, crop in zip(seen, (template, search), strict=True):
        np.testing.assert_allclose(images[0].permute(1, 2, 0).numpy(), crop.astype(np.float32) / 255, atol=1e-6)
        assert len(images) == 1


@pytest.mark.parametrize("step_", [(3.0, 2.0), (-2.5, 1.0), (0.0, 0.0)])
def test_a_square_is_followed_by_a_head_that_only_matches_tokens(step_: tuple[float, float]) -> None:
    """What is tested is all that lies around the head: windows, tokens, grids, coordinates."""
    boxes = walk(15, (50.0, 40.0, 16.0, 16.0), step_)
    frames = square_frames(boxes, [(120, 140)] * 15)
    for found, truth in zip(with_head(Matching()).track(frames, boxes[0]), boxes, strict=True):
        centres = [np.array(box[:2]) + np.array(box[2:]) / 2 for box in (found.box, truth)]
        assert np.abs(centres[0] - centres[1]).max() < 3
        assert found.box[2:] == pytest.approx((16, 16), abs=1)


@pytest.mark.parametrize(
    ("patch", "sizes"), [(14, (126, 252)), (16, (128, 256)), (8, (128, 256)), (32, (128, 256)), (100, (100, 300))]
)
def test_sizes_are_the_nearest_multiples_of_the_patch(patch: int, sizes: tuple[int, int]) -> None:
    assert TrackingConfig().sizes(tiny_encoder(patch).spec) == sizes


@pytest.mark.parametrize(("patch", "grid"), [(14, 18), (16, 16)])
def test_encoders_of_patch_14_and_16_follow(patch: int, grid: int) -> None:
    settings = dataclasses.replace(TrackingConfig(), heads=config().heads)
    tracker = tiny_tracker(tiny_encoder(patch), settings)
    assert tracker.head.search == (grid, grid)
    assert tracker.head.template == (grid // 2, grid // 2)
    frames = square_frames(walk(3, START, (2, 1)), [(64, 96)] * 3)
    found = list(tracker.track(frames, START))
    assert all(np.isfinite(one.box).all() for one in found)


@pytest.mark.parametrize("box", [(1, 2, 0, 4), (1, 2, 3, -1), (math.nan, 2, 3, 4), (1, 2, math.inf, 4)])
def test_a_first_box_without_an_area_is_refused(box: Box) -> None:
    with pytest.raises(RiceError, match="expected a first box x y width height with an area, got"):
        tiny_tracker().templates([black()], [box])


@pytest.mark.parametrize("box", [(10, 10, 1, 1), (-40, -40, 20, 20), (0, 0, 500, 400), (95.6, 63.2, 1e-3, 1e-3)])
def test_odd_first_boxes_are_followed_within_the_frame(box: Box) -> None:
    frames = square_frames(walk(4, START, (2, 1)), [(64, 96)] * 4)
    for found in list(tiny_tracker().track(frames, box))[1:]:
        x, y, width, height = found.box
        assert min(x, y) >= 0
        assert min(width, height) > 0
        assert x + width <= 96 + 1e-6
        assert y + height <= 64 + 1e-6


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 5)])
def test_frames_smaller_than_the_margin_are_followed(size: tuple[int, int]) -> None:
    frames = [np.full((*size, 3), level, np.uint8) for level in (10, 200, 90)]
    for found in tiny_tracker().track(frames, (0.0, 0.0, 1.0, 1.0)):
        assert found.box[0] + found.box[2] <= size[1]
        assert found.box[1] + found.box[3] <= size[0]


def test_threads_cut_the_same_windows() -> None:
    frames = square_frames(walk(5, START, (2, 1)), [(64, 96)] * 5)
    windows = [Window.around(box, 4.0) for box in walk(5, START, (2, 1))]
    with ThreadPoolExecutor(3) as pool:
        for left, right in zip(cut_all(windows, frames, 32, None), cut_all(windows, frames, 32, pool), strict=True):
            np.testing.assert_array_equal(left, right)


def test_no_frame_is_no_track() -> None:
    assert list(tiny_tracker().track([], START)) == []
