"""Our detector and detectron2's with the same weights are the same function, forwards and in their losses."""

import json
import os
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("detectron2", reason="detectron2 is not installed (it is built from source)")

from probes.detection.detectron2 import (
    _their_name,
    as_instances,
    canvas_edge,
    from_detectron2,
    lazy_model,
    to_detectron2,
    to_encoder,
)
from probes.detection.model import Detector, build_detector
from probes.detection.pyramid import normalise_tokens
from rice.encoders.base import Encoder, Features
from rice.encoders.load import load_encoder
from rice.files import atomic_write

from .reference_case import (
    CLASSES,
    COUNTS,
    EDGE,
    HEADS,
    KINDS,
    LOSSES,
    REFERENCE,
    SIZES,
    WIDTH,
    detector_of,
    randomised,
    reference,
    same_order,
    targets,
    tokens,
)

ENCODERS = ["timm:vit_tiny_patch16_224@128", "timm:vit_tiny_patch16_224@96", "timm:vit_small_patch14_dinov2@126"]


def encoder_of(name: str) -> Encoder:
    return load_encoder(name, weights=None)


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
    for mine, their in zip(found, expected, strict=True):
        assert len(mine.scores) == len(their) > 20
        boxes = scaled(their.pred_boxes.tensor, encoder)
        order = same_order(mine.boxes, mine.scores, mine.labels, (boxes, their.scores, their.pred_classes))
        assert mine.masks is not None
        torch.testing.assert_close(mine.labels, their.pred_classes[order])
        torch.testing.assert_close(mine.scores, their.scores[order], rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.boxes, boxes[order], rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.masks, their.pred_masks[order, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("counts", [None, COUNTS], ids=["softmax", "federated"])
def test_the_same_weights_and_draws_give_the_same_losses_and_gradients(counts: list[int] | None) -> None:
    from detectron2.utils.events import EventStorage

    encoder = encoder_of(ENCODERS[0])
    ours, theirs = both(encoder, counts)
    ours.train(), theirs.train()
    images = pictures(canvas_edge(encoder))
    sizes = tuple((int(image.shape[1]), int(image.shape[2])) for image in images)
    mine = targets(sizes, canvas_edge(encoder))
    torch.manual_seed(5)
    losses = ours(tokens_of(encoder, images), mine)
    torch.manual_seed(5)
    with EventStorage():
        batch = [{"image": image, "instances": truth} for image, truth in zip(images, as_instances(mine), strict=True)]
        expected = theirs(batch)
    assert {LOSSES[name] for name in losses} == set(expected)
    for name, value in losses.items():
        torch.testing.assert_close(
            value, expected[LOSSES[name]], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
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


class Still(torch.nn.Module):
    """An encoder that gives the case's tokens, whatever it sees."""

    def __init__(self, like: Encoder) -> None:
        super().__init__()
        self.spec, self.dtype = like.spec, like.dtype

    def features(self, images_B3HW: Tensor) -> Features:
        return Features(tokens(), None)


def what_detectron2_says(kind: str) -> dict[str, Any]:
    from detectron2.config import instantiate
    from detectron2.utils.events import EventStorage

    encoder = encoder_of(ENCODERS[0])
    theirs = instantiate(lazy_model(encoder, HEADS, classes=CLASSES, image_counts=KINDS[kind]))
    theirs.backbone.encoder = Still(encoder)
    theirs.backbone.pyramid = type(theirs.backbone.pyramid)(WIDTH, HEADS.channels)
    theirs.load_state_dict(to_detectron2(detector_of(kind)), strict=False)
    assert canvas_edge(encoder) == EDGE
    images = [torch.zeros(3, *size, dtype=torch.uint8) for size in SIZES]
    with torch.no_grad():
        found = theirs.eval().inference([{"image": image} for image in images], do_postprocess=False)
    theirs.train()
    torch.manual_seed(5)
    with EventStorage():
        batch = [{"image": i, "instances": t} for i, t in zip(images, as_instances(targets()), strict=True)]
        losses = theirs(batch)
    return {
        "losses": {name: float(value) for name, value in losses.items()},
        "detections": [
            {
                "boxes": [[round(x, 5) for x in box] for box in part.pred_boxes.tensor.tolist()],
                "scores": [round(score, 6) for score in part.scores.tolist()],
                "labels": part.pred_classes.tolist(),
                "masks": [round(mean, 6) for mean in part.pred_masks.mean((1, 2, 3)).tolist()],
            }
            for part in found
        ],
    }


def test_the_stored_reference_is_what_detectron2_says() -> None:
    said = {kind: what_detectron2_says(kind) for kind in KINDS}
    if os.environ.get("RICE_FREEZE"):
        with atomic_write(REFERENCE) as file:
            file.write(json.dumps(said, separators=(",", ":")) + "\n")
    for kind, part in reference().items():
        assert part["losses"] == pytest.approx(said[kind]["losses"], rel=1e-4)
        for stored, now in zip(part["detections"], said[kind]["detections"], strict=True):
            torch.testing.assert_close(torch.tensor(stored["scores"]), torch.tensor(now["scores"]), rtol=0, atol=1e-4)
