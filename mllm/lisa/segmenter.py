"""The segmenter of LISA: a SAM or SAM 2 of transformers whose mask decoder is prompted by language (section 4.1).

LISA (Lai et al., 2024, section 3.2): one vector is the only sparse prompt, the dense prompt is SAM's own for "no mask",
and the single mask is taken. The picture encoder is frozen, and its features are computed once per picture.

Shapes: B pictures, N prompts, C width of a prompt, E edge of the network's square input, h, w maps as the network gives
them, H, W the picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from rice.curate.proposals.sam import load_sam
from rice.errors import RiceError, require

Size = tuple[int, int]
"""Height and width, in pixels."""

_AT_ONCE = 4
"""Pictures."""


@dataclass(frozen=True)
class Frame:
    """What the segmenter sees of a picture.

    Attributes:
        pixels: (3, E, E), normalised, and padded below and on the right with zeros.
        seen: Of the part that is picture. None where the picture was stretched to the square, as SAM 2's is.
    """

    pixels: Tensor
    seen: Size | None


@dataclass(frozen=True)
class FrameMaker:
    """Pictures as the segmenter wants them, without the network: workers that read data may hold a copy."""

    processor: Any

    def __call__(self, image: Image.Image) -> Frame:
        """Of an RGB picture. Errors: RiceError for one so thin that nothing of it is left."""
        longest = self.processor.size.longest_edge
        if longest and min(image.size) * longest < 0.5 * max(image.size):
            raise RiceError(
                f"expected a picture that can be shrunk to {longest} pixels, got {image.width} x {image.height}; "
                "leave it out"
            )
        inputs = self.processor(images=image, return_tensors="pt")
        seen = inputs.get("reshaped_input_sizes")
        return Frame(inputs["pixel_values"][0], None if seen is None else (int(seen[0][0]), int(seen[0][1])))


@dataclass(frozen=True)
class Features:
    """Of B pictures: maps (B, *, h, w) of one or more levels, the coarsest last. SAM has one level, SAM 2 three."""

    levels: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.levels[-1])

    def of(self, owners_N: Tensor) -> "Features":
        """Those of the pictures with these numbers, each as often as it is named."""
        return Features(tuple(level[owners_N] for level in self.levels))


class Segmenter(nn.Module):
    """A SAM or SAM 2 that is prompted by vectors. Only what a mask's loss reaches in its mask decoder is trained.

    Attributes:
        model: transformers' SamModel or Sam2Model.
        processor: Its image processor.
        frame: Makes a Frame of a picture.
        width: C.
        edge: E, in pixels.
        encoded: How many pictures went through the picture encoder so far.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        """Errors: RiceError for another family, such as SAM-HQ, or a processor of another edge."""
        super().__init__()
        self._stretched = _is_sam2(model)
        self.model, self.processor, self.frame = model, processor, FrameMaker(processor)
        self.width: int = model.config.mask_decoder_config.hidden_size
        self.edge: int = model.config.prompt_encoder_config.image_size
        self.encoded = 0
        square = processor.size if self._stretched else processor.pad_size
        if (square["height"], square["width"]) != (self.edge, self.edge):
            raise RiceError(
                f"expected an image processor for the segmenter's {self.edge} x {self.edge} pixels, got "
                f"{square['height']} x {square['width']}; mend the processor's configuration beside the weights"
            )
        if self._stretched:
            # It would put masks of outputs that language never trained in the place of unsteady ones.
            model.mask_decoder.dynamic_multimask_via_stability = False
        model.requires_grad_(False)
        for value in self.decoder_parameters():
            value.requires_grad_(True)

    @classmethod
    def load(cls, place: str) -> "Segmenter":
        """From a folder or a repository of the hub, in fp32 whatever the file has: its decoder is trained.

        Errors: RiceError, as load_sam, and for another family.
        """
        model, processor = load_sam(place, "cpu")
        return cls(model.float(), processor)

    def save(self, folder: Path) -> None:
        """Network and processor into a folder that transformers, and `load`, read."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the mask decoder that the single mask depends on.

        Not the heads for IoU and presence, nor those of the other masks, which weight decay alone would change; nor SAM
        2's convolutions of the finer levels, which belong to what is computed once per picture.
        """
        left_out = ("iou_prediction_head.", "pred_obj_score_head.", "conv_s0.", "conv_s1.")
        others = tuple(
            f"output_hypernetworks_mlps.{index}." for index in range(1, self.model.mask_decoder.num_mask_tokens)
        )
        for name, value in self.model.mask_decoder.named_parameters():
            if not name.startswith((*left_out, *others)):
                yield value

    @torch.no_grad()
    def encode(self, pixels_B3EE: Tensor) -> Features:
        """Of pictures as `frame` makes them, a few at a time: ViT-H's attention over one takes a gigabyte."""
        self.encoded += len(pixels_B3EE)
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        most = _AT_ONCE if ranks == 1 else max(1, len(pixels_B3EE))  # FSDP: every rank runs the blocks equally often
        parts = [self._levels(part) for part in torch.split(pixels_B3EE, most)]
        return Features(tuple(torch.cat(level) if len(level) > 1 else level[0] for level in zip(*parts, strict=True)))

    def _levels(self, pixels_B3EE: Tensor) -> tuple[Tensor, ...]:
        levels = self.model.get_image_embeddings(pixels_B3EE.to(self.model.device, self.model.dtype))
        return (levels,) if isinstance(levels, Tensor) else tuple(levels)

    def decode(self, features: Features, owners_N: Tensor, prompts_NC: Tensor) -> Tensor:
        """Logits (N, h, w) of the mask that each prompt asks for; positive is inside.

        owners_N: number of the picture, in `features`, that each prompt is about. prompts_NC: or (N, P, C), of P
        vectors each, as SAM's own are. Differentiable in the prompts and the mask decoder. Without a prompt the result
        is (0, h, w).
        """
        if not len(owners_N):
            # The decoder's upscaling doubles twice.
            return prompts_NC.new_zeros((0, *(4 * side for side in features.levels[-1].shape[-2:])))
        *finer, coarse_NChw = features.of(owners_N).levels
        decoder, prompt_encoder = self.model.mask_decoder, self.model.prompt_encoder
        output = decoder(
            image_embeddings=coarse_NChw,
            image_positional_embeddings=self.model.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompts_NC.reshape(len(prompts_NC), 1, -1, self.width).to(coarse_NChw.dtype),
            dense_prompt_embeddings=prompt_encoder.no_mask_embed.weight[:, :, None, None],
            multimask_output=False,
            **({"high_resolution_features": finer} if finer else {}),
        )
        logits_N11hw: Tensor = output[0]
        return logits_N11hw[:, 0, 0]


def enlarge(logits_Nhw: Tensor, seen: Size | None, size: Size, edge: int) -> Tensor:
    """Logits (N, H, W) in float32 at the picture's own size, as SAM's processors enlarge masks.

    seen: of the Frame. size: (H, W). SAM's go to the padded square of `edge` first, are cut to what was seen, and then
    enlarged to the picture; SAM 2's at once.
    """
    logits_N1hw = logits_Nhw[:, None].float()
    if seen is not None:
        logits_N1hw = _bilinear(logits_N1hw, (edge, edge))[..., : seen[0], : seen[1]]
    return _bilinear(logits_N1hw, size)[:, 0]


def _bilinear(values_N1hw: Tensor, size: Size) -> Tensor:
    if not len(values_N1hw):
        return values_N1hw.new_zeros((0, 1, *size))
    return functional.interpolate(values_N1hw, size, mode="bilinear", align_corners=False)


def _is_sam2(model: Any) -> bool:
    transformers = require("transformers", "mllm")
    if not isinstance(model, transformers.SamModel | transformers.Sam2Model):
        raise RiceError(f"expected a SAM or SAM 2 as segmenter, got a {type(model).__name__}; name another checkpoint")
    return isinstance(model, transformers.Sam2Model)
