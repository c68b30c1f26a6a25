"""The stream of training batches: the same global batch at the same step for any number of ranks and workers."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rice.data.batches import Batch, StreamConfig, assemble, training_view, whole_view
from rice.data.order import Indices, WindowedShuffle
from rice.data.regions import Draws
from rice.data.shard_reader import Record, Shard, fingerprint, read_dataset
from rice.data.shards import DatasetInfo
from rice.errors import RiceError

__all__ = ["Batch", "RegionStream", "StreamConfig"]


class RegionStream:
    """Shards of one or more folders (or URLs) as one endless stream.

    samples, regions: pictures in an epoch, and annotated regions in them. object_classes, ocr_classes: numbers of
    classes. classes: names of the object classes, where known. fingerprint: of the data sets' descriptions, whichever
    folders they lie in.
    """

    def __init__(self, located: Sequence[tuple[str, DatasetInfo]], config: StreamConfig, seed: int) -> None:
        """See `open`."""
        self.config, self.seed = config, seed
        self.object_classes = _agreed(located, "object_classes")
        self.ocr_classes = _agreed(located, "ocr_classes")
        self.classes = next((info.classes for _, info in located if info.classes), ())
        self.fingerprint = fingerprint([info for _, info in located])
        self._shards = [
            Shard(location, shard, info.object_classes, info.ocr_classes, captions=config.context > 0)
            for location, info in located
            for shard in info.shards
        ]
        counts = np.array([shard.info.samples for shard in self._shards])
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._order = WindowedShuffle(counts, window=config.window, seed=seed)
        self._recent: dict[int, Shard] = {}
        self.samples = self._order.samples
        self.regions = sum(shard.info.regions for shard in self._shards)

    @classmethod
    def open(cls, folders: Path | str | Sequence[Path | str], config: StreamConfig, seed: int = 0) -> "RegionStream":
        """Read every folder's dataset.json; shards are opened as they are reached.

        Errors: RiceError for a folder without one, and for folders that disagree on the number of classes.
        """
        listed = [folders] if isinstance(folders, Path | str) else list(folders)
        if not listed:
            raise RiceError("expected at least one folder of shards, got none")
        return cls([read_dataset(folder) for folder in listed], config, seed)

    def captioned(self) -> bool:
        """Whether any shard has captions, and they are read: of the first that has, no further one is opened."""
        return any(self._open(number).sidecar.captions is not None for number in range(len(self._shards)))

    def keys(self, samples: Sequence[int] | Tensor) -> list[str]:
        """SHARD:KEY of some samples, for messages."""
        places = self._places(torch.as_tensor(samples).numpy())
        return [f"{self._shards[shard].info.name}:{self._open(shard).sidecar.keys[row]}" for shard, row in places]

    def batches(self, start_step: int = 0, *, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The batches of one rank from a step on, without end.

        batch: samples of a step over all ranks. Rank r takes positions [step * batch + r * batch / world, ...) of the
        shuffled stream. Errors: RiceError where world does not divide batch; while iterating, see `Shard`.
        """
        if batch < 1 or batch % world:
            raise RiceError(
                f"expected a batch that {world} ranks divide evenly, got {batch}; start {_most_ranks(batch, world)}, "
                "or pass another --batch to a new run"
            )
        step = functools.partial(self._step, batch=batch, rank=rank, share=batch // world)
        return self._load(step, itertools.count(start_step))

    def all_regions(self, *, batch: int) -> Iterator[Batch]:
        """Every picture once, whole (resized to size x size), with all its regions.

        The number of regions is that of the richest picture in each batch; slots without a region have no label.
        """
        part = functools.partial(self._part, batch=batch)
        return self._load(part, range(-(-self.samples // batch)))

    def _step(self, number: int, *, batch: int, rank: int, share: int) -> Batch:
        begin = number * batch + rank * share
        epochs, samples = self._order.locate(np.arange(begin, begin + share))
        places = self._places(samples)
        views = [
            training_view(record, self.config, Draws(self.seed, epoch, sample))
            for record, epoch, sample in zip(self._records(places), epochs.tolist(), samples.tolist(), strict=True)
        ]
        return assemble(views, self._pictures(places), samples, self.config, self.config.regions)

    def _part(self, number: int, *, batch: int) -> Batch:
        samples = np.arange(number * batch, min((number + 1) * batch, self.samples))
        places = self._places(samples)
        views = [whole_view(record, self.config) for record in self._records(places)]
        regions = max(1, *(len(view.labels) for view in views))
        return assemble(views, self._pictures(places), samples, self.config, regions)

    def _records(self, places: list[tuple[int, int]]) -> list[Record]:
        return [self._open(shard).sidecar.record(row) for shard, row in places]

    def _pictures(self, places: list[tuple[int, int]]) -> list[bytes]:
        """Grouped by shard and read in the order of the file."""
        found: dict[tuple[int, int], bytes] = {}
        for shard, group in itertools.groupby(sorted(set(places)), key=lambda place: place[0]):
            rows = [row for _, row in group]
            found.update(zip(((shard, row) for row in rows), self._open(shard).images(rows), strict=True))
        return [found[place] for place in places]

    def _places(self, samples: Indices) -> list[tuple[int, int]]:
        """(shard, row) of global sample indices."""
        shards = np.searchsorted(self._starts, samples, side="right") - 1
        return list(zip(shards.tolist(), (samples - self._starts[shards]).tolist(), strict=True))

    def _open(self, number: int) -> Shard:
        """Two windows stay open, since a batch may reach from one into the next."""
        shard = self._recent.pop(number, None) or self._shards[number]
        self._recent[number] = shard
        if len(self._recent) > 2 * self.config.window:
            self._recent.pop(next(iter(self._recent))).close()
        return shard

    def _load(self, make: Callable[[int], Batch], numbers: Any) -> Iterator[Batch]:
        if self.config.workers == 0 and not self.config.pin_memory:
            yield from map(make, numbers)
            return
        loader: DataLoader[Batch | _Failure] = DataLoader(
            _Steps(make),
            sampler=numbers,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self.config.workers,
            prefetch_factor=self.config.prefetch if self.config.workers else None,
            pin_memory=self.config.pin_memory,
            generator=torch.Generator(),  # the workers' seed, of no use here, is else drawn from the run's own numbers
        )
        for loaded in loader:
            if isinstance(loaded, _Failure):
                raise RiceError(loaded.message)
            yield loaded


class _Failure(NamedTuple):
    """A RiceError on its way out of a worker, where an exception would arrive as a traceback."""

    message: str


class _Steps(Dataset["Batch | _Failure"]):
    """Batches by number, for the DataLoader, which keeps their order whichever worker is first."""

    def __init__(self, make: Callable[[int], Batch]) -> None:
        self._make = make

    def __getitem__(self, number: int) -> "Batch | _Failure":
        try:
            return self._make(number)
        except RiceError as error:
            return _Failure(str(error))


def _most_ranks(batch: int, world: int) -> int:
    """The largest number up to `world` that divides the batch."""
    return next(ranks for ranks in range(world, 0, -1) if batch % ranks == 0)


def _unchanged(loaded: Any) -> Any:
    """The default would turn tuples into lists."""
    return loaded


def _agreed(located: Sequence[tuple[str, DatasetInfo]], field: str) -> int:
    """The number of classes in all folders; 0 in a folder means that it has no such labels."""
    counts = {getattr(info, field): location for location, info in located}
    counts.pop(0, None)
    if len(counts) > 1:
        told = ", ".join(f"{count} in {location}" for count, location in counts.items())
        raise RiceError(f"expected one number of {field} in all folders, got {told}; relabel them together")
    return next(iter(counts), 0)
