"""Hours of mixed work in one process: do memory, open files, threads, children or temporary files grow?

    python benchmarks/soak.py [--minutes 120] [--json FILE]

A round, whose every output is deleted after it:
    sweep     `rice sweep` of a small encoder that comes with the package x dense, knn on worlds generated anew; a
              process a cell, as always
    cells     the same cells of a second encoder, inside this process
    track     `rice track eval` of a small tracker (trained once, before the first round) on generated clips
    pca       `rice pca` of a generated clip: a video is encoded, a strip drawn
    tables    `rice tables` of the stored results in all four formats, and `rice compare`
    page      `rice report` with cards and figures

After each round, garbage collected: RSS of this process in MiB, and what of it is anonymous, no library's file; its
file descriptors, threads and children, Python's objects, and files left in the temporary folder, which is the process's
own. Results and tracks must be the first round's, number for number. The first half warms up; over the second a line is
fitted. Flat: RSS and anonymous memory rise by less than 1 MiB in ten rounds; descriptors, threads, children and files
left are never more than in the first half.
Exits 1 where anything grows or differs, or where fewer than four rounds tell nothing. The JSON is written after every
round, so that a soak that is stopped is told.
"""

import contextlib
import dataclasses
import gc
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import tyro

from benchmarks.timing import begin
from rice.files import write_json

LIMIT_MIB_IN_TEN = 1.0
_MEMORY = ("rss_mib", "anon_mib")
_COUNTS = ("descriptors", "threads", "children", "left_files")
_APART, _HERE = "rice-mini", "clip-mini"
_TRACKER, _CLIPS, _FRAMES = "tracker", "clips", "frames"
_SWEEP = """name: soak
encoders: [ENCODER]
datasets:
  scenes: {world: {kind: scenes, size: 96, objects: [2, 4], train: 24, test: 12, easy: true}}
  crops: {world: {kind: crops, size: 96, train: 48, test: 24, easy: true}}
probes:
  - {probe: dense, data: [scenes], updates: 10}
  - {probe: knn, data: [crops], pool: mean}
seeds: 2
"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long.

    Args:
        minutes: No round begins later than this.
        rounds: At least this many, whatever the time.
        work: Where to make the folder for everything it writes, deleted in the end; made where absent. Default: in the
            temporary folder.
        json: Write the figures here, too.
    """

    minutes: float = 120.0
    rounds: int = 6
    work: Path | None = None
    json: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Places:
    """`fixed` is prepared once, `round` made anew for each, `temporary` what this process and its children take for
    temporary files."""

    fixed: Path
    round: Path
    temporary: Path

    @property
    def out(self) -> Path:
        """The round's sweep."""
        return self.round / "sweep"


def main(config: Config) -> int:
    """Soak; 0 where nothing grew and every round gave the same."""
    report = begin(config)
    if config.work is not None:
        config.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=config.work))
    print(f"in {folder}, which stays where a part fails")
    with _own_temporary(folder / "temporary"), (folder / "log").open("w") as log:
        places = Places(fixed=folder / "fixed", round=folder / "round", temporary=folder / "temporary")
        with _quiet(log):
            prepare(places)
        report |= soak(config, places, log, report)
    shutil.rmtree(folder)
    print(_table(report["rounds"]))
    for line in report["said"]:
        print(f"  {line}")
    return 0 if report["flat"] else 1


def soak(config: Config, places: Places, log: Any, report: Mapping[str, Any]) -> dict[str, Any]:
    """The rounds, and what they say."""
    rounds: list[dict[str, Any]] = []
    verdict: dict[str, Any] = {}
    ends = time.monotonic() + 60 * config.minutes
    while len(rounds) < config.rounds or time.monotonic() < ends:
        places.round.mkdir()
        seconds: dict[str, float] = {}
        for name, part in PARTS.items():
            began = time.perf_counter()
            with _quiet(log):
                part(places)
            seconds[name] = time.perf_counter() - began
        rounds.append({"seconds": seconds, "numbers": numbers(places)})
        shutil.rmtree(places.round)
        rounds[-1] |= measure(places.temporary)
        verdict = judged(rounds)
        if config.json is not None:
            write_json(config.json, {**report, **verdict, "rounds": rounds})
        print(_row(len(rounds), rounds[-1]), flush=True)
    return verdict | {"rounds": rounds}


def prepare(places: Places) -> None:
    """Clips in LaSOT's layout, a tracker that saw a few of them, and frames to show."""
    from PIL import Image

    from rice.data.world import ClipConfig, Part, WorldConfig, draw_clip, materialise
    from tracking.commands import train
    from tracking.recipe import mini

    world = WorldConfig(kind="clips", layout="lasot", size=96, objects=(1, 1), frames=12, train=6, test=4)
    materialise(world, places.fixed / _CLIPS)
    recipe = dataclasses.replace(mini(), epoch_pairs=48)
    data = places.fixed / _CLIPS
    train(recipe, encoder="rice-mini", data=data, out=places.fixed / _TRACKER, device="cpu")
    (places.fixed / _FRAMES).mkdir()
    clip = draw_clip(ClipConfig(height=96, width=96, frames=8), Part.TEST, 0, 0)
    for index, frame in enumerate(clip):
        Image.fromarray(frame.image).save(places.fixed / _FRAMES / f"{index:05d}.png")
    for name in (_APART, _HERE):
        (places.fixed / f"{name}.yaml").write_text(_SWEEP.replace("ENCODER", name))


def sweep(places: Places) -> None:
    """Two cells in two processes."""
    from probes.sweeps.command import sweep

    if sweep(str(places.fixed / f"{_APART}.yaml"), out=places.out, jobs=2, gpus="none"):
        raise SystemExit(f"cells of the sweep failed; their logs: {places.out / 'logs'}")


def cells(places: Places) -> None:
    """Two cells here, with the worlds that the sweep wrote, stored beside its results."""
    from probes.sweeps.cell import run
    from probes.sweeps.job import job_of
    from probes.sweeps.plan import plan
    from probes.sweeps.sweepfile import read_sweep
    from rice.progress import SilentProgress

    for cell in plan(read_sweep(str(places.fixed / f"{_HERE}.yaml"))):
        run(job_of(cell, places.out, redo={}, device="cpu"), SilentProgress())


def track(places: Places) -> None:
    """The held-out clips followed and judged."""
    from tracking.commands import evaluate

    model = places.fixed / _TRACKER / "last.safetensors"
    evaluate(model, data=places.fixed / _CLIPS, out=places.round / "track", device="cpu")


def show(places: Places) -> None:
    """Tokens as colours."""
    from probes.visual.pca.command import pca

    pca((places.fixed / _FRAMES,), encoder="rice-mini", out=places.round / "pca", size=96, device="cpu")


def tables(places: Places) -> None:
    """Every format, and the comparison."""
    from reports.compare.command import compare
    from reports.grid import SUFFIXES
    from reports.tables_command import tables

    for form, suffix in SUFFIXES.items():
        tables(places.out, format=form, out=places.round / f"table{suffix}")
    compare(places.out, out=places.round / "compare.md", resamples=200)


def page(places: Places) -> None:
    """The report."""
    from reports.page.command import report

    report((places.out,), out=places.round / "site", figures=(places.round / "pca",), card=True)


PARTS: Mapping[str, Callable[[Places], None]] = {
    "sweep": sweep,
    "cells": cells,
    "track": track,
    "pca": show,
    "tables": tables,
    "page": page,
}


def numbers(places: Places) -> str:
    """A hash of every score and track of the round. Seconds and rates are none of it."""
    from probes.results import documents

    stored = [document["metrics"] for document in documents(places.out)]
    tracks = sorted((places.round / "track" / "tracks").rglob("*.txt"))
    if not stored or not tracks:
        raise SystemExit(f"a round gave {len(stored)} results and {len(tracks)} tracks; expected some of both")
    found = hashlib.sha256(repr(stored).encode())
    for path in tracks:
        found.update(path.read_bytes())
    return found.hexdigest()


def measure(temporary: Path) -> dict[str, float]:
    """What this process holds now."""
    gc.collect()
    process = psutil.Process()
    memory = process.memory_info()
    left = [path for path in temporary.rglob("*") if path.is_file()]
    return {
        "rss_mib": memory.rss / 2**20,
        "anon_mib": (memory.rss - memory.shared) / 2**20,  # USS changes with other processes that map the libraries
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
        "objects": len(gc.get_objects()),
        "left_files": len(left),
        "left_bytes": sum(path.stat().st_size for path in left),
    }


def judged(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """MiB in ten rounds over the second half, what grew, and lines that say so. flat: None of fewer than 4 rounds."""
    half = len(rounds) // 2
    first, second = rounds[:half], rounds[half:]
    grew: list[str] = []
    said: list[str] = []
    rise: dict[str, float] = {}
    for name in (*_MEMORY, "objects"):
        values = np.array([one[name] for one in second], dtype=np.float64)
        rise[name] = 10 * float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0
    if half >= 2:
        grew += [name for name in _MEMORY if rise[name] >= LIMIT_MIB_IN_TEN]
        for name in _COUNTS:
            before, after = (max(one[name] for one in part) for part in (first, second))
            said.append(f"{name}: at most {before:.0f} in the first half, {after:.0f} in the second")
            grew += [name] if after > before else []
    grew += ["other numbers than the first round's"] if len({one["numbers"] for one in rounds}) > 1 else []
    said += [f"{name}: {rise[name]:+.2f} in ten rounds, second half" for name in rise]
    too_few = half < 2 and not grew
    said.append(f"NOT FLAT: {', '.join(grew)}" if grew else "too few rounds to tell" if too_few else "flat")
    return {"flat": None if too_few else not grew, "grew": grew, "rise_in_ten": rise, "said": said}


@contextlib.contextmanager
def _own_temporary(folder: Path) -> Iterator[None]:
    """`folder` for temporary files, of the children too."""
    folder.mkdir()
    before, known = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    try:
        yield
    finally:
        tempfile.tempdir = known
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


@contextlib.contextmanager
def _quiet(log: Any) -> Iterator[None]:
    """What commands print goes to the log of this round's part alone: hours of it would grow on disk."""
    log.seek(0)
    log.truncate()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


_COLUMNS = (*_MEMORY, *_COUNTS, "objects")


def _row(number: int, one: Mapping[str, Any]) -> str:
    values = "".join(f"{one[name]:>12,.1f}" if name in _MEMORY else f"{one[name]:>12,d}" for name in _COLUMNS)
    return f"{number:>6}{sum(one['seconds'].values()):>8.1f}{values}"


def _table(rounds: Sequence[Mapping[str, Any]]) -> str:
    """At most 24 rounds, evenly chosen, with the last."""
    step = max(1, len(rounds) // 23)
    chosen = sorted({*range(0, len(rounds), step), len(rounds) - 1})
    head = f"{'round':>6}{'s':>8}" + "".join(f"{name:>12}" for name in _COLUMNS)
    return "\n".join([head, *(_row(index + 1, rounds[index]) for index in chosen)])


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
