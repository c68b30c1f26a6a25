"""A bank of class centres, sharded over ranks by class: the classifier of section 3.3 and its optimiser.

Every rank gathers all ranks' embeddings and labels, meets them with its own centres, and gives every rank the gradient
of its embeddings. Two maxima and two sums per region are reduced, whatever K is; centres never travel.

Shapes: B pictures of this rank, N region slots, M positives per region (-1: none), G pictures of all ranks, K classes,
D width.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from rice.errors import RiceError
from rice.loss.cluster import check_ids
from rice.loss.equations import ClusterLoss, Terms
from rice.loss.pending import Kept, Pending, Recomputed
from rice.loss.ranks import Ranks
from rice.loss.rows import AdamW, RowState
from rice.loss.sampling import distinct, sample, sample_size
from rice.loss.slots import Backward, candidates, meet
from rice.loss.streaming import Candidates, Shard, Sums
from rice.permutation import mix

_STD = 0.01
"""Of a centre's coordinates, as in ArcFace's code. Lengths cancel in the loss but not in AdamW: at the paper's rate of
0.001 a centre this long turns by a tenth in its first update, one of length 1 and width 768 by a thirtieth."""
_BLOCK = 1024
"""Classes that draw their first centres from one generator."""


class CenterBank:
    """Learned centres of `classes` classes, of which each step trains only those it sampled or met as a label.

    Not a module: its gradients are compact and its optimiser is its own, so neither DDP nor FSDP may touch it. Shards
    are those of `torch.chunk`, the last ones smaller or empty. A call and its backward pass wait for a GPU a few times,
    to count what was sampled and labelled; norm and update do not, where gradients are kept.
    """

    def __init__(
        self,
        classes: int,
        width: int,
        *,
        rho: float = 0.1,
        loss: ClusterLoss = ClusterLoss(),  # noqa: B008 (frozen)
        seed: int = 0,
        name: str = "object",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        bf16: bool = False,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.2,
        keep_gradients: bool = True,
    ) -> None:
        """rho: share of all classes sampled as negatives of a slot.

        dtype: of centres, moments and loss; fp32 or fp64. bf16: round the inputs of the matrix products.
        keep_gradients: False computes them again for norm and update, where memory is scarce; see `pending`.
        Errors: RiceError for rho of no class.
        """
        self.classes, self.width, self.name, self.loss = classes, width, name, loss
        self.ranks = Ranks()
        self._sampled = sample_size(rho, classes)
        self._key = seed, int.from_bytes(name.encode(), "big")
        self._adamw = AdamW(*betas, eps, weight_decay)
        self.shard = self.ranks.shard(classes)
        """The classes whose centres are here."""
        weight_KD = _first_centers(self._key, self.shard, width, dtype).to(device)
        self._rows = RowState(
            weight_KD,
            torch.zeros_like(weight_KD),
            torch.zeros_like(weight_KD),
            weight_KD.new_zeros(len(weight_KD), dtype=torch.int32),
        )
        self.local = Shard(weight_KD, loss, bf16)
        self.gradients: Pending = Kept(self.local) if keep_gradients else Recomputed(self.local)

    def __call__(self, embeddings_BND: Tensor, positives_BNM: Tensor, *, step: int) -> Tensor:
        """The sum of losses over all ranks' regions, the same scalar on every rank; differentiable.

        All ranks pass the same B, N, M and step. Its backward pass adds to the gradients that `step` uses.
        Errors: RiceError, on every rank, for a class id outside [-1, K).
        """
        if embeddings_BND.shape[:2] != positives_BNM.shape[:2] or embeddings_BND.shape[2:] != (self.width,):
            shapes = tuple(embeddings_BND.shape), tuple(positives_BNM.shape)
            raise RiceError(f"{self.name}: expected (B, N, {self.width}) and (B, N, M), got {shapes}")
        if torch.is_grad_enabled() and not embeddings_BND.requires_grad:
            embeddings_BND = embeddings_BND.detach().requires_grad_()  # the centres learn even from a frozen tower
        labels_GNM = distinct(self.ranks.gather(positives_BNM))
        check_ids(f"{self.name} labels", labels_GNM, -1, self.classes)
        labelled_N = (labels_GNM >= 0).any(2).any(0).tolist()
        slots = [self._candidates(labels_GNM[:, n], (step, n), some) for n, some in enumerate(labelled_N)]
        unit_BND = normalize(embeddings_BND.to(self._rows.weight.dtype), dim=2)
        return cast(Tensor, _Total.apply(unit_BND, self, slots))

    @torch.no_grad()
    def grad_square_norm(self) -> Tensor:
        """Squared norm of all ranks' centre gradients, each row once; the same scalar on every rank."""
        norm = self._rows.weight.new_zeros(())
        for rows in self.gradients.parts():
            norm += rows.square_norm()
        return self.ranks.add(norm)

    @torch.no_grad()
    def step(self, lr: float, coefficient: float | Tensor = 1.0) -> None:
        """AdamW on the rows that took part since the last step, by gradient times `coefficient`; then forget it."""
        for rows in self.gradients.parts():
            self._rows.update(rows, self._adamw, lr, coefficient)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.gradients.clear()

    def state(self) -> dict[str, Tensor]:
        """Centres, moments and per-row step counts, for a checkpoint that reshards.

        DTensors over the ranks, or plain tensors in one process without a group; they share the bank's memory, so
        that loading into them is loading the bank.
        """
        names = ("weight", "exp_avg", "exp_avg_sq", "steps")
        return {name: self.ranks.named(tensor, self.classes) for name, tensor in zip(names, self._rows, strict=True)}

    def _candidates(self, labels_GM: Tensor, key: tuple[int, int], labelled: bool) -> Candidates:
        """Of a slot that no region has filled no class is sampled: its centres have nothing to learn."""
        size = self._sampled if labelled else 0
        ids_S = sample(size, self.classes, (*self._key, *key), self.shard, labels_GM.device)
        here_GM = (labels_GM >= self.shard.start) & (labels_GM < self.shard.stop)
        return candidates(ids_S, (labels_GM - self.shard.start).where(here_GM, -1))


class _Total(torch.autograd.Function):
    """The sum over all ranks' regions. The backward pass computes the logits again, a chunk at a time."""

    @staticmethod
    def forward(ctx: Any, unit_BND: Tensor, bank: CenterBank, slots: list[Candidates]) -> Tensor:
        unit_NGD = bank.ranks.gather(unit_BND).transpose(0, 1)
        met = [meet(unit_GD, bank.local, these) for unit_GD, these in zip(unit_NGD, slots, strict=True)]
        a_NG, b_NG = (
            bank.ranks.logsumexp(
                Sums(torch.stack([sums.top for sums in part]), torch.stack([sums.total for sums in part]))
            )
            for part in ([slot.positive for slot in met], [slot.negative for slot in met])
        )
        terms = bank.loss.terms(a_NG, b_NG)
        ctx.save_for_backward(unit_NGD, *terms, *(slot.cosine for slot in met))
        ctx.bank, ctx.slots = bank, slots
        return terms.loss.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        bank: CenterBank = ctx.bank
        unit_NGD, loss_NG, positive_NG, negative_NG, *cosines = ctx.saved_tensors
        terms_N3G = torch.stack([loss_NG, positive_NG, negative_NG], 1)
        slots = [
            Backward(unit_GD, these, cosine_P, Terms(*terms_3G), upstream)
            for unit_GD, these, cosine_P, terms_3G in zip(unit_NGD.detach(), ctx.slots, cosines, terms_N3G, strict=True)
        ]
        gradient_GND = torch.stack(bank.gradients.take(slots), 1)
        return bank.ranks.scatter_sum(gradient_GND) * bank.ranks.size, None, None  # by which DDP and FSDP divide


def _first_centers(key: tuple[int, ...], shard: range, width: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers, a function of (seed, name, class) alone."""
    weight_KD = torch.empty(len(shard), width, dtype=dtype)
    generator = torch.Generator()
    for block in range(shard.start // _BLOCK, -(-shard.stop // _BLOCK)):
        generator.manual_seed(mix(*key, block))
        start = block * _BLOCK
        drawn = torch.empty(_BLOCK, width).normal_(std=_STD, generator=generator)
        first, last = max(shard.start, start), min(shard.stop, start + _BLOCK)
        weight_KD[first - shard.start : last - shard.start] = drawn[first - start : last - start]
    return weight_KD
