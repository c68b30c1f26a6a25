"""Cascade Mask R-CNN over a frozen encoder's tokens: this module only composes the parts.

Shapes: B images, D width of the encoder, h w its grid, N detections, G truth instances, H W the input, M a mask's edge.
Boxes are xyxy in input pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from probes.detection.cascade import Cascade, Truth
from probes.detection.config import HeadsConfig
from probes.detection.federated import ClassLoss, FederatedLoss
from probes.detection.masks import MaskHead
from probes.detection.pyramid import Pyramid, levels
from probes.detection.rpn import RegionProposals, Size


class Target(NamedTuple):
    """One image to learn from: boxes (G, 4); labels (G,); masks bool (G, H, W), None where there are none; `size`
    (height, width) of what is not padding."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    size: Size

    def to(self, device: torch.device) -> "Target":
        """On a device."""
        masks = None if self.masks is None else self.masks.to(device, non_blocking=True)
        return Target(
            self.boxes.to(device, non_blocking=True), self.labels.to(device, non_blocking=True), masks, self.size
        )


class Detections(NamedTuple):
    """One image's detections, best first: boxes (N, 4); scores (N,) in [0, 1]; labels (N,); masks (N, M, M), the
    probabilities inside each box, None without a mask head."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None


class Detector(nn.Module):
    """Pyramid, region proposals, box cascade and mask head; the encoder is not part of it."""

    def __init__(
        self,
        pyramid: Pyramid,
        proposals: RegionProposals,
        cascade: Cascade,
        masks: MaskHead | None,
        *,
        limits: "Limits",
    ) -> None:
        super().__init__()
        self.pyramid, self.proposals, self.cascade, self.masks = pyramid, proposals, cascade, masks
        self.limits = limits

    def forward(self, tokens_BDhw: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses by name, each a scalar; their sum is what is minimised. `tokens`: as `normalise_tokens` gives them."""
        features = self.pyramid(tokens_BDhw)
        sizes = [target.size for target in targets]
        truth = [Truth(target.boxes, target.labels) for target in targets]
        scores = self.proposals(features)
        losses: dict[str, Tensor] = self.proposals.losses(scores, [target.boxes for target in targets])
        pooled = features[: len(self.cascade.strides)]
        regions = self.cascade.choose(self.proposals.propose(scores, sizes), truth)
        losses |= self.cascade.losses(pooled, regions, truth, sizes)
        if self.masks is not None:
            masks = [_masks(target) for target in targets]
            losses["masks"] = self.masks.loss(pooled, regions, masks)
        return losses

    @torch.no_grad()
    def detect(self, tokens_BDhw: Tensor, sizes: Sequence[Size]) -> list[Detections]:
        """What is in each image, boxes cut to its `sizes` (height, width). In evaluation mode only."""
        features = self.pyramid(tokens_BDhw)
        proposals = self.proposals.propose(self.proposals(features), sizes)
        pooled = features[: len(self.cascade.strides)]
        limits = self.limits
        found = self.cascade.detect(pooled, proposals, sizes, threshold=limits.threshold, most=limits.detections)
        if self.masks is None:
            return [Detections(*part, None) for part in found]
        masks = self.masks.detect(pooled, found)
        return [Detections(*part, mask) for part, mask in zip(found, masks, strict=True)]


class Limits(NamedTuple):
    """Least score of a detection, and most detections of an image."""

    threshold: float
    detections: int


COCO_LIMITS, LVIS_LIMITS = Limits(0.05, 100), Limits(0.02, 300)


def build_detector(
    config: HeadsConfig,
    *,
    patch: int,
    width: int,
    classes: int,
    image_counts: Sequence[int] | None = None,
    masks: bool = True,
    seed: int = 0,
) -> Detector:
    """A detector with fresh weights from `seed`; the global generator is left alone.

    `patch`, `width`: the encoder's. `image_counts`: on how many training images each category occurs, for the federated
    loss; None for COCO's softmax.
    """
    strides = [level.stride for level in levels(patch)]
    federated = image_counts is not None
    usual = LVIS_LIMITS if federated else COCO_LIMITS
    limits = Limits(
        usual.threshold if config.score_threshold is None else config.score_threshold,
        usual.detections if config.detections is None else config.detections,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loss = (
            ClassLoss()
            if image_counts is None
            else FederatedLoss(image_counts, config.federated_classes, config.federated_power)
        )
        detector = Detector(
            Pyramid(width, config.channels),
            RegionProposals(config, strides),
            Cascade(config, classes, strides[:-1], loss),
            MaskHead(config, classes, strides[:-1]) if masks else None,
            limits=limits,
        )
    return detector.to(memory_format=torch.channels_last)


def _masks(target: Target) -> Tensor:
    if target.masks is None:
        raise ValueError("this detector has a mask head, and a target has no masks")
    return target.masks
