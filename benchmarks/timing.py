"""What the benchmarks share: alternating rounds in one process, their spread, work in a process of its own with what it
took, and the report with its machine."""

import concurrent.futures
import contextlib
import io
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probes.provenance import device_name

Figures = dict[str, Any]


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


def apart(function: Callable[..., Figures], *arguments: Any) -> Figures:
    """What a function gives, from a process of its own, with what that took."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, function, *arguments).result()


def _measured(function: Callable[..., Figures], *arguments: Any) -> Figures:
    began, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        found = function(*arguments)
    took = {"cpu_s": time.process_time() - cpu, "seconds": time.perf_counter() - began}
    return took | {"peak_mib": process_mib("VmHWM:")} | found


class Stages(dict[str, float]):
    """Seconds of the processor by step."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Its time."""
        began = time.process_time()
        yield
        self[name] = time.process_time() - began


def whole_of(what: str, small: Figures, whole: Figures, by: str = "cpu_s", **others: Any) -> Figures:
    """A row of `sizes`: the whole, and how many times as long it takes as a tenth of it."""
    return {"what": what, **whole, "times": whole[by] / max(small[by], 1e-9), "tenth": small, **others}


def sizes(rows: Iterator[Figures], report: Figures, file: Path | None, *, judged: bool) -> int:
    """Print rows as they come, and write them with the machine's load (of a minute, as `uptime` says it).

    1 where a row is over its own `limits`, if they are judged, or `wrong`.
    """
    print(f"{'what':<44}{'cpu s':>9}{'clock s':>9}{'x':>7}{'peak MiB':>10}  most of it")
    kept, broken = [], []
    for row in rows:
        kept.append(row | {"load": os.getloadavg()[0]})
        print(_line(row), flush=True)
        limits = row.get("limits", {}) if judged else {}
        over = {name: most for name, most in limits.items() if row[name] > most}
        broken += [f"{row['what']}: {name} {row[name]:,.0f}, at most {most:,.0f}" for name, most in over.items()]
        broken += [f"{row['what']}: {row['wrong']}"] if row.get("wrong") else []
    print("\n".join(["", *(broken or ["every limit is kept"])]))
    return finish(report | {"rows": kept, "broken": broken}, file, holds=not broken)


def _line(row: Figures) -> str:
    stages = row.get("stages") or {}
    most = max(stages, key=stages.__getitem__, default="")
    told = [f"{most} {stages[most]:.1f} s"] if most else []
    told += [row["told"]] if "told" in row else []
    told += [f"{row['bytes']:,.0f} bytes"] if "bytes" in row else []
    told += [f"{row['held_mib']:,.1f} MiB stay"] if "held_mib" in row else []
    times = f"{row['times']:.1f}" if "times" in row else ""
    head = f"{row['what']:<44}{row['cpu_s']:>9.1f}{row['seconds']:>9.1f}{times:>7}{row['peak_mib']:>10,.0f}"
    return f"{head}  {'; '.join(told)}"
