"""What the benchmarks share: alternating rounds in one process, their spread, and the report with its machine."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probes.provenance import device_name


def alternate(runs: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of every run, all work on the device included: each round has all of them, after one that does not count.

    Each goes first in turn, so that none gains by its place.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name in order:
            wait(device)
            began = time.perf_counter()
            runs[name]()
            wait(device)
            seconds[name].append(time.perf_counter() - began)
        order = [*order[1:], order[0]]
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], over: str, under: str) -> dict[str, float]:
    """Spread of `over` / `under`, round by round: what both met in a round cancels."""
    return spread([a / b for a, b in zip(seconds[over], seconds[under], strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def begin(config: Any, device: str = "cpu") -> dict[str, Any]:
    """A report that holds the configuration and what a figure must be read with: the machine, which is printed."""
    import torch

    machine = {"machine": device_name(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{machine['machine']}, {machine['threads']} thread(s), torch {machine['torch']}")
    places = {key: None for key, value in asdict(config).items() if isinstance(value, Path)}
    return {"config": asdict(config) | places, **machine}


def finish(report: Mapping[str, Any], file: Path | None, *, holds: bool) -> int:
    """Write the report where one is asked for; the exit status."""
    if file is not None:
        file.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if holds else 1


def process_mib(name: str) -> float:
    """VmRSS: memory of this process; VmHWM: its peak, which getrusage would count from before exec. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def shown(values: Mapping[str, float], form: str = ".3f") -> str:
    """'0.592 (0.580 to 0.611)'."""
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"
