"""A sweep's datasets: a folder on disk, or a generated world that the first cell in need of it writes under --out."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from probes.protocol import CountsImages, Probe
from probes.sweeps.overrides import flags, parse_config
from probes.sweeps.sweepfile import DatasetEntry
from rice.errors import RiceError
from rice.files import leftovers
from rice.progress import Progress

if TYPE_CHECKING:
    from rice.data.world import WorldConfig


def dataset_fingerprint(dataset: DatasetEntry, probe: Probe) -> str:
    """What the probe reads of a folder; for a generated world its settings, which decide every byte of it."""
    return probe.fingerprint() if dataset.world is None else _world(dataset).fingerprint()


def dataset_root(dataset: DatasetEntry, out: Path, progress: Progress) -> Path:
    """The folder for the probe. A world is written whole or not at all, once, whoever asks first."""
    if dataset.path is not None:
        return dataset.path
    from rice.data.world import materialise

    config = _world(dataset)
    root = out / "worlds" / config.fingerprint()
    lock = out / "locks" / f"world-{config.fingerprint()}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        for leftover in leftovers(root):  # we hold the lock
            shutil.rmtree(leftover)
        return materialise(config, root, progress)


def check_dataset(dataset: DatasetEntry, probe: Probe) -> None:
    """Errors: RiceError, naming the dataset, where its folder is broken or not for the probe. Worlds are never."""
    if dataset.world is not None:
        return
    try:
        probe.inspect()
    except RiceError as error:
        raise RiceError(f"dataset {dataset.name}: {error}") from error


def count_images(dataset: DatasetEntry, probe: Probe) -> int | None:
    """How many pictures pass through the encoder, at most; None where it is not known beforehand."""
    if dataset.world is not None:
        config = _world(dataset)
        return (config.train + config.test) * (config.words[1] if config.layout == "icdar" else 1)  # a crop a word
    return probe.count_images() if isinstance(probe, CountsImages) else None


def _world(dataset: DatasetEntry) -> "WorldConfig":
    from rice.data.world import WorldConfig

    return parse_config(WorldConfig, flags(dataset.world or {}), f"dataset {dataset.name}")
