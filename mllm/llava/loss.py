"""Cross entropy of answer tokens straight from hidden states: the logits of a row are never held at once.

At Qwen2.5's 152,064 entries the fp32 logits of a 3,000-token row are 1.8 GB, and their gradient as much. Only positions
that predict an answer count, so the model keeps those alone (`logits_to_keep`), the head passes their hidden states on,
and the loss multiplies them with the head a chunk of positions at a time, taking both gradients while a chunk's logits
are there. Nothing is computed twice.

`rice.loss.streaming` chunks the other side, sampled unit centres of many classes, and computes products twice; a head
has no norms and no sampling, so it is not used here.

Shapes: K positions, C of a chunk, D width, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from mllm.llava.conversation import IGNORED
from rice.errors import RiceError

_LOGITS = {"cpu": 2**24, "cuda": 2**28}
"""Logits of a chunk: 64 MiB in fp32 on the CPU, 1 GiB on a GPU."""


@contextlib.contextmanager
def answer_loss(model: nn.Module, chunk: int | None = None) -> Iterator[None]:
    """Inside, `model` (transformers', or PEFT's around one) computes its loss from hidden states.

    Its head passes hidden states on, so `logits` of an output are hidden states: nothing can be generated inside.
    `labels` are then the targets themselves, one for each position that `logits_to_keep` names: not shifted.
    chunk: positions whose logits exist at once; None: what suits the device. State dicts are as outside.
    Errors: RiceError for a model without an output head.
    """
    bare = bare_model(model)
    head = bare.get_output_embeddings()
    if head is None:
        raise RiceError(f"expected a language model with an output head, got {type(bare).__name__}")
    had_forward, had_loss = head.__dict__.get("forward"), bare.__dict__.get("_loss_function")
    bare.loss_function = AnswerLoss(head, head.forward, chunk)
    head.forward = _pass
    try:
        yield
    finally:
        _restore(head, "forward", had_forward)
        _restore(bare, "_loss_function", had_loss)


def bare_model(model: nn.Module) -> Any:
    """The Llava of transformers itself, also where PEFT is around it."""
    unwrap: Any = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def _pass(hidden: Tensor) -> Tensor:
    return hidden


def _restore(owner: nn.Module, name: str, before: Any) -> None:
    del owner.__dict__[name]
    if before is not None:
        owner.__dict__[name] = before


class AnswerLoss:
    """What transformers calls as `loss_function(logits=, labels=, vocab_size=, num_items_in_batch=)`."""

    def __init__(self, head: nn.Module, forward: Callable[[Tensor], Tensor], chunk: int | None = None) -> None:
        """forward: of the head, before it was replaced. A head that is no plain linear layer is applied as it is."""
        self._head, self._forward, self._chunk = head, forward, chunk

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> Tensor:
        """logits: hidden states (1, K, D); labels: targets (1, K) or (K,), -100 without loss. A scalar, fp32 or better.

        The sum over targets divided by `num_items_in_batch`, or by their number; 0 where there are none.
        """
        hidden_KD, targets_K = logits.flatten(0, -2), labels.flatten()
        if len(hidden_KD) != len(targets_K):
            raise ValueError(f"expected a target for each of {len(hidden_KD)} kept positions, got {len(targets_K)}")
        if isinstance(self._head, nn.Linear):
            total = chunked_cross_entropy(hidden_KD, self._head.weight, targets_K, self._head.bias, chunk=self._chunk)
        else:
            total = self._recomputed(hidden_KD, targets_K, self._chunk or 1024)
        count = (targets_K != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)

    def _recomputed(self, hidden_KD: Tensor, targets_K: Tensor, chunk: int) -> Tensor:
        """Heads that PEFT wraps: logits of a chunk once forward, once more backward."""

        def loss(hidden_CD: Tensor, targets_C: Tensor) -> Tensor:
            logits_CV = _at_least_fp32(self._forward(hidden_CD))
            return cross_entropy(logits_CV, targets_C, ignore_index=IGNORED, reduction="sum")

        total = _at_least_fp32(hidden_KD).sum() * 0.0
        for start in range(0, len(hidden_KD), chunk):
            here = slice(start, start + chunk)
            total = total + checkpoint(loss, hidden_KD[here], targets_K[here], use_reentrant=False)
        return total


def chunked_cross_entropy(
    hidden_KD: Tensor, weight_VD: Tensor, targets_K: Tensor, bias_V: Tensor | None = None, *, chunk: int | None = None
) -> Tensor:
    """Sum of the cross entropies of `hidden @ weight.T + bias` at `targets`; -100 has none. A scalar, fp32 or better.

    Products are in autocast's type where it is on, else in the hidden states'; the softmax and sums in fp32 or better.
    Errors: RiceError for a weight that is sharded: its head must be in the root's FSDP unit.
    """
    if type(weight_VD.data).__name__ == "DTensor" or type(weight_VD).__name__ == "DTensor":
        raise RiceError(
            "expected the head's whole weight in the loss, got a shard; leave lm_head out of FSDP's wrapping"
        )
    device = hidden_KD.device.type
    chunk = chunk or max(_LOGITS.get(device, _LOGITS["cuda"]) // len(weight_VD), 16)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_KD.dtype
    return _Chunked.apply(hidden_KD, weight_VD, bias_V, targets_K, chunk, dtype, torch.is_grad_enabled())  # type: ignore[no-any-return]


class _Chunked(torch.autograd.Function):
    """Gradients are taken in the forward pass, and only multiplied in the backward pass, which can run once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_KD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_K: Tensor,
        chunk: int,
        dtype: torch.dtype,
        graded: bool,
    ) -> Tensor:
        wanted = [graded and needed for needed in ctx.needs_input_grad[:3]]
        with torch.autocast(hidden_KD.device.type, enabled=False):
            total, ctx.gradients = _sums(hidden_KD, weight_VD, bias_V, targets_K, chunk, dtype, wanted)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        if ctx.gradients is None:
            raise RuntimeError("the answers' loss keeps its gradients for one backward pass only")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if value is None else value.mul_(upstream[0]) for value in gradients]
        return (*scaled, None, None, None, None)


def _sums(
    hidden_KD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_K: Tensor,
    chunk: int,
    dtype: torch.dtype,
    wanted: list[bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """The sum of losses, and its gradients by hidden states, weight and bias where wanted."""
    by_hidden, by_weight, by_bias = (
        torch.zeros_like(value, dtype=_sum_type(value)) if needed and value is not None else None
        for value, needed in zip((hidden_KD, weight_VD, bias_V), wanted, strict=True)
    )
    cast_VD = weight_VD.to(dtype)
    total = hidden_KD.new_zeros((), dtype=_sum_type(hidden_KD))
    for start in range(0, len(hidden_KD), chunk):
        here = slice(start, start + chunk)
        hidden_CD = hidden_KD[here].to(dtype)
        logits_CV = _at_least_fp32(hidden_CD @ cast_VD.t())
        if bias_V is not None:
            logits_CV += bias_V
        loss, by_logits_CV = _softmax_loss(logits_CV, targets_K[here])
        total += loss
        if by_bias is not None:
            by_bias += by_logits_CV.sum(0)
        narrow_CV = by_logits_CV.to(dtype)
        if by_hidden is not None:
            by_hidden[here] = narrow_CV @ cast_VD
        if by_weight is not None:
            _add_product(by_weight, narrow_CV.t(), hidden_CD)
    inputs = (hidden_KD, weight_VD, bias_V)
    found = (by_hidden, by_weight, by_bias)
    return total, [None if g is None or x is None else g.to(x.dtype) for g, x in zip(found, inputs, strict=True)]


def _softmax_loss(logits_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of cross entropies, and its gradient by the logits, which overwrites them: one exponential each."""
    counted_C = targets_C != IGNORED
    index_C1 = targets_C.where(counted_C, 0)[:, None]
    top_C1 = logits_CV.amax(1, keepdim=True)
    logits_CV.sub_(top_C1)
    own_C1 = logits_CV.gather(1, index_C1)
    sums_C1 = logits_CV.exp_().sum(1, keepdim=True)
    share_C1 = counted_C[:, None].to(logits_CV.dtype)
    loss = ((sums_C1.log() - own_C1) * share_C1).sum()
    by_logits_CV = logits_CV.mul_(share_C1 / sums_C1).scatter_add_(1, index_C1, -share_C1)
    return loss, by_logits_CV


def _add_product(sums_VD: Tensor, x_VC: Tensor, y_CD: Tensor) -> None:
    """sums += x y; in place where all have one type, else the product is added up in the sums' type."""
    if sums_VD.dtype == x_VC.dtype:
        sums_VD.addmm_(x_VC, y_CD)
    elif x_VC.is_cuda and sums_VD.dtype == torch.float32:
        sums_VD += torch.mm(x_VC, y_CD, out_dtype=torch.float32)
    else:
        sums_VD += x_VC @ y_CD


def _sum_type(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _at_least_fp32(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()
