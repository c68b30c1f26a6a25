"""Regions of SAM (paper, section 3.1): a mask for every point of a grid, of which the sure and stable ones are taken.

As transformers' pipeline "mask-generation" does it, with three differences. Masks are enlarged to the picture only
where their predicted IoU suffices, and become boxes at once. A box ends where its last pixel ends; SAM's ends at that
pixel. The grid covers the whole picture; for SAM 2, which stretches pictures to a square, the pipeline's (transformers
5.23) leaves out the far end of the shorter edge: the last quarter of a picture of 4:3.

Shapes: B pictures of a batch, P points, three masks each, M masks, R regions, h, w masks as the network gives them,
H, W the picture.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from rice.curate.proposals.config import ProposalConfig
from rice.curate.proposals.proposer import Proposals
from rice.encoders.hf import quiet
from rice.encoders.hub import fetch, pinned
from rice.encoders.weights import place
from rice.errors import RiceError

_OFFSET = 1.0
"""Stability: the IoU of the masks above this logit and above its negative."""
_MOST_IOU = 0.7
"""Of boxes: SAM's own limit for duplicates."""


def load_sam(checkpoint: str, device: str) -> tuple[Any, Any]:
    """Model and image processor of a folder, or of a repository of the hub: SAM, SAM 2, SAM-HQ and their like.

    Only safetensors are read, and no code that comes with them is run.
    Errors: RiceError where it is not there, no model for mask generation, or not whole.
    """
    from transformers import AutoImageProcessor, AutoModelForMaskGeneration

    source = place(checkpoint)
    if source.kind == "hub":
        _reach(source.place)
    where = source.place
    try:
        with quiet(), pinned(where) as options:
            processor = AutoImageProcessor.from_pretrained(where, trust_remote_code=False, **options)
            build = AutoModelForMaskGeneration.from_pretrained
            model, report = build(
                where, use_safetensors=True, output_loading_info=True, trust_remote_code=False, **options
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RiceError(f"expected a SAM of transformers as checkpoint, got {checkpoint}: {reason}") from error
    missing = sorted({*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])})
    if missing:
        raise RiceError(f"{checkpoint} has no values for {len(missing)} tensors, {missing[0]} first; fetch it anew")
    return model.to(device).eval(), processor


def _reach(repository: str) -> None:
    """transformers itself would retry for long, and say less."""
    try:
        fetch(repository, "config.json")
    except RiceError as error:
        raise RiceError(
            f"cannot reach {repository} on the model hub; download it on a networked machine and give its folder "
            "instead"
        ) from error


class SamProposer:
    """The boxes of a SAM's masks; their scores are the IoU that it predicts for them."""

    def __init__(self, model: Any, processor: Any, config: ProposalConfig) -> None:
        self._model, self._processor, self._config = model, processor, config
        self._grid_P2 = _grid(config.points_per_side)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Proposals]:
        """See Proposer. A picture in which no mask is sure and stable enough has none."""
        batch = self._config.pictures_per_batch
        found: list[Proposals] = []
        for start in range(0, len(pictures), batch):
            found += self._propose(pictures[start : start + batch])
        return found

    def _propose(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Proposals]:
        inputs = self._processor(images=list(pictures), input_data_format="channels_last", return_tensors="pt")
        pixels_B3hw = inputs["pixel_values"].to(self._model.device, self._model.dtype)
        embedded = self._model.get_image_embeddings(pixels_B3hw)
        seen = inputs.get("reshaped_input_sizes")  # without padding; SAM 2 has none
        sizes = [list(pixels_B3hw.shape[-2:])] * len(pictures) if seen is None else seen.tolist()
        return [
            self._regions(_arguments(embedded, index), picture.shape[:2], sizes[index])
            for index, picture in enumerate(pictures)
        ]

    def _regions(self, embedded: dict[str, Any], size: tuple[int, ...], seen: list[int]) -> Proposals:
        """size: (H, W) of the picture. seen: of its part of what the network sees."""
        points_P2 = (self._grid_P2 * torch.tensor(seen[::-1])).to(self._model.device)
        parts = []
        for asked_P2 in torch.split(points_P2, self._config.points_per_batch):
            points_1P12 = asked_P2[None, :, None]
            labels_1P1 = torch.ones_like(points_1P12[..., 0], dtype=torch.int64)
            output = self._model(input_points=points_1P12, input_labels=labels_1P1, **embedded)
            parts.append(self._boxes(output.pred_masks.flatten(0, 2), output.iou_scores.flatten(), size, seen))
        boxes_R4, scores_R = (torch.cat(values) for values in zip(*parts, strict=True))
        kept = nms(boxes_R4.float(), scores_R.float(), _MOST_IOU)
        boxes_R4, scores_R = boxes_R4[kept].double().cpu(), scores_R[kept].float().cpu()
        boxes_R4[:, 2:] += 1
        return Proposals(boxes_R4.numpy(), scores_R.numpy())

    def _boxes(
        self, logits_Mhw: Tensor, iou_M: Tensor, size: tuple[int, ...], seen: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Boxes (R, 4), from first to last pixel, and scores (R,) of the masks that are sure and stable, and not empty.

        Enlarging treats every mask by itself, so those that are not sure need not be.
        """
        sure_M = iou_M > (self._config.sam_iou or -math.inf)
        logits_Mhw, iou_M = logits_Mhw[sure_M], iou_M[sure_M]
        if not len(iou_M):
            return iou_M.new_zeros((0, 4)), iou_M
        (logits_M1HW,) = self._processor.post_process_masks(
            [logits_Mhw[:, None]], [list(size)], reshaped_input_sizes=[seen], binarize=False
        )
        logits_MHW = logits_M1HW[:, 0]
        taken_M = (logits_MHW > 0).flatten(1).any(dim=1)
        if self._config.sam_stability > 0:
            taken_M &= _stability(logits_MHW) > self._config.sam_stability
        return _first_to_last(logits_MHW[taken_M] > 0), iou_M[taken_M]


def _grid(side: int) -> Tensor:
    """(side * side, 2) x and y, 0 to 1, row by row: the middles of side by side cells."""
    middles = torch.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
    return torch.cartesian_prod(middles, middles).flip(1)


def _arguments(embedded: Any, index: int) -> dict[str, Any]:
    """Of one picture of a batch, by the names that the model takes. SAM-HQ's are a tuple of two."""
    if isinstance(embedded, tuple):
        return {"image_embeddings": _one(embedded[0], index), "intermediate_embeddings": _one(embedded[1], index)}
    return {"image_embeddings": _one(embedded, index)}


def _one(embedded: Any, index: int) -> Any:
    """SAM 2 and SAM-HQ have lists of several levels."""
    if isinstance(embedded, Tensor):
        return embedded[index : index + 1]
    return [_one(level, index) for level in embedded]


def _stability(logits_MHW: Tensor) -> Tensor:
    inner_M, outer_M = ((logits_MHW > threshold).flatten(1).sum(dim=1) for threshold in (_OFFSET, -_OFFSET))
    return inner_M / outer_M


def _first_to_last(masks_RHW: Tensor) -> Tensor:
    """(R, 4) first column, first row, last column, last row of masks that are not empty."""
    edges = []
    for across in (1, 2):
        hit = masks_RHW.any(dim=across).to(torch.uint8)
        edges.append((hit.argmax(dim=1), hit.shape[1] - 1 - hit.flip(1).argmax(dim=1)))
    (left_R, right_R), (top_R, bottom_R) = edges
    return torch.stack([left_R, top_R, right_R, bottom_R], dim=1)
