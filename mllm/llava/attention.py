"""Causal attention over samples laid end to end: none sees another, and no mask of all pairs is built.

Registered with transformers as "rice_packed". A micro-batch is one row of T tokens, and `cu_seq_lens_q` (transformers'
name) says where its samples begin. On CUDA in bf16 or fp16 one variable-length call attends them all; elsewhere SDPA
attends them one by one. The work is the sum of squares of their lengths, not the square of the sum.

A sample may branch: several continuations of one beginning, none of which sees another, as if each had been a sample
with the beginning of its own. Then the keys are `key_index` of the row's, a branch's after its beginning's.

Shapes: T tokens, K keys (T without branches), H query heads, G key and value heads (H a multiple of G), E width of a
head, N samples and branches.
"""

import contextlib
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mllm.llava.loss import bare_model
from rice.errors import RiceError

NAME = "rice_packed"


@contextlib.contextmanager
def packed_attention(model: nn.Module) -> Iterator[None]:
    """Inside, the language model of `model` (a Llava of transformers, or PEFT's around one) attends within samples.

    The vision tower keeps its own attention.
    """
    bare = bare_model(model)
    before = bare.config.text_config._attn_implementation
    bare.set_attn_implementation({"text_config": NAME})
    try:
        yield
    finally:
        bare.set_attn_implementation({"text_config": before})


def attend(
    module: nn.Module,
    query_1HTE: Tensor,
    key_1GTE: Tensor,
    value_1GTE: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    key_index: Tensor | None = None,
    position_ids: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: (1, T, H, E), no weights. cu_seq_lens_q: (N + 1,) int32 from 0 to T.

    key_index: (K,) places in the row, and cu_seq_lens_k (N + 1,) int32 from 0 to K; without it the keys are the row's
    own and end where the queries do. A query sees the keys up to its own, counted from the last of both.

    Without `cu_seq_lens_q` it is transformers' "sdpa", on any batch, and samples begin where `position_ids` (B, T) do
    not go on: with a cache, too, where "sdpa" would let them see each other. Errors: RiceError for a mask beside packed
    samples, for several packed rows, for softcapped logits, for attention sinks.
    """
    _check(query_1HTE, attention_mask, cu_seq_lens_q is not None, options)
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    form = (dropout, scaling, causal, sliding_window)
    if cu_seq_lens_q is None:
        bounds = None if attention_mask is not None else _restarts(position_ids, query_1HTE, key_1GTE)
        if bounds is not None:
            rows = zip(*(torch.split(x, 1) for x in (query_1HTE, key_1GTE, value_1GTE)), bounds, strict=True)
            return torch.cat([_each(*row, *form) for row in rows]), None
        if attention_mask is None and sliding_window is not None:
            return _one(query_1HTE, key_1GTE, value_1GTE, *form).transpose(1, 2), None
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_1HTE, key_1GTE, value_1GTE, attention_mask, dropout, scaling, is_causal, **options
        )
        return output
    ends: _Ends = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
    if key_index is not None and cu_seq_lens_k is not None:
        key_1GTE, value_1GTE = key_1GTE[:, :, key_index], value_1GTE[:, :, key_index]
        ends = (cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k)
    if dropout == 0.0 and causal and _has_varlen(query_1HTE):
        window = -1 if sliding_window is None else sliding_window - 1
        return _varlen(query_1HTE, key_1GTE, value_1GTE, ends, scaling, window), None
    return _each(query_1HTE, key_1GTE, value_1GTE, ends[0].tolist(), *form, keys=ends[1].tolist()), None


def _check(query_1HTE: Tensor, attention_mask: Tensor | None, packed: bool, options: dict[str, Any]) -> None:
    if packed and (attention_mask is not None or len(query_1HTE) != 1):
        raise RiceError("expected packed samples as one row without an attention mask; pass cu_seq_lens_q or a mask")
    if options.get("softcap") is not None:
        raise RiceError("a language model with softcapped attention cannot be packed; take Qwen2, Llama or Mistral")
    if options.get("s_aux") is not None:
        raise RiceError("a language model with attention sinks cannot be packed; take Qwen2, Llama or Mistral")


def _restarts(position_ids: Tensor | None, query: Tensor, key: Tensor) -> list[list[int]] | None:
    """Where the samples of each row begin and end, None where each row is one."""
    length = query.shape[2]
    if position_ids is None or position_ids.ndim != 2 or position_ids.shape[1] != length or key.shape[2] != length:
        return None
    begins = position_ids.diff() != 1
    if not begins.any():
        return None
    return [[0, *(row.nonzero()[:, 0] + 1).tolist(), length] for row in begins.expand(len(query), -1)]


def _each(
    query_1HTE: Tensor,
    key_1GKE: Tensor,
    value_1GKE: Tensor,
    bounds: list[int],
    *form: Any,
    keys: list[int] | None = None,
) -> Tensor:
    """The samples between `bounds`, one by one: (1, T, H, E). keys: the bounds of their keys, where they differ."""
    both = zip(itertools.pairwise(bounds), itertools.pairwise(keys or bounds), strict=True)
    outputs = [
        _one(query_1HTE[:, :, begin:end], key_1GKE[:, :, first:last], value_1GKE[:, :, first:last], *form)
        for (begin, end), (first, last) in both
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _one(
    query_1HSE: Tensor,
    key_1GKE: Tensor,
    value_1GKE: Tensor,
    dropout: float,
    scaling: float | None,
    causal: bool,
    window: int | None,
) -> Tensor:
    """A sample of S tokens on its own, or the last S of its K tokens over all of them."""
    length, whole, grouped = query_1HSE.shape[2], key_1GKE.shape[2], query_1HSE.shape[1] != key_1GKE.shape[1]
    mask_SK, before = None, whole - length
    narrow = window is not None and window < whole
    if causal and (narrow or (before and length > 1)):
        ones_SK = torch.ones(length, whole, dtype=torch.bool, device=query_1HSE.device)
        mask_SK, causal = ones_SK.tril(before), False
        if narrow:
            assert window is not None
            mask_SK &= ones_SK.triu(before + 1 - window)
    return scaled_dot_product_attention(
        query_1HSE,
        key_1GKE,
        value_1GKE,
        attn_mask=mask_SK,
        dropout_p=dropout,
        is_causal=causal and length > 1,  # a lone query would see the first key alone
        scale=scaling,
        enable_gqa=grouped,
    )


def _has_varlen(query: Tensor) -> bool:
    """Whether torch's variable-length call takes it: CUDA, half precision, the form of torch 2.12 and later."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"window_size", "enable_gqa", "scale"} <= inspect.signature(varlen_attn).parameters.keys()


_Ends = tuple[Tensor, Tensor, int | None, int | None]
"""Of queries and of keys, and the longest of each."""


def _varlen(
    query_1HTE: Tensor, key_1GKE: Tensor, value_1GKE: Tensor, ends: _Ends, scaling: float | None, window: int
) -> Tensor:
    """FlashAttention aligns a branch's queries with the last of its keys, as `_one` does."""
    from torch.nn.attention.varlen import varlen_attn

    q_THE, k_KGE, v_KGE = (x[0].transpose(0, 1) for x in (query_1HTE, key_1GKE, value_1GKE))
    grouped = query_1HTE.shape[1] != key_1GKE.shape[1]
    own, seen, most_own, most_seen = ends
    longest = [int(e.diff().max()) if most is None else most for e, most in ((own, most_own), (seen, most_seen))]
    out_THE = varlen_attn(
        q_THE, k_KGE, v_KGE, own, seen, *longest, scale=scaling, window_size=(window, 0), enable_gqa=grouped
    )
    assert isinstance(out_THE, Tensor)
    return out_THE[None]


def _mask(
    *,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    **options: Any,
) -> Tensor | None:
    """None where `attend` needs none: samples of a row, which it tells apart by itself, or one causal row. Padding and
    caches get "sdpa"'s mask.
    """
    if attention_mask is None and q_length == kv_length:
        return None
    mask: Tensor | None = sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **options)
    return mask


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)
