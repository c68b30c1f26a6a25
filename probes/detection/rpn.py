"""Region proposals: where is anything at all? (Faster R-CNN, on every level of the pyramid.)

Shapes: B images, T anchors of a level, A of all levels, N proposals of an image, G truth boxes. Boxes are xyxy in input
pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import _utils as detection
from torchvision.ops import batched_nms, clip_boxes_to_image

from probes.detection.boxes import Matching, distance_sum, grid_anchors, sample
from probes.detection.config import HeadsConfig
from rice.errors import RiceError

Size = tuple[int, int]

_UNIT = (1.0, 1.0, 1.0, 1.0)
_HIGH, _LOW, _POSITIVES = 0.7, 0.3, 0.5


class LevelScores(NamedTuple):
    """What the head says of one level's anchors: `logits` (B, T), `deltas` (B, T, 4), `anchors` (T, 4)."""

    logits: Tensor
    deltas: Tensor
    anchors: Tensor


class RegionProposals(nn.Module):
    """The RPN head, its proposals and its loss."""

    def __init__(self, config: HeadsConfig, strides: Sequence[float]) -> None:
        super().__init__()
        self.config, self.strides = config, tuple(strides)
        width, ratios = config.channels, len(config.anchor_ratios)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(config.rpn_convs))
        self.objectness = nn.Conv2d(width, ratios, 1)
        self.deltas = nn.Conv2d(width, 4 * ratios, 1)
        for layer in (*self.convs, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self._coder = detection.BoxCoder(_UNIT)
        self._match = Matching(_HIGH, _LOW, best_too=True)

    def forward(self, features: Sequence[Tensor]) -> list[LevelScores]:
        """Scores of every anchor; fp32, since boxes are decoded from them."""
        return [self._level(x_BChw, stride) for x_BChw, stride in zip(features, self.strides, strict=True)]

    def _level(self, x_BChw: Tensor, stride: float) -> LevelScores:
        hidden = x_BChw
        for convolution in self.convs:
            hidden = nn.functional.relu(convolution(hidden))
        logits_BT = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1).float()
        deltas_BT4 = self.deltas(hidden).permute(0, 2, 3, 1).reshape(len(hidden), -1, 4).float()
        height, width = x_BChw.shape[-2:]
        config = self.config
        anchors = grid_anchors((height, width), stride, config.anchor_scale, config.anchor_ratios, x_BChw.device)
        return LevelScores(logits_BT, deltas_BT4, anchors)

    @torch.no_grad()
    def propose(self, scores: Sequence[LevelScores], sizes: Sequence[Size]) -> list[Tensor]:
        """Each image's boxes (N, 4), best first, cut to its `sizes` (height, width).

        Only the anchors that can be proposed are decoded: the best `rpn_top` of a level.
        Errors: RiceError where a training has diverged.
        """
        most = self.config.rpn_top[0 if self.training else 1]
        logits, boxes, level = [], [], []
        for index, (logits_BT, deltas_BT4, anchors_T4) in enumerate(scores):
            best_BK, where_BK = logits_BT.topk(min(most, logits_BT.shape[1]), dim=1)
            chosen = deltas_BT4.gather(1, where_BK[..., None].expand(-1, -1, 4)).reshape(-1, 4)
            decoded = self._coder.decode_single(chosen, anchors_T4[where_BK.flatten()])
            logits.append(best_BK)
            boxes.append(decoded.view(*best_BK.shape, 4))
            level.append(torch.full_like(best_BK[0], index, dtype=torch.int64))
        logits_BN, boxes_BN4, level_N = torch.cat(logits, 1), torch.cat(boxes, 1), torch.cat(level)
        if self.training and not (torch.isfinite(logits_BN).all() and torch.isfinite(boxes_BN4).all()):
            raise RiceError("the region proposals are not finite: training has diverged; lower the learning rate")
        return [
            self._suppress(logits_N, boxes_N4, level_N, size)
            for logits_N, boxes_N4, size in zip(logits_BN, boxes_BN4, sizes, strict=True)
        ]

    def _suppress(self, logits_N: Tensor, boxes_N4: Tensor, level_N: Tensor, size: Size) -> Tensor:
        boxes_N4 = clip_boxes_to_image(boxes_N4, size)
        finite_N = torch.isfinite(logits_N) & torch.isfinite(boxes_N4).all(1)
        good = finite_N & (boxes_N4[:, 2] > boxes_N4[:, 0]) & (boxes_N4[:, 3] > boxes_N4[:, 1])
        boxes_N4, logits_N, level_N = boxes_N4[good], logits_N[good], level_N[good]
        kept = batched_nms(boxes_N4, logits_N, level_N, self.config.rpn_nms)
        return boxes_N4[kept[: self.config.proposals]]

    def losses(self, scores: Sequence[LevelScores], truth: Sequence[Tensor]) -> dict[str, Tensor]:
        """`rpn_objectness` and `rpn_boxes`, over a sample of every image's anchors; `truth`: boxes (G, 4) of each."""
        logits_BA = torch.cat([level.logits for level in scores], 1)
        deltas_BA4 = torch.cat([level.deltas for level in scores], 1)
        anchors_A4 = torch.cat([level.anchors for level in scores])
        objectness, boxes = logits_BA.new_zeros(()), logits_BA.new_zeros(())
        for logits_A, deltas_A4, truth_G4 in zip(logits_BA, deltas_BA4, truth, strict=True):
            matched_A, label_A = self._match(truth_G4, anchors_A4)
            positive, negative = sample(label_A, self.config.rpn_samples, _POSITIVES)
            used = torch.cat([positive, negative])
            target = (torch.arange(len(used), device=used.device) < len(positive)).to(logits_A.dtype)
            lost = nn.functional.binary_cross_entropy_with_logits(logits_A[used], target, reduction="sum")
            objectness = objectness + lost
            if len(positive):
                encoded = self._coder.encode_single(truth_G4[matched_A[positive]], anchors_A4[positive])
                boxes = boxes + distance_sum(deltas_A4[positive], encoded)
            else:
                boxes = boxes + deltas_A4.sum() * 0  # every rank's graph has every parameter
        count = self.config.rpn_samples * len(truth)
        return {"rpn_objectness": objectness / count, "rpn_boxes": boxes / count}
