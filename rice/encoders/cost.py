"""What a forward of one image costs, from an encoder's spec alone. Imports no torch.

Matrix products only (two FLOPs per multiply-add), as `torch.utils.flop_counter` counts them; a test holds it to that.
Not counted: pooling heads and Qwen's merge, which the patches do not need.
"""

from typing import NamedTuple

from rice.encoders.spec import EncoderSpec

_CHANNELS = 3


class Cost(NamedTuple):
    """Patch tokens of one image, and 1e9 FLOPs of its forward (None where the spec does not say enough)."""

    tokens: int
    gflops: float | None


def cost(spec: EncoderSpec, size: int) -> Cost:
    """The cost of one square image of `size` pixels. Errors: RiceError for a size that the encoder cannot take."""
    height, width = spec.check_size(size, size)
    patches = height * width
    if spec.depth is None or spec.mlp_width is None:
        return Cost(patches, None)
    tokens = patches + spec.prefix_tokens
    projections = 8 * tokens * spec.width**2
    mlp = (6 if spec.gated_mlp else 4) * tokens * spec.width * spec.mlp_width
    attention = sum(4 * spec.width * pairs for pairs in _attended_pairs(spec, height, width, tokens))
    embedding = 2 * patches * _CHANNELS * spec.patch**2 * spec.width
    return Cost(patches, (spec.depth * (projections + mlp) + attention + embedding) / 1e9)


def _attended_pairs(spec: EncoderSpec, height: int, width: int, tokens: int) -> list[int]:
    """Query-key pairs of every layer."""
    assert spec.depth is not None
    if spec.window is None or spec.full_attention_layers is None:
        return [tokens**2] * spec.depth
    windowed = _square_sum(height, spec.window) * _square_sum(width, spec.window)
    return [tokens**2] * spec.full_attention_layers + [windowed] * (spec.depth - spec.full_attention_layers)


def _square_sum(edge: int, window: int) -> int:
    """Sum of squared lengths of the windows along one edge; the last one may be shorter."""
    return edge // window * window**2 + (edge % window) ** 2
