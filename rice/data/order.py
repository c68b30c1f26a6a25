"""The order in which samples are visited: shuffled, computed from (seed, epoch), and nearly sequential on disk.

An epoch visits the shards in a keyed order, `window` of them at a time, and the samples of a window in a keyed order.
Any position is found in O(number of shards), without a table of samples, whatever came before it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rice.permutation import permute

Indices = NDArray[np.int64]


class _Epoch(NamedTuple):
    number: int
    shards: Indices
    """In the order of visit."""
    windows: Indices
    """(windows + 1,): the position at which each window begins, and the end."""


class WindowedShuffle:
    """Positions 0, 1, 2, ... of an endless stream -> (epoch, sample). Each epoch is a permutation of the samples."""

    def __init__(self, counts: Indices, *, window: int, seed: int) -> None:
        """counts: samples in each shard. window: how many shards are mixed."""
        self.samples = int(counts.sum())
        self._counts, self._window, self._seed = counts, window, seed
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._epoch: _Epoch | None = None

    def locate(self, positions: Indices) -> tuple[Indices, Indices]:
        """The epochs and the global sample indices of some positions, both of their shape (P,)."""
        epochs, within = np.divmod(positions, self.samples)
        samples = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            samples[chosen] = self._in_epoch(self._plan(epoch), within[chosen])
        return epochs, samples

    def _plan(self, epoch: int) -> _Epoch:
        if self._epoch is None or self._epoch.number != epoch:
            shards = permute(np.arange(len(self._counts)), len(self._counts), self._seed, epoch)
            ends = np.concatenate([[0], np.cumsum(self._counts[shards])])
            windows = np.append(ends[: -1 : self._window], ends[-1])
            self._epoch = _Epoch(epoch, shards, windows)
        return self._epoch

    def _in_epoch(self, epoch: _Epoch, positions: Indices) -> Indices:
        samples = np.empty_like(positions)
        numbers = np.searchsorted(epoch.windows, positions, side="right") - 1
        for number in np.unique(numbers).tolist():
            chosen = numbers == number
            begin, end = epoch.windows[number : number + 2].tolist()
            local = permute(positions[chosen] - begin, end - begin, self._seed, epoch.number, number)
            shards = epoch.shards[number * self._window : (number + 1) * self._window]
            ends = np.cumsum(self._counts[shards])
            places = np.searchsorted(ends, local, side="right")
            samples[chosen] = self._starts[shards[places]] + local - (ends - self._counts[shards])[places]
        return samples
