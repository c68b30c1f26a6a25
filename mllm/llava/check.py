"""Before a training: the tower cannot silently be wrong. Each check compares what transformers' parts will do with what
was asked for, and stops with one line where they differ.

tokens      the processor, the model and `mllm.llava.tiling` count the same tokens for a thousand sizes
pixels      the processor normalises once, by the tower's mean and std
layer       what reaches the projector is the encoder's own hidden state, patches only
packing     a packed row's samples are seen as they are alone (`check_packing`)
gradients   the parts that are to learn get gradients, the others none, and of the tower the blocks up to that layer
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F  # noqa: N812

from mllm.llava.attention import packed_attention
from mllm.llava.model import PROJECTOR, TOWER, BuiltLlava, part_of
from mllm.llava.packing import pack
from rice.encoders.base import Encoder
from rice.errors import RiceError

SIZES = 1000
_EDGES = (14, 4000)
_STEEPEST = 20.0
"""Aspect ratio beyond which `rice llava prepare` refuses pictures."""

_BLOCK = re.compile(r"\.(?:layers|layer|blocks|resblocks)\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was compared. `sizes`: pictures' sizes; `pixels`, `features`: largest differences, in units of a normalised
    pixel, and relative to the largest feature; `untouched`: tensors of the tower behind the layer that is read."""

    sizes: int
    pixels: float
    features: float
    untouched: int


def preflight(llava: BuiltLlava, encoder: Encoder, rates: Mapping[str, float], *, sizes: int = SIZES) -> Findings:
    """All checks. `encoder`: holds the values that the tower was built from; `rates`: part -> learning rate.

    Errors: RiceError naming what differs, what was expected, and what came.
    """
    _check_tokens(llava, random_sizes(sizes))
    picture = _noise(llava.tiles.edge)
    pixels = _check_pixels(llava, encoder, picture)
    features = _check_layer(llava, encoder, picture)
    untouched = _check_gradients(llava, picture, rates)
    return Findings(sizes=sizes, pixels=pixels, features=features, untouched=untouched)


def check_packing(llava: BuiltLlava) -> None:
    """Errors: RiceError for a language model in which the samples of a packed row see each other, or are seen otherwise
    than alone: one with state or attention of its own."""
    samples = [torch.arange(1, 7), torch.arange(7, 14)]
    row = pack([{"input_ids": ids, "labels": ids} for ids in samples])
    inputs = {name: value for name, value in row.items() if name not in ("labels", "logits_to_keep")}
    with torch.no_grad():
        alone = torch.cat([llava.model(input_ids=ids[None], use_cache=False).logits[0] for ids in samples]).float()
        with packed_attention(llava.model):
            packed = llava.model(**inputs, use_cache=False).logits[0].float()
    least = 1e-3 if llava.model.dtype == torch.float32 else 0.1
    if not float((packed - alone).abs().max()) <= least * float(alone.abs().max()):
        kind = llava.model.config.text_config.model_type
        raise RiceError(
            f"the samples of a packed row are not seen as they are alone by {kind}; take a language model like Qwen, "
            "Llama or Mistral"
        )


def random_sizes(count: int) -> list[tuple[int, int]]:
    """(height, width), the same ones every time: edges over the orders of magnitude, any shape that rows may have."""
    draw = np.random.default_rng(0)
    low, high = np.log(_EDGES)
    sizes: list[tuple[int, int]] = []
    while len(sizes) < count:
        height, width = (int(edge) for edge in np.exp(draw.uniform(low, high, 2)))
        if max(height, width) <= _STEEPEST * min(height, width):
            sizes.append((height, width))
    return sizes


def _check_tokens(llava: BuiltLlava, sizes: list[tuple[int, int]]) -> None:
    counted = [llava.tiles.tokens(size) for size in sizes]
    processor = llava.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    model = list(_model_tokens(llava, sizes))
    for size, ours, theirs, packed in zip(sizes, counted, processor, model, strict=True):
        if not ours == theirs == packed:
            raise RiceError(
                f"a picture of {size[1]} x {size[0]} pixels makes {packed} tokens in the model, {theirs} in its "
                f"processor and {ours} by {llava.tiles.tiling} tiles of {llava.tiles.edge} pixels: the tower's class "
                "token, patch or size is wrong"
            )


def _model_tokens(llava: BuiltLlava, sizes: list[tuple[int, int]]) -> Iterator[int]:
    """Tokens that the model packs, from features of width 1 as many as the real tower gives for a tile."""
    per_tile = _tile_tokens(llava)
    if llava.arch == "llava":
        yield from [per_tile] * len(sizes)
        return
    inner, newline = llava.model.model, torch.zeros(1)
    options = {"vision_feature_select_strategy": llava.tower.strategy} if llava.arch == "llava_next" else {}
    for size in sizes:
        features = [torch.zeros(llava.tiles.count(size), per_tile, 1)]
        _, lengths = inner.pack_image_features(features, [size], image_newline=newline, **options)
        yield int(lengths[0])


def _tile_tokens(llava: BuiltLlava) -> int:
    edge = llava.tiles.edge
    with _projected(llava) as seen, torch.no_grad():
        llava.model.model.get_image_features(**_inputs(llava, torch.zeros(2, 3, edge, edge)))
    return int(seen[0].shape[1])


def _check_pixels(llava: BuiltLlava, encoder: Encoder, picture: Image.Image) -> float:
    """The first tile is the whole picture, squashed by the processor's own interpolation."""
    processed = _processed(llava, picture)[0]
    filters = {1: F.InterpolationMode.LANCZOS, 2: F.InterpolationMode.BILINEAR, 3: F.InterpolationMode.BICUBIC}
    filter_ = filters[int(llava.processor.image_processor.resample)]
    squashed = F.resize(F.pil_to_tensor(picture), [llava.tiles.edge] * 2, filter_, antialias=True)
    expected = encoder.normalise(squashed[None].float() / 255)[0].float().cpu()
    difference = float((processed.float() - expected).abs().max())
    if difference > 0.02:  # two of 255 levels, in units of the smallest std
        raise RiceError(
            f"the processor's pixels differ from the tower's by {difference:.3f}: expected (x - mean) / std once, with "
            f"mean {encoder.spec.mean} and std {encoder.spec.std}"
        )
    return difference


def _check_layer(llava: BuiltLlava, encoder: Encoder, picture: Image.Image) -> float:
    pixels = _processed(llava, picture).to(llava.model.dtype)
    with _projected(llava) as seen, torch.no_grad():
        llava.model.model.get_image_features(**_inputs(llava, pixels, picture))
        patches = encoder.features(pixels.to(encoder.device, encoder.dtype), llava.tower.asked).patches
    expected = patches.flatten(2).transpose(1, 2).float().cpu()
    found = seen[0].float().cpu()
    scale = float(expected.abs().max()) or 1.0
    difference = float((found - expected).abs().max()) / scale if found.shape == expected.shape else float("inf")
    if difference > (1e-3 if llava.model.dtype == torch.float32 else 0.1):
        raise RiceError(
            f"what reaches the projector {tuple(found.shape)} is not hidden state {llava.tower.asked} of "
            f"{encoder.spec.name} {tuple(expected.shape)}: they differ by {difference:.2g} of its largest value"
        )
    return difference


def _check_gradients(llava: BuiltLlava, picture: Image.Image, rates: Mapping[str, float]) -> int:
    """From the packed tokens back: the language model's own part is not run, which may be too large to."""
    model = llava.model
    model.zero_grad(set_to_none=True)
    output = model.model.get_image_features(**_inputs(llava, _processed(llava, picture).to(model.dtype), picture))
    features = torch.cat(list(output.pooler_output))
    if features.requires_grad:
        torch.autograd.backward(features.float().square().mean())
    touched = {name: p.grad is not None and bool(p.grad.any()) for name, p in model.named_parameters()}
    broken = [n for n, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    model.zero_grad(set_to_none=True)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != (rates.get(part_of(name), 0.0) > 0):
            raise RiceError(f"{name} {'learns' if parameter.requires_grad else 'does not learn'}, against the recipe")
    if broken:
        raise RiceError(f"the gradient of {broken[0]} is not finite")
    return _untouched(llava, touched, rates)


def _untouched(llava: BuiltLlava, touched: Mapping[str, bool], rates: Mapping[str, float]) -> int:
    """How many tensors of the tower got no gradient. Errors: RiceError where others than those behind the layer."""
    without = {part: [n for n, got in touched.items() if part_of(n) == part and not got] for part in (TOWER, PROJECTOR)}
    if rates.get(PROJECTOR, 0) > 0 and without[PROJECTOR]:
        raise RiceError(f"expected a gradient for {without[PROJECTOR][0]}, got none")
    if not rates.get(TOWER, 0) > 0:
        return 0
    depth, asked = llava.tower.spec.depth, llava.tower.asked
    reached = sorted(
        {int(m[1]) for n, got in touched.items() if got and part_of(n) == TOWER and (m := _BLOCK.search(n))}
    )
    if depth is not None and reached:
        expected = asked if asked >= 0 else depth + 1 + asked
        if reached != list(range(expected)):
            raise RiceError(
                f"expected gradients in the tower's first {expected} blocks, which hidden state {asked} comes from; "
                f"they reach {len(reached)}, the last of them block {reached[-1]}"
            )
    if not any(got for name, got in touched.items() if part_of(name) == TOWER):
        raise RiceError("expected gradients in the vision tower, got none")
    return len(without[TOWER])


def _inputs(llava: BuiltLlava, pixels: Tensor, picture: Image.Image | None = None) -> dict[str, Any]:
    """Arguments of `get_image_features` for tiles (N, 3, S, S) of one picture; two where it is not named."""
    found: dict[str, Any] = {
        "pixel_values": pixels.to(llava.model.device, llava.model.dtype),
        "vision_feature_layer": llava.tower.layer,
        "vision_feature_select_strategy": llava.tower.strategy,
    }
    if llava.arch != "llava":
        edge = llava.tiles.edge
        size = (edge, edge) if picture is None else (picture.height, picture.width)
        rows, columns = llava.tiles.grid(size)
        found["image_sizes"] = torch.tensor([size])
        if len(pixels) != 1 + rows * columns:
            found["pixel_values"] = found["pixel_values"][:1].expand(1 + rows * columns, -1, -1, -1)
    return found


def _processed(llava: BuiltLlava, picture: Image.Image) -> Tensor:
    """Tiles (N, 3, S, S) as the processor makes them."""
    pixels: Tensor = llava.processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
    return pixels.flatten(0, -4)


@contextlib.contextmanager
def _projected(llava: BuiltLlava) -> Iterator[list[Tensor]]:
    """What goes into the projector meanwhile."""
    seen: list[Tensor] = []
    projector: nn.Module = llava.model.model.multi_modal_projector
    hook = projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        yield seen
    finally:
        hook.remove()


def _noise(edge: int) -> Image.Image:
    """A picture of some shape, the same one every time."""
    draw = np.random.default_rng(0)
    pixels: NDArray[np.uint8] = draw.integers(0, 256, (edge + edge // 3, 2 * edge - edge // 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
