"""Three box heads in a row, each fed with the boxes of the one before (Cascade R-CNN), over one class-agnostic offset.

Shapes: B images, R regions of all images, N of one image, G truth boxes, C channels, K categories (K itself is the
background), F hidden width, S stages. Boxes are xyxy in input pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import _utils as detection
from torchvision.ops import batched_nms, clip_boxes_to_image

from probes.detection.boxes import Matching, distance_sum, pool, sample
from probes.detection.config import HeadsConfig
from probes.detection.federated import ClassLoss
from probes.detection.pyramid import ChannelNorm

Size = tuple[int, int]

_POOL = 7


class Truth(NamedTuple):
    """What is to be found in one image: boxes (G, 4), labels (G,) in 0..K-1."""

    boxes: Tensor
    labels: Tensor


class Regions(NamedTuple):
    """One image's proposals with what they should become: boxes (N, 4); labels (N,), K for the background; `matched`
    (N,), the index of the truth box, meaningless for the background."""

    boxes: Tensor
    labels: Tensor
    matched: Tensor


class Found(NamedTuple):
    """One image's detections, best first: boxes (N, 4), scores (N,), labels (N,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class BoxHead(nn.Module):
    """Convolutions with LayerNorm, one fully connected layer, class scores and one box offset."""

    def __init__(self, config: HeadsConfig, classes: int) -> None:
        super().__init__()
        width = config.channels
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(config.box_convs))
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in range(config.box_convs))
        self.hidden = nn.Linear(width * _POOL**2, config.hidden)
        self.scores = nn.Linear(config.hidden, classes + 1)
        self.deltas = nn.Linear(config.hidden, 4)
        for convolution in self.convs:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
        nn.init.kaiming_uniform_(self.hidden.weight, a=1)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.hidden, self.scores, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, pooled_RCPP: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, K + 1) and deltas (R, 4), fp32."""
        x = pooled_RCPP.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convs, self.norms, strict=True):
            x = nn.functional.relu(norm(convolution(x)))
        hidden_RF = nn.functional.relu(self.hidden(x.flatten(1)))
        return self.scores(hidden_RF).float(), self.deltas(hidden_RF).float()


class Cascade(nn.Module):
    """The stages, how their boxes become the next one's regions, and how their scores become detections."""

    def __init__(self, config: HeadsConfig, classes: int, strides: Sequence[float], class_loss: ClassLoss) -> None:
        super().__init__()
        self.config, self.classes, self.strides = config, classes, tuple(strides)
        self.stages = nn.ModuleList(BoxHead(config, classes) for _ in config.cascade_ious)
        self.class_loss = class_loss
        self._coders = [detection.BoxCoder((c, c, s, s)) for c, s in config.cascade_weights]
        self._matches = [Matching(iou, iou, best_too=False) for iou in config.cascade_ious]

    def choose(self, proposals: Sequence[Tensor], truth: Sequence[Truth]) -> list[Regions]:
        """The proposals that train, a random sample of each image's; the truth boxes are among the candidates."""
        chosen = []
        for boxes_N4, wanted in zip(proposals, truth, strict=True):
            regions = self._label(torch.cat([boxes_N4, wanted.boxes]), wanted, stage=0)
            positive, negative = sample(
                (regions.labels < self.classes).long(), self.config.roi_samples, self.config.roi_positives
            )
            used = torch.cat([positive, negative])
            chosen.append(Regions(*(part[used] for part in regions)))
        return chosen

    def losses(
        self, features: Sequence[Tensor], regions: Sequence[Regions], truth: Sequence[Truth], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        """`class_k` and `boxes_k` of each stage k; later stages are labelled anew, not sampled anew."""
        losses = {}
        for stage in range(len(self.stages)):
            boxes = [part.boxes for part in regions]
            scores_RK, deltas_R4 = self._run(features, boxes, stage)
            every = Regions(*(torch.cat(parts) for parts in zip(*regions, strict=True)))
            losses[f"class_{stage}"] = self.class_loss(scores_RK, every.labels)
            losses[f"boxes_{stage}"] = self._box_loss(deltas_R4, regions, truth, stage)
            if stage + 1 < len(self.stages):
                moved = self._decode(deltas_R4.detach(), boxes, stage)
                regions = [
                    self._label(_not_empty(clip_boxes_to_image(part, size)), wanted, stage + 1)
                    for part, size, wanted in zip(moved, sizes, truth, strict=True)
                ]
        return losses

    @torch.no_grad()
    def detect(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
        *,
        threshold: float,
        most: int,
    ) -> list[Found]:
        """Scores averaged over the stages, boxes of the last one, suppressed per class."""
        boxes, total = list(proposals), None
        for stage in range(len(self.stages)):
            if stage:
                boxes = [clip_boxes_to_image(part, size) for part, size in zip(boxes, sizes, strict=True)]
            scores_RK, deltas_R4 = self._run(features, boxes, stage)
            given_RK = self.class_loss.probabilities(scores_RK)
            total = given_RK if total is None else total + given_RK
            boxes = self._decode(deltas_R4, boxes, stage)
        assert total is not None
        mean = torch.split(total * (1.0 / len(self.stages)), [len(part) for part in boxes])
        return [
            self._suppress(part, scores, size, threshold, most)
            for part, scores, size in zip(boxes, mean, sizes, strict=True)
        ]

    def _run(self, features: Sequence[Tensor], boxes: Sequence[Tensor], stage: int) -> tuple[Tensor, Tensor]:
        pooled = pool(features, boxes, self.strides, _POOL)
        if self.training:
            # The stages' losses are added, so the pyramid would feel them threefold.
            pooled = _scale_gradient(pooled, 1 / len(self.stages))
        scores, deltas = self.stages[stage](pooled)
        return scores, deltas

    @torch.no_grad()
    def _label(self, boxes_N4: Tensor, truth: Truth, stage: int) -> Regions:
        matched_N, label_N = self._matches[stage](truth.boxes, boxes_N4)
        if not len(truth.labels):
            return Regions(boxes_N4, torch.full_like(matched_N, self.classes), matched_N)
        return Regions(boxes_N4, torch.where(label_N > 0, truth.labels[matched_N], self.classes), matched_N)

    def _box_loss(self, deltas_R4: Tensor, regions: Sequence[Regions], truth: Sequence[Truth], stage: int) -> Tensor:
        """Sum over the positive regions, divided by the number of all regions: each positive weighs the same."""
        targets, sources, positive = [], [], []
        for part, wanted in zip(regions, truth, strict=True):
            positive.append(part.labels < self.classes)
            sources.append(part.boxes[positive[-1]])
            targets.append(wanted.boxes[part.matched[positive[-1]]])
        encoded = self._coders[stage].encode_single(torch.cat(targets), torch.cat(sources))
        return distance_sum(deltas_R4[torch.cat(positive)], encoded) / max(len(deltas_R4), 1)

    def _decode(self, deltas_R4: Tensor, boxes: Sequence[Tensor], stage: int) -> list[Tensor]:
        decoded_R4 = self._coders[stage].decode_single(deltas_R4, torch.cat(list(boxes)))
        return list(decoded_R4.split([len(part) for part in boxes]))

    def _suppress(self, boxes_N4: Tensor, scores_NK: Tensor, size: Size, threshold: float, most: int) -> Found:
        finite_N = torch.isfinite(boxes_N4).all(1) & torch.isfinite(scores_NK).all(1)
        boxes_N4, scores_NK = clip_boxes_to_image(boxes_N4[finite_N], size), scores_NK[finite_N, : self.classes]
        region, label = torch.where(scores_NK > threshold)
        boxes, scores = boxes_N4[region], scores_NK[region, label]
        kept = batched_nms(boxes, scores, label, self.config.nms)[:most]
        return Found(boxes[kept], scores[kept], label[kept])


def _not_empty(boxes_N4: Tensor) -> Tensor:
    return boxes_N4[(boxes_N4[:, 2] > boxes_N4[:, 0]) & (boxes_N4[:, 3] > boxes_N4[:, 1])]


def _scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x forwards; its gradient times `factor` backwards."""
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
    return x
