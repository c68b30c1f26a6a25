"""Micro-batches without padding: the samples of a step, shared out into rows of nearly equal length.

A step of the paper's recipe has 128 samples. Which ones is a seeded shuffle's matter; how they are grouped changes
neither the step's loss, a sum over answer tokens divided by their number, nor its gradient. So they are laid end to
end in `bins` rows, each the micro-batch of one rank, longest sample first into the shortest row (LPT, Graham 1969).

Shapes: T tokens of a row, N samples in it, K answer tokens, n image tiles, S their edge.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mllm.llava.conversation import IGNORED
from rice.errors import RiceError
from rice.permutation import permute

Example = Mapping[str, Tensor]
TAKEN = ("input_ids", "labels", "branches", "pixel_values", "image_sizes")
"""What an example may hold for the model itself."""
Integers = NDArray[np.int64]


class StepBins(Sampler[list[int]]):
    """A batch sampler: the bins of step 0, of step 1, ..., each a list of samples. Assign `epoch` before an epoch.

    An epoch is a permutation of the samples, computed from (seed, epoch). What is left over makes a smaller last step,
    so that all are seen however many bins there are. A bin that got no sample holds `~sample`, the shortest one, whose
    labels do not count (`WithoutLoss`): every rank needs a row. With `spread`, samples with images are dealt first, so
    that every bin has one where there are enough; a bin that got none ends with `~` of the shortest sample with an
    image: on several ranks all must run the vision tower. Without, the first bin of a step that has no image does: a
    tower without a gradient would miss what an optimiser does at a gradient of zero.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Integers,
        *,
        batch: int,
        bins: int,
        seed: int,
        images: Sequence[int] | Integers | None = None,
        spread: bool = True,
    ) -> None:
        """lengths: tokens of each sample. batch: samples of a step. bins: micro-batches of a step, over all ranks.

        images: of each sample; None: no step needs one. spread: every bin needs one, not every step alone.
        Errors: RiceError where there is no sample, or no place for one.
        """
        self.lengths: Integers = np.asarray(lengths, np.int64)
        samples = len(self.lengths)
        if min(samples, batch, bins) < 1:
            raise RiceError(
                f"expected at least one sample, one of them in a step and one micro-batch, got {samples} samples in "
                f"steps of {batch} in {bins} micro-batches; give rows, batch and micro_batches of 1 or more"
            )
        self.batch, self.bins, self.seed, self.epoch = batch, bins, seed, 0
        self.steps = -(-samples // batch)
        self._pictured = None if images is None or not any(images) else np.asarray(images) > 0
        candidates = np.arange(samples) if self._pictured is None else self._pictured.nonzero()[0]
        self._blank = ~int(candidates[self.lengths[candidates].argmin()])
        self._order: tuple[int, Integers] | None = None
        self._spread = spread

    def __len__(self) -> int:
        return self.steps * self.bins

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch
        for step in range(self.steps):
            yield from self.step(epoch, step)

    def samples(self, epoch: int, step: int) -> Integers:
        """Those of a step, in the order of the shuffle."""
        if self._order is None or self._order[0] != epoch:
            places = np.arange(len(self.lengths), dtype=np.int64)
            self._order = epoch, permute(places, len(places), self.seed, epoch)
        return self._order[1][step * self.batch : (step + 1) * self.batch]

    def tokens(self, epoch: int, step: int) -> int:
        """Of a step's samples."""
        return int(self.lengths[self.samples(epoch, step)].sum())

    def step(self, epoch: int, step: int) -> list[list[int]]:
        """The bins of a step."""
        samples = self.samples(epoch, step)
        serves = np.ones(len(samples), bool) if self._pictured is None else self._pictured[samples]
        dealt = share_out(self.lengths[samples], self.bins, serves if self._spread else None)
        first = not serves.any()
        blank = [
            not places or (not serves[places].any() if self._spread else first and number == 0)
            for number, places in enumerate(dealt)
        ]
        return [samples[places].tolist() + [self._blank] * lacks for places, lacks in zip(dealt, blank, strict=True)]


def share_out(lengths: Integers, bins: int, spread: NDArray[np.bool_] | None = None) -> list[list[int]]:
    """Places in `lengths` shared out into `bins` lists of nearly equal total, each ascending; few places: some empty.

    Longest first into the least full bin; the longest ones of `spread` go first, one to each bin.
    """
    descending = np.argsort(-lengths, kind="stable")
    if spread is not None:
        chosen = descending[spread[descending]][:bins]
        descending = np.concatenate([chosen, descending[~np.isin(descending, chosen)]])
    least = [(0, number) for number in range(bins)]
    dealt: list[list[int]] = [[] for _ in range(bins)]
    for place in descending.tolist():
        total, number = heapq.heappop(least)
        dealt[number].append(place)
        heapq.heappush(least, (total + int(lengths[place]), number))
    return [sorted(places) for places in dealt]


class WithoutLoss(Dataset[Example]):
    """A dataset in which `~i` is sample i with no label that counts, and no more than the model itself takes."""

    def __init__(self, examples: Any) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        if index >= 0:
            example: Example = self._examples[index]
            return example
        example = {name: value for name, value in self._examples[~index].items() if name in TAKEN}
        return {**example, "labels": torch.full_like(example["labels"], IGNORED)}


def pack(examples: Sequence[Example]) -> dict[str, Any]:
    """The samples of a micro-batch laid end to end, as a Llava of transformers takes them.

    An example that branches has `branches`: the lengths of the continuations, in order, that end its tokens; the tokens
    before them are their common beginning.
    Returns `input_ids`, `labels`, `position_ids` (1, T), the last from 0 in every sample and going on from the
    beginning in every branch; `cu_seq_lens_q` and `_k` (N + 1,) int32; `max_length_q` and `_k`; `key_index` where there
    are branches (`attention`); `logits_to_keep` (K,): the positions before an answer token; and, where there are
    images, `pixel_values` (n, 3, S, S), `image_sizes` (images, 2), `images_per_sample` (N,).
    The first label of a sample and of a branch never counts: nothing before it predicts it.
    Errors: RiceError for an example without tokens, or with more in its branches than it has.
    """
    lengths = [len(example["input_ids"]) for example in examples]
    if not lengths or min(lengths) < 1:
        raise RiceError("expected examples with at least one token, got an empty one; prepare the rows again")
    layout = _Layout.of(examples)
    labels_T = torch.cat([example["labels"] for example in examples])
    labels_T[layout.ends[:-1].long()] = IGNORED
    row = {
        "input_ids": torch.cat([example["input_ids"] for example in examples])[None],
        "labels": labels_T[None],
        "position_ids": layout.positions[None],
        "cu_seq_lens_q": layout.ends,
        "cu_seq_lens_k": layout.key_ends,
        "max_length_q": int(layout.ends.diff().max()),
        "max_length_k": int(layout.key_ends.diff().max()),
        "logits_to_keep": (labels_T[1:] != IGNORED).nonzero()[:, 0],
    }
    if any("branches" in example for example in examples):
        row["key_index"] = layout.keys
    pictured = [example for example in examples if "pixel_values" in example]
    if pictured:
        row["pixel_values"] = torch.cat([example["pixel_values"] for example in pictured])
    if pictured and "image_sizes" in pictured[0]:
        row["image_sizes"] = torch.cat([example["image_sizes"] for example in pictured])
        row["images_per_sample"] = torch.tensor([len(example["image_sizes"]) for example in pictured])
    return row


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a row, its samples or their beginnings and branches, end; positions; the keys of each part."""

    ends: Tensor
    key_ends: Tensor
    positions: Tensor
    keys: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "_Layout":
        lengths: list[int] = []
        positions: list[Tensor] = []
        keys: list[Tensor] = []
        start = 0
        for example in examples:
            total = len(example["input_ids"])
            branches = example["branches"].tolist() if "branches" in example else []
            beginning = total - sum(branches)
            if beginning < 1 or any(branch < 1 for branch in branches):
                raise RiceError(f"expected branches of a token or more after a beginning, got {branches} of {total}")
            shared = torch.arange(start, start + beginning)
            lengths.append(beginning)
            positions.append(torch.arange(beginning))
            keys.append(shared)
            place = start + beginning
            for branch in branches:
                lengths.append(branch)
                positions.append(torch.arange(beginning, beginning + branch))
                keys.append(torch.cat([shared, torch.arange(place, place + branch)]))
                place += branch
            start += total
        ends, key_ends = (
            torch.tensor([0, *np.cumsum(sizes)], dtype=torch.int32) for sizes in (lengths, [len(part) for part in keys])
        )
        return cls(ends, key_ends, torch.cat(positions), torch.cat(keys))
