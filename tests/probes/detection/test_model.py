"""The whole detector against detectron2's own numbers, stored by it, and what composing must keep."""

import pytest
import torch
from torch import Tensor

from probes.detection.config import HeadsConfig
from probes.detection.model import build_detector

from .reference_case import (
    GRID,
    HEADS,
    KINDS,
    LOSSES,
    SIZES,
    WIDTH,
    detector_of,
    reference,
    same_order,
    targets,
    tokens,
)


@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_detectron2s(kind: str) -> None:
    found = detector_of(kind).eval().detect(tokens(), SIZES)
    for mine, expected in zip(found, reference()[kind]["detections"], strict=True):
        boxes, scores, labels, masks = (torch.tensor(expected[n]) for n in ("boxes", "scores", "labels", "masks"))
        assert len(mine.scores) == len(scores) > 20
        order = same_order(mine.boxes, mine.scores, mine.labels, (boxes, scores, labels))
        assert mine.masks is not None
        torch.testing.assert_close(mine.labels, labels[order])
        torch.testing.assert_close(mine.scores, scores[order], rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.boxes, boxes[order], rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.masks.mean((1, 2)), masks[order], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_detectron2s(kind: str) -> None:
    detector = detector_of(kind).train()
    torch.manual_seed(5)
    losses = detector(tokens(), targets())
    expected = reference()[kind]["losses"]
    assert {LOSSES[name] for name in losses} == set(expected)
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[LOSSES[name]], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("patch", [14, 8])
def test_a_detector_counts_in_patches(patch: int) -> None:
    """The same tokens of another patch size: the same detections, scaled."""
    sizes = [(height * patch // 16, width * patch // 16) for height, width in SIZES]
    base = detector_of("softmax").eval().detect(tokens(), SIZES)
    other = detector_of("softmax", patch=patch).eval().detect(tokens(), sizes)
    for mine, expected in zip(other, base, strict=True):
        boxes = expected.boxes * patch / 16
        order = same_order(mine.boxes, mine.scores, mine.labels, (boxes, expected.scores, expected.labels))
        # RoIAlign takes ceil(size) samples: a size that is a whole number but for rounding may get one more. So a
        # few may move, and a little; all others are the same.
        apart = (mine.boxes - boxes[order]).abs().amax(1)
        assert int((apart > 1e-3).sum()) <= 2
        assert int(((mine.scores - expected.scores[order]).abs() > 1e-4).sum()) <= 2
        torch.testing.assert_close(mine.boxes, boxes[order], rtol=0, atol=0.05)
        torch.testing.assert_close(mine.scores, expected.scores[order], rtol=0, atol=1e-2)


def every_loss(detector_kind: str, masks: bool = True) -> dict[str, Tensor]:
    detector = build_detector(HEADS, patch=16, width=WIDTH, classes=3, image_counts=None, masks=masks).train()
    wanted = [t._replace(labels=t.labels % 3, masks=t.masks if masks else None) for t in targets()]
    losses: dict[str, Tensor] = detector(tokens(), wanted)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in detector.named_parameters() if p.grad is None]
    assert not without, "every parameter needs a gradient in every step, or DistributedDataParallel waits forever"
    return losses


def test_boxes_alone_train_without_a_mask_head() -> None:
    assert "masks" not in every_loss("softmax", masks=False)
    assert "masks" in every_loss("softmax")


def test_pictures_without_anything_to_find_still_give_every_parameter_a_gradient() -> None:
    detector = detector_of("softmax").train()
    empty = [t._replace(boxes=t.boxes[:0], labels=t.labels[:0], masks=t.masks[:0]) for t in targets()]  # type: ignore[index]
    losses = detector(tokens(), empty)
    assert losses["masks"] == losses["boxes_0"] == losses["rpn_boxes"] == 0
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert not [name for name, p in detector.named_parameters() if p.grad is None]


def test_fresh_weights_are_a_function_of_the_seed_and_leave_the_generator_alone() -> None:
    def first(seed: int) -> Tensor:
        return next(
            build_detector(HeadsConfig(channels=8, hidden=8), patch=16, width=4, classes=2, seed=seed).parameters()
        )

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(torch.rand(3), expected)


def test_nothing_is_found_beyond_the_picture() -> None:
    for found, (height, width) in zip(detector_of("softmax").eval().detect(tokens(), SIZES), SIZES, strict=True):
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2] <= width).all()
        assert (found.boxes[:, 3] <= height).all()
    assert SIZES[0][0] == GRID * 16
