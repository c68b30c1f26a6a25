"""Stores of results as the miniature's sweep leaves them, with made-up numbers."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stored_results import put

from reports.miniature.claims import NAMES
from reports.miniature.tables import MEASURES

LEVELS = {"rice": 60, "rice-noocr": 55, "mlcd": 40, "unicom": 38, "clip": 42, "oracle": 70, "random": 10}
"""Per cent of every measure, before what a seed adds."""
PROBES: dict[str, tuple[str, ...]] = {
    probe: tuple(metric for group in MEASURES.values() for one, metric in group if one == probe)
    for probe in dict.fromkeys(one for group in MEASURES.values() for one, _ in group)
}


def percent(arm: str, seed: int, metric: str) -> float:
    """Another one for each arm, seed and metric."""
    return LEVELS[arm] + len(metric) % 7 + (sum(map(ord, arm)) * (seed + 2) + len(metric) * 3) % 11 / 4


def put_arm(out: Path, name: str, values: Mapping[str, float], probe: str, **changes: Any) -> str:
    """Store an arm's result, values in percent; its key."""
    fractions = {metric: value / 100 for metric, value in values.items()}
    return put(out, name, fractions, **({"probe": probe, "dataset": f"{probe} data"} | changes))


def put_all(out: Path, arms: Iterable[str] = tuple(NAMES), seeds: int = 3, time: Iterable[str] = ()) -> Path:
    """Every measure of these arms for equal updates, and of those in `time` for equal time, half a point less."""
    for suffix, own, less in (("", arms, 0.0), (" time", time, 0.5)):
        for arm in own:
            for seed in range(seeds):
                for probe, metrics in PROBES.items():
                    values = {metric: percent(arm, seed, metric) - less for metric in metrics}
                    put_arm(out, f"{arm}{suffix} s{seed}", values, probe, trained=arm != "random")
    return out
