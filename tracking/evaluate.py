"""Follow every clip of a test set, many at once, and keep each track in a file as soon as it is whole.

Shapes: N frames, K clips that are followed together. Boxes are x, y, width, height in pixels of the frames; in files in
the benchmark's own coordinates.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.cache import encoder_key, weights_digest
from probes.protocol import identity
from rice.data.video import Image_HW3
from rice.errors import RiceError
from rice.files import atomic_write, read_json, remove_folder, remove_leftovers, safe_join, sha256_json, write_json
from rice.progress import Progress
from rice.train.world import World
from tracking.layouts.text import number_lines
from tracking.sequence import Boxes_N4
from tracking.sequence import Sequence as Clip
from tracking.tracker import Box, Found, Tracker

TRACKS, TIMES, STAMP = "tracks", "times", "tracks.json"

_DECIMALS = 4


@dataclass(frozen=True, eq=False)
class Track:
    """Where the target was found: boxes (N, 4), and the seconds that each frame took (N,), its share of those of all
    clips that were followed together, decoding not counted."""

    boxes: Boxes_N4
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class Store:
    """Tracks on disk: FOLDER/tracks/BENCHMARK/SEQUENCE.txt, a line x,y,w,h a frame in the benchmark's own coordinates,
    which `rice track score` reads; FOLDER/times/BENCHMARK/SEQUENCE.txt, seconds."""

    folder: Path

    def open(self, stamp: str) -> None:
        """Keep the tracks that were made under `stamp`, and remove others."""
        path = self.folder / STAMP
        if not path.exists() or read_json(path) != {"made by": stamp}:
            for old in (self.folder / TRACKS, self.folder / TIMES):
                if old.exists():
                    remove_folder(old)
            write_json(path, {"made by": stamp})

    def clear(self) -> None:
        """Remove what killed evaluations left half-written; nobody else may be at work."""
        folders = [path for kind in (TRACKS, TIMES) for path in (self.folder / kind).glob("*/") if path.is_dir()]
        remove_leftovers(self.folder, *folders)

    def has(self, clip: Clip) -> bool:
        """Whether this clip is done."""
        return self._path(TRACKS, clip).exists()

    def write(self, clip: Clip, track: Track) -> None:
        """Atomic; the boxes come last, so that a clip that has them is done."""
        boxes_N4 = track.boxes + np.array([clip.origin, clip.origin, 0, 0])
        for name, rows, decimals in ((TIMES, track.seconds[:, None], 8), (TRACKS, boxes_N4, _DECIMALS)):
            with atomic_write(self._path(name, clip)) as file:
                file.write(number_lines(rows.tolist(), decimals))

    def boxes(self, clip: Clip) -> Boxes_N4:
        """(N, 4) in the benchmark's own coordinates, as they are written."""
        return self._read(TRACKS, clip)

    def seconds(self, clip: Clip) -> NDArray[np.float64]:
        """(N,)."""
        return self._read(TIMES, clip)[:, 0]

    def _read(self, name: str, clip: Clip) -> NDArray[np.float64]:
        path = self._path(name, clip)
        try:
            values = np.loadtxt(path, delimiter=",", ndmin=2)
        except (OSError, ValueError) as error:
            raise RiceError(
                f"{path} is not as it was written ({error}); delete it, and run the command again"
            ) from error
        if len(values) != len(clip):
            raise RiceError(f"{path} has {len(values)} lines for {len(clip)} frames; delete it, and run again")
        return values

    def _path(self, name: str, clip: Clip) -> Path:
        return safe_join(self.folder / name / clip.benchmark, f"{clip.name}.txt")


def follow_all(
    tracker: Tracker, clips: Sequence[Clip], store: Store, *, at_once: int, progress: Progress, world: World
) -> None:
    """Write every clip's track to `store`; clips that are there already are left alone. Ranks share the work.

    Killed at any instant, a call with the same stamp goes on. Errors: RiceError naming a frame that cannot be read.
    """
    with world.leader_first():
        if world.leads:
            store.open(stamp_of(tracker, clips))
    longest_first = sorted(clips, key=len, reverse=True)  # so that no long one is left alone at the end
    mine = [clip for clip in longest_first[world.rank :: world.size] if not store.has(clip)]
    frames = sum(map(len, mine))
    steps = followed(tracker, mine, at_once, store.write)
    for _ in progress.track(steps, f"follow {len(mine)} of {len(clips)} clips", frames):
        pass
    with world.leader_first():  # nobody judges before all are done
        pass


def followed(
    tracker: Tracker, clips: Iterable[Clip], at_once: int, done: Callable[[Clip, Track], None]
) -> Iterator[None]:
    """Follow clips, `at_once` together, and hand each whole track to `done`; yields once a frame.

    A clip that ends leaves its place to the next. While a batch is computed every clip's next frame is decoded.
    """
    waiting = deque(clips)
    active: list[_Run] = []
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="follow") as pool:
        try:
            while waiting or active:
                joining = [_Run.start(waiting.popleft(), pool) for _ in range(min(at_once - len(active), len(waiting)))]
                if joining:
                    _begin(tracker, joining, pool)
                    active += joining
                else:
                    _step(tracker, active, pool)
                    joining = active
                yield from (None for _ in joining)
                for run in [run for run in active if run.ended]:
                    active.remove(run)
                    done(run.clip, run.track())
        finally:
            for run in active:
                run.next.cancel()


@dataclass(eq=False)
class _Run:
    """A clip that is being followed. `next`: its next frame, which is on its way; None at the end."""

    clip: Clip
    frames: Iterator[Image_HW3]
    next: "Future[Image_HW3 | None]"
    template: Tensor | None = None
    found: list[Found] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def start(cls, clip: Clip, pool: ThreadPoolExecutor) -> "_Run":
        """With its first frame on the way."""
        frames = clip.frames.stream()
        return cls(clip, frames, pool.submit(next, frames, None))

    @property
    def ended(self) -> bool:
        """Whether every frame is done."""
        return len(self.found) == len(self.clip)

    def take(self, pool: ThreadPoolExecutor) -> Image_HW3:
        """The next frame; the one after it is sent for. Errors: RiceError for a clip that ends early."""
        frame = self.next.result()
        if frame is None:
            raise RiceError(f"{self.clip.name}: expected {len(self.clip)} frames, found {len(self.found)}")
        if len(self.found) + 1 < len(self.clip):
            self.next = pool.submit(next, self.frames, None)
        return frame

    def track(self) -> Track:
        """What was found."""
        boxes = np.array([found.box for found in self.found], np.float64)
        return Track(boxes, np.array(self.seconds))


def _begin(tracker: Tracker, runs: Sequence[_Run], pool: ThreadPoolExecutor) -> None:
    frames = [run.take(pool) for run in runs]
    start = time.perf_counter()
    boxes: list[Box] = [tuple(run.clip.boxes[0].tolist()) for run in runs]
    templates_KZD = tracker.templates(frames, boxes, pool)
    share = (time.perf_counter() - start) / len(runs)
    for run, template, box in zip(runs, templates_KZD, boxes, strict=True):
        run.template = template
        run.found.append(Found(box, 1.0))
        run.seconds.append(share)


def _step(tracker: Tracker, runs: Sequence[_Run], pool: ThreadPoolExecutor) -> None:
    frames = [run.take(pool) for run in runs]
    start = time.perf_counter()
    templates_KZD = torch.stack([run.template for run in runs if run.template is not None])
    found = tracker.follow(frames, [run.found[-1].box for run in runs], templates_KZD, pool)
    share = (time.perf_counter() - start) / len(runs)
    for run, one in zip(runs, found, strict=True):
        run.found.append(one)
        run.seconds.append(share)


def stamp_of(tracker: Tracker, clips: Sequence[Clip]) -> str:
    """SHA-256 of all that tracks depend on: weights of encoder and head, geometry, and where the targets start."""
    config = tracker.config
    factors = [config.template_factor, config.search_factor, config.margin, config.amp, identity(config.heads)]
    starts = [[clip.benchmark, clip.name, len(clip), clip.boxes[0].tolist()] for clip in clips]
    encoder = encoder_key(tracker.encoder, tracker.sizes[1], "tracks")
    return sha256_json([encoder, weights_digest(tracker.head), list(tracker.sizes), factors, sorted(starts)])
