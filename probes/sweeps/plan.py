"""From a sweep to its cells: each encoder, dataset and config is looked at once. Imports no torch."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.protocol import Probe, identity, probe_class
from probes.results import Identity, result_path
from probes.sweeps.datasets import check_dataset, count_images, dataset_fingerprint
from probes.sweeps.overrides import flags, parse_config
from probes.sweeps.sweepfile import DatasetEntry, EncoderEntry, ProbeEntry, Sweep
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.files import sha256_file


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One encoder x probe x dataset with all its seeds: what one process computes.

    `words` are the flags of the probe's config; `tokens` and `gflops` are of one image's forward.
    """

    encoder: EncoderEntry
    probe: str
    words: tuple[str, ...]
    dataset: DatasetEntry
    identity: Identity
    tokens: int
    gflops: float | None
    seeds: tuple[int, ...]

    @functools.cached_property
    def key(self) -> str:
        """Names the cell's lock, log and work folder."""
        return self.identity.cell_key()


@dataclass(frozen=True, kw_only=True)
class Cell(Measurement):
    """A measurement as it is planned.

    `images` counts the pictures that pass through the encoder, None where the probe cannot say; `cache_gb` bounds what
    frozen features take on disk; `variant` tells it from other configs of the same probe on the same dataset. `check`
    raises RiceError where the dataset's folder is broken or not for the probe; cells of one probe and dataset share it.
    """

    spec: EncoderSpec
    cache_gb: float
    images: Callable[[], int | None]
    check: Callable[[], None]
    variant: str = ""

    @property
    def title(self) -> str:
        """What a person calls it: encoder, probe, dataset."""
        return f"{self.encoder.label} {self.probe} {self.dataset.name}{self.variant}"


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A probe with its config on a dataset, whatever the encoder."""

    entry: ProbeEntry
    words: tuple[str, ...]
    dataset: DatasetEntry
    probe: Probe
    config: dict[str, Any]
    cache_gb: float
    fingerprint: str
    images: Callable[[], int | None]
    check: Callable[[], None]


def plan(sweep: Sweep) -> list[Cell]:
    """All cells, an encoder's cells adjacent. Errors: RiceError for whatever is unknown, unusable or repeated."""
    tasks = [task for entry in sweep.probes for task in _tasks(entry, sweep)]
    named = list(zip(tasks, _variants(tasks), strict=True))
    cells = [cell for entry in sweep.encoders for cell in _cells(entry, named, sweep.seeds)]
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.key, cell)
        if other is not cell:
            raise RiceError(f"{other.title!r} and {cell.title!r} are the same measurement; remove one of them")
    return cells


def missing_seeds(out: Path, identity: Identity, seeds: Sequence[int], redo: Mapping[str, str]) -> list[int]:
    """The seeds without a result, or with one of `redo`: key -> SHA-256 of the file that --force found there.

    Not by its time: clocks are set, and a network disk has its own.
    """
    return [seed for seed in seeds if not _is_done(out, identity.result_key(seed), redo)]


def found_results(out: Path, cells: Sequence[Cell]) -> dict[str, str]:
    """What --force shall compute again: key -> SHA-256 of each result that is there."""
    keys = [cell.identity.result_key(seed) for cell in cells for seed in cell.seeds]
    return {key: sha256_file(path) for key in keys if (path := result_path(out, key)).exists()}


def _is_done(out: Path, key: str, redo: Mapping[str, str]) -> bool:
    path = result_path(out, key)
    return path.exists() and (key not in redo or sha256_file(path) != redo[key])


def _tasks(entry: ProbeEntry, sweep: Sweep) -> Iterator[_Task]:
    cls = probe_class(entry.probe)
    words = flags(entry.overrides)
    config: Any = parse_config(cls.Config, words, f"probe {entry.probe}")
    datasets = {dataset.name: dataset for dataset in sweep.datasets}
    for name in entry.data:
        dataset = datasets[name]
        probe = cls(config, dataset.path or Path(name))
        yield _Task(
            entry=entry,
            words=words,
            dataset=dataset,
            probe=probe,
            config=identity(config),
            cache_gb=getattr(config, "cache_gb", 0.0),  # a probe that keeps no features has no such setting
            fingerprint=dataset_fingerprint(dataset, probe),
            images=functools.cache(functools.partial(count_images, dataset, probe)),
            check=functools.cache(functools.partial(check_dataset, dataset, probe)),
        )


def _cells(entry: EncoderEntry, tasks: Sequence[tuple[_Task, str]], seeds: tuple[int, ...]) -> Iterator[Cell]:
    from rice.encoders.cost import cost
    from rice.encoders.identity import fingerprint
    from rice.encoders.load import describe

    spec = describe(entry.reference, entry.weights)
    weights = fingerprint(entry.reference, entry.weights)
    priced = functools.cache(functools.partial(cost, spec))
    for task, variant in tasks:
        size = task.probe.input_size(spec, entry.reference.size)
        spec.check_size(size, size)
        price = priced(size)
        yield Cell(
            encoder=entry,
            spec=spec,
            cache_gb=task.cache_gb,
            probe=task.entry.probe,
            words=task.words,
            dataset=task.dataset,
            identity=Identity(
                encoder_fingerprint=weights,
                size=size,
                layer=spec.layer,
                probe=task.entry.probe,
                protocol_version=task.probe.version,
                dataset_fingerprint=task.fingerprint,
                config=task.config,
            ),
            tokens=price.tokens,
            gflops=price.gflops,
            images=task.images,
            check=task.check,
            seeds=seeds,
            variant=variant,
        )


def _variants(tasks: Sequence[_Task]) -> list[str]:
    """Of each task the flags that tell it from others of its probe on its dataset: ' (--grid=matched)'."""
    shared: dict[tuple[str, str], set[str]] = {}
    for task in tasks:
        shared.setdefault((task.entry.probe, task.dataset.name), set(task.words)).intersection_update(task.words)
    own = [[word for word in task.words if word not in shared[task.entry.probe, task.dataset.name]] for task in tasks]
    return [f" ({' '.join(words)})" if words else "" for words in own]
