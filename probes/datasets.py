"""A sweep's datasets: a folder on disk, or a generated world that the first cell in need of it writes under --out."""

from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from probes.overrides import flags, parse_config
from probes.protocol import Probe
from probes.sweepfile import DatasetEntry

if TYPE_CHECKING:
    from rice.data.world import WorldConfig


def dataset_fingerprint(dataset: DatasetEntry, probe: Probe) -> str:
    """What the probe reads of a folder; for a generated world its settings, which decide every byte of it."""
    return probe.fingerprint() if dataset.world is None else _world(dataset).fingerprint()


def dataset_root(dataset: DatasetEntry, out: Path) -> Path:
    """The folder for the probe. A world is written whole or not at all, once, whoever asks first."""
    if dataset.path is not None:
        return dataset.path
    from rice.data.world import materialise

    config = _world(dataset)
    root = out / "worlds" / config.fingerprint()
    lock = out / "locks" / f"world-{config.fingerprint()}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if not root.is_dir():
            materialise(config, root)
    return root


def _world(dataset: DatasetEntry) -> "WorldConfig":
    from rice.data.world import WorldConfig

    return parse_config(WorldConfig, flags(dataset.world or {}), f"dataset {dataset.name}")
