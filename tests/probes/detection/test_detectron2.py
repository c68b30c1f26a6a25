"""Our detector and detectron2's with the same weights are the same function, forwards and in their losses."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("detectron2", reason="detectron2 is not installed (it is built from source)")

from probes.detection.config import HeadsConfig
from probes.detection.detectron2 import _their_name, canvas_edge, from_detectron2, lazy_model, to_detectron2, to_encoder
from probes.detection.model import Detections, Detector, Target, build_detector
from probes.detection.pyramid import normalise_tokens
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder

HEADS = HeadsConfig(
    channels=32, hidden=64, rpn_samples=64, roi_samples=48, rpn_top=(150, 120), proposals=100, federated_classes=4
)
CLASSES = 7
COUNTS = [1, 3, 10, 50, 2, 0, 7]
ENCODERS = ["timm:vit_tiny_patch16_224@128", "timm:vit_tiny_patch16_224@96", "hf14"]


def encoder_of(name: str) -> Encoder:
    if name == "hf14":
        name = "timm:vit_small_patch14_dinov2@126"
    return load_encoder(name, weights=None)


def randomised(detector: Detector, seed: int = 0) -> Detector:
    """Weights under which there is something to find: scores far apart, boxes that move, masks of both kinds."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in detector.named_parameters():
            gain = 3.0 if "scores" in name or "predict" in name or "objectness" in name else 1.0
            gain = 0.1 if "deltas" in name else gain  # trained offsets are a part of a box, not many boxes
            if value.ndim > 1:
                fan = value[0].numel()
                value.copy_(torch.randn(value.shape, generator=generator) * gain / fan**0.5)
            elif "norm" in name and "weight" in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            else:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return detector


def both(encoder: Encoder, counts: list[int] | None) -> tuple[Detector, Any]:
    """Ours and theirs with the same weights."""
    from detectron2.config import instantiate

    spec = encoder.spec
    ours = randomised(build_detector(HEADS, patch=spec.patch, width=spec.width, classes=CLASSES, image_counts=counts))
    theirs = instantiate(lazy_model(encoder, HEADS, classes=CLASSES, image_counts=counts))
    missing, unexpected = theirs.load_state_dict(to_detectron2(ours), strict=False)
    assert not unexpected
    assert all(name.startswith(("backbone.encoder.", "pixel_")) or "fed_loss" in name for name in missing)
    return ours, theirs


def pictures(edge: int) -> list[Tensor]:
    """One that fills the canvas, a wide and a tall one."""
    generator = torch.Generator().manual_seed(1)
    sizes = [(edge, edge), (edge - 16, edge), (edge, edge - 40)]
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def tokens_of(encoder: Encoder, images: list[Tensor]) -> Tensor:
    """As our own path makes them: padding is the encoder's mean."""
    edge = canvas_edge(encoder)
    canvas = encoder.mean.expand(len(images), 3, edge, edge).clone()
    for row, image in zip(canvas, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image.float() / 255
    return normalise_tokens(encoder.features(to_encoder(encoder.normalise(canvas), encoder)).patches)


def scaled(value: Tensor, encoder: Encoder) -> Tensor:
    """Pixels of the canvas as pixels of the encoder."""
    return value * encoder.spec.patch / 16


@pytest.mark.parametrize("counts", [None, COUNTS], ids=["softmax", "federated"])
@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_the_same_weights_give_the_same_detections(name: str, counts: list[int] | None) -> None:
    encoder = encoder_of(name)
    ours, theirs = both(encoder, counts)
    ours.eval(), theirs.eval()
    images = pictures(canvas_edge(encoder))
    sizes = [image.shape[-2:] for image in images]
    shown = [(int(h) * encoder.spec.patch / 16, int(w) * encoder.spec.patch / 16) for h, w in sizes]
    found = ours.detect(tokens_of(encoder, images), shown)  # type: ignore[arg-type]  # clipping takes any numbers
    expected = theirs.inference([{"image": image} for image in images], do_postprocess=False)
    for mine, reference in zip(found, expected, strict=True):
        assert len(mine.scores) == len(reference) > 20
        boxes = scaled(reference.pred_boxes.tensor, encoder)
        order = same_order(mine, boxes, reference.scores, reference.pred_classes)
        assert mine.masks is not None
        torch.testing.assert_close(mine.labels, reference.pred_classes[order])
        torch.testing.assert_close(mine.scores, reference.scores[order], rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.boxes, boxes[order], rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.masks, reference.pred_masks[order, 0], rtol=0, atol=1e-4)


def same_order(mine: Detections, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Which of theirs each of ours is: scores that differ in their last bits may change places."""
    left = torch.cat([mine.boxes, mine.scores[:, None] * 100, mine.labels[:, None] * 1000], 1)
    right = torch.cat([boxes, scores[:, None] * 100, labels[:, None] * 1000], 1)
    order = torch.cdist(left, right).argmin(1)
    assert len(set(order.tolist())) == len(order)
    return order


def targets_of(images: list[Tensor], encoder: Encoder) -> tuple[list[Target], list[Any]]:
    from detectron2.structures import BitMasks, Boxes, Instances

    generator = torch.Generator().manual_seed(2)
    ours, theirs = [], []
    edge = canvas_edge(encoder)
    for image, count in zip(images, (4, 1, 0), strict=True):
        height, width = image.shape[-2:]
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.6
        extent = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.3 + 6
        boxes = torch.cat([corner, corner + extent], 1)
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        masks = torch.zeros(count, edge, edge, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left : (left + right) // 2 + 2] = True
        ours.append(Target(boxes, labels, masks, (height, width)))
        instances = Instances((height, width))
        instances.gt_boxes, instances.gt_classes = Boxes(boxes), labels
        instances.gt_masks = BitMasks(masks)
        theirs.append(instances)
    return ours, theirs


@pytest.mark.parametrize("counts", [None, COUNTS], ids=["softmax", "federated"])
def test_the_same_weights_and_draws_give_the_same_losses_and_gradients(counts: list[int] | None) -> None:
    from detectron2.utils.events import EventStorage

    encoder = encoder_of(ENCODERS[0])
    ours, theirs = both(encoder, counts)
    ours.train(), theirs.train()
    images = pictures(canvas_edge(encoder))
    mine, reference = targets_of(images, encoder)
    torch.manual_seed(5)
    losses = ours(tokens_of(encoder, images), mine)
    torch.manual_seed(5)
    with EventStorage():
        batch = [{"image": image, "instances": truth} for image, truth in zip(images, reference, strict=True)]
        expected = theirs(batch)
    names = {"rpn_objectness": "loss_rpn_cls", "rpn_boxes": "loss_rpn_loc", "masks": "loss_mask"}
    names |= {f"class_{k}": f"loss_cls_stage{k}" for k in range(3)}
    names |= {f"boxes_{k}": f"loss_box_reg_stage{k}" for k in range(3)}
    assert {names[name] for name in losses} == set(expected)
    for name, value in losses.items():
        torch.testing.assert_close(
            value, expected[names[name]], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.stack(list(losses.values())).sum().backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    back = dict(ours.named_parameters())
    for name in back:
        left, right = back[name].grad, gradients[_their_name(name)]
        assert left is not None
        # As a whole: a ReLU that sees a rounding of zero may let one product through and not the other.
        assert float((left - right).norm()) <= 1e-3 * float(right.norm()) + 1e-7, name


def test_weights_go_there_and_back() -> None:
    ours, theirs = both(encoder_of(ENCODERS[0]), None)
    spec = encoder_of(ENCODERS[0]).spec
    again = build_detector(HEADS, patch=spec.patch, width=spec.width, classes=CLASSES, seed=9)
    from_detectron2(theirs.state_dict(), again)
    for left, right in zip(ours.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_encoder_is_frozen_in_detectron2s_training() -> None:
    _, theirs = both(encoder_of(ENCODERS[0]), None)
    theirs.train()
    assert not theirs.backbone.encoder.training
    assert not any(p.requires_grad for p in theirs.backbone.encoder.parameters())
    assert all(p.requires_grad for p in theirs.backbone.pyramid.parameters())
