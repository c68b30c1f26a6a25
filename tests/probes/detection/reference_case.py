"""A detector, tokens and targets that are a function of a seed alone, and what detectron2 says of them.

detectron2_reference.json was written by detectron2 itself: `RICE_FREEZE=1 pytest test_detectron2.py`, where it is
installed. So our detector is held to it everywhere.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.detection.config import HeadsConfig
from probes.detection.model import Detector, Target, build_detector
from probes.detection.pyramid import normalise_tokens

REFERENCE = Path(__file__).with_name("detectron2_reference.json")

HEADS = HeadsConfig(
    channels=32, hidden=64, rpn_samples=64, roi_samples=48, rpn_top=(150, 120), proposals=100, federated_classes=4
)
CLASSES = 7
COUNTS = [1, 3, 10, 50, 2, 0, 7]
WIDTH, GRID, EDGE = 24, 8, 128
"""Of the tokens; 16 pixels a patch."""

LOSSES = {"rpn_objectness": "loss_rpn_cls", "rpn_boxes": "loss_rpn_loc", "masks": "loss_mask"}
LOSSES |= {f"class_{k}": f"loss_cls_stage{k}" for k in range(3)}
LOSSES |= {f"boxes_{k}": f"loss_box_reg_stage{k}" for k in range(3)}
"""Our names of the losses -> detectron2's."""

KINDS: dict[str, list[int] | None] = {"softmax": None, "federated": COUNTS}
SIZES = ((EDGE, EDGE), (EDGE - 16, EDGE), (EDGE, EDGE - 40))
"""(height, width) of three pictures: square, wide, tall."""


def randomised(detector: Detector, seed: int = 0) -> Detector:
    """Weights under which there is something to find: scores far apart, boxes that move, masks of both kinds."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in detector.named_parameters():
            gain = 3.0 if "scores" in name or "predict" in name or "objectness" in name else 1.0
            gain = 0.1 if "deltas" in name else gain  # trained offsets are a part of a box, not many boxes
            if value.ndim > 1:
                value.copy_(torch.randn(value.shape, generator=generator) * gain / value[0].numel() ** 0.5)
            elif "norm" in name and "weight" in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            else:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return detector


def detector_of(kind: str, *, patch: int = 16, width: int = WIDTH) -> Detector:
    """The detector of a case."""
    return randomised(build_detector(HEADS, patch=patch, width=width, classes=CLASSES, image_counts=KINDS[kind]))


def tokens() -> Tensor:
    """(3, D, h, w), normalised."""
    generator = torch.Generator().manual_seed(3)
    return normalise_tokens(torch.randn(len(SIZES), WIDTH, GRID, GRID, generator=generator))


def targets(sizes: tuple[tuple[int, int], ...] = SIZES, edge: int = EDGE) -> list[Target]:
    """Four instances, one, and none."""
    generator = torch.Generator().manual_seed(2)
    found = []
    for (height, width), count in zip(sizes, (4, 1, 0), strict=True):
        extent = torch.tensor([width, height])
        corner = torch.rand(count, 2, generator=generator) * extent * 0.6
        boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * extent * 0.3 + 6], 1)
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        masks = torch.zeros(count, edge, edge, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left : (left + right) // 2 + 2] = True
        found.append(Target(boxes, labels, masks, (height, width)))
    return found


def reference() -> dict[str, Any]:
    """{kind: {"losses": {name: value}, "detections": [{"boxes", "scores", "labels", "masks"}]}} of detectron2."""
    found: dict[str, Any] = json.loads(REFERENCE.read_text())
    return found


def same_order(boxes: Tensor, scores: Tensor, labels: Tensor, others: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Which of the others each detection is: scores that differ in their last bits may change places."""
    left = torch.cat([boxes, scores[:, None] * 100, labels[:, None] * 1000], 1)
    right = torch.cat([others[0], others[1][:, None] * 100, others[2][:, None] * 1000], 1)
    order = torch.cdist(left, right).argmin(1)
    assert len(set(order.tolist())) == len(order)
    return order
