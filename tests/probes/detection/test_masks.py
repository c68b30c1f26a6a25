"""The mask head, what it is taught, and how its masks become pixels: against torch, torchvision and pycocotools."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor, nn
from torchvision.ops import roi_align

from probes.detection.boxes import pool
from probes.detection.cascade import Found, Regions
from probes.detection.config import HeadsConfig
from probes.detection.masks import MASK_EDGE, MaskHead, crop_masks, paste_mask
from rice.data.segmentation import encode_mask

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

CONFIG = HeadsConfig(channels=6, mask_convs=2)
CLASSES, STRIDES = 5, [3.5, 7.0, 14.0, 28.0]


def head_of() -> MaskHead:
    head = MaskHead(CONFIG, CLASSES, STRIDES)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return head


def features(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, CONFIG.channels, round(112 / s), round(112 / s), generator=generator) for s in STRIDES]


def boxes_of(count: int, seed: int, edge: float = 112) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * edge * 0.6
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * edge * 0.38], 1)


def every_category(head: MaskHead, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
    """(R, K, M, M): the whole last convolution."""
    x = pool(maps, boxes, STRIDES, 14)
    for convolution, norm in zip(head.convs, head.norms, strict=True):
        x = nn.functional.conv2d(x, convolution.weight, padding=1)
        x = nn.functional.layer_norm(x.permute(0, 2, 3, 1), norm.normalized_shape, norm.weight, norm.bias, 1e-6)
        x = x.permute(0, 3, 1, 2).relu()
    x = nn.functional.conv_transpose2d(x, head.upsample.weight, head.upsample.bias, stride=2).relu()
    return nn.functional.conv2d(x, head.predict.weight, head.predict.bias)


def test_a_mask_is_its_categorys_channel_of_the_whole_convolution() -> None:
    head, maps, boxes = head_of(), features(), [boxes_of(7, 1), boxes_of(4, 2)]
    labels = torch.tensor([0, 4, 2, 2, 1, 3, 0, 4, 1, 3, 2])
    logits = head(maps, boxes, labels)
    expected = every_category(head, maps, boxes)[torch.arange(11), labels]
    assert logits.shape == (11, MASK_EDGE, MASK_EDGE) == (11, 28, 28)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    left = torch.autograd.grad(logits.square().sum(), list(head.parameters()), retain_graph=True)
    right = torch.autograd.grad(expected.square().sum(), list(head.parameters()))
    for mine, reference in zip(left, right, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-2 * float(reference.abs().max()))


def truth_masks(count: int, seed: int) -> Tensor:
    """Blobs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, (112, 112), mode="bilinear")[:, 0] > 0


def regions_of(counts: tuple[int, int], labels: list[list[int]]) -> list[Regions]:
    parts = []
    for index, (count, label) in enumerate(zip(counts, labels, strict=True)):
        matched = torch.tensor([k % 3 for k in range(count)], dtype=torch.int64)
        parts.append(Regions(boxes_of(count, 5 + index), torch.tensor(label, dtype=torch.int64), matched))
    return parts


def test_the_loss_is_the_mean_over_the_pixels_of_the_positive_regions() -> None:
    head, maps = head_of(), features()
    labels = [[1, CLASSES, 0, 4], [CLASSES, CLASSES, 3]]
    regions, truth = regions_of((4, 3), labels), [truth_masks(3, 0), truth_masks(3, 1)]
    value = head.loss(maps, regions, truth)
    every = every_category(head, maps, [part.boxes for part in regions]).double()
    losses, row = [], 0
    for part, masks in zip(regions, truth, strict=True):
        for box, label, matched in zip(part.boxes, part.labels.tolist(), part.matched.tolist(), strict=True):
            if label < CLASSES:
                shown = roi_align(masks[matched][None, None].float(), [box[None]], 28, sampling_ratio=0, aligned=True)
                chance = every[row, label].sigmoid()
                wanted = (shown[0, 0] >= 0.5).double()
                losses.append(-(wanted * chance.log() + (1 - wanted) * (1 - chance).log()))
            row += 1
    assert value.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


@pytest.mark.parametrize("counts", [(3, 2), (0, 2), (0, 0)])
def test_no_positive_region_teaches_nothing_and_every_parameter_has_a_gradient(counts: tuple[int, int]) -> None:
    head = head_of()
    regions = regions_of(counts, [[CLASSES] * count for count in counts])
    value = head.loss(features(), regions, [truth_masks(3, 0), torch.zeros(0, 112, 112, dtype=torch.bool)])
    value.backward()
    assert value.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


@torch.no_grad()
def test_detected_masks_are_probabilities_split_by_picture() -> None:
    head, maps = head_of(), features(batch=3)
    boxes = [boxes_of(3, 1), boxes_of(0, 1), boxes_of(2, 2)]
    labels = [torch.tensor([1, 0, 4]), torch.zeros(0, dtype=torch.int64), torch.tensor([2, 2])]
    found = head.detect(maps, [Found(b, torch.ones(len(b)), k) for b, k in zip(boxes, labels, strict=True)])
    assert [len(part) for part in found] == [3, 0, 2]
    expected = every_category(head, maps, boxes)[torch.arange(5), torch.cat(labels)].sigmoid()
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=1e-5)


def test_a_cropped_mask_is_roi_align_of_its_own_truth_cut_at_one_half() -> None:
    masks, boxes = truth_masks(4, 0), boxes_of(9, 3)
    matched = torch.tensor([3, 0, 0, 3, 1, 3, 1, 0, 3])  # 2 has no region
    found = crop_masks(masks, boxes, matched)
    for row, box, index in zip(found, boxes, matched.tolist(), strict=True):
        shown = roi_align(masks[index][None, None].float(), [box[None]], 28, sampling_ratio=0, aligned=True)
        assert torch.equal(row, (shown[0, 0] >= 0.5).float())
    assert set(found.unique().tolist()) == {0, 1}
    assert crop_masks(masks, boxes[:0], matched[:0]).shape == (0, 28, 28)


def test_a_crop_of_the_masks_own_28_pixels_is_the_mask() -> None:
    masks = truth_masks(2, 4)
    box = torch.tensor([[40.0, 50, 68, 78]])
    assert torch.equal(crop_masks(masks, box, torch.tensor([1]))[0].bool(), masks[1, 50:78, 40:68])


def paste_by_hand(mask: NDArray[np.float32], box: tuple[float, ...], height: int, width: int) -> NDArray[np.float64]:
    """grid_sample at every pixel's centre, float64 (detectron2's definition)."""
    left, top, right, bottom = box
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - top) / (bottom - top) * 2 - 1
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - left) / (right - left) * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
    sampled = nn.functional.grid_sample(
        torch.from_numpy(mask).double()[None, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled[0, 0].numpy()


def assert_pasted(mask: NDArray[np.float32], box: tuple[float, ...], height: int, width: int) -> NDArray[np.bool_]:
    pasted, expected = paste_mask(mask, box, height, width), paste_by_hand(mask, box, height, width)
    assert pasted.shape == (height, width)
    clear = np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(pasted[clear], expected[clear] >= 0.5)
    return pasted


def random_mask(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((28, 28), dtype=np.float32)


@pytest.mark.parametrize(
    "box",
    [
        (10.3, 5.7, 50.2, 33.1),
        (0.0, 0.0, 60.0, 40.0),
        (-12.5, 7.0, 20.0, 30.5),
        (40.0, -20.0, 75.5, 61.0),
        (20.25, 10.0, 20.75, 35.0),
        (20.6, 10.0, 21.4, 35.0),
        (5.0, 17.49, 55.0, 17.51),
        (30.0, 20.0, 31.0, 21.0),
        (59.0, 0.0, 60.0, 40.0),
        (70.0, 50.0, 90.0, 80.0),
    ],
    ids=str,
)
def test_a_pasted_mask_is_grid_samples(box: tuple[float, ...]) -> None:
    for mask in (random_mask(0), np.ones((28, 28), np.float32), np.tri(28, dtype=np.float32)):
        assert_pasted(mask, box, 40, 60)


@given(
    st.tuples(*[st.floats(-30, 70)] * 2, *[st.floats(0.01, 80)] * 2),
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_any_box_in_any_picture_is_pasted_as_grid_sample_would(
    drawn: tuple[float, ...], height: int, width: int, seed: int
) -> None:
    left, top, across, down = drawn
    assert_pasted(random_mask(seed), (left, top, left + across, top + down), height, width)


def test_a_full_mask_fills_the_pixels_whose_centres_its_box_holds() -> None:
    pasted = paste_mask(np.ones((28, 28), np.float32), (10.0, 5.0, 40.0, 35.0), 50, 60)
    expected = np.zeros((50, 60), bool)
    expected[5:35, 10:40] = True
    expected[[5, 5, 34, 34], [10, 39, 10, 39]] = pasted[[5, 5, 34, 34], [10, 39, 10, 39]]  # corners fade in both ways
    np.testing.assert_array_equal(pasted, expected)


@pytest.mark.parametrize("box", [(5.0, 5.0, 5.0, 9.0), (9.0, 5.0, 5.0, 9.0), (5.0, 5.0, 8.0, 5.0)])
def test_a_box_without_an_area_has_no_pixels(box: tuple[float, ...]) -> None:
    assert not paste_mask(np.ones((28, 28), np.float32), box, 20, 20).any()


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_read_by_pycocotools_and_are_json(seed: int) -> None:
    mask = np.random.default_rng(seed).random((17, 23)) > (0.5, 0.9, 0.1, -1, 2)[seed]
    for stored in (np.asfortranarray(mask), np.ascontiguousarray(mask)):
        code = json.loads(json.dumps(encode_mask(stored)))
        assert code["size"] == [17, 23]
        np.testing.assert_array_equal(rle.decode(code).astype(bool), mask)


def test_a_pasted_mask_survives_its_encode_mask() -> None:
    pasted = paste_mask(random_mask(3), (3.0, 4.0, 50.0, 30.0), 40, 60)
    assert pasted.any()
    np.testing.assert_array_equal(rle.decode(encode_mask(pasted)).astype(bool), pasted)
