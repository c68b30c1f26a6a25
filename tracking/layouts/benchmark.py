"""What every layout gives, and what all of them check."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from rice.errors import RiceError, nearest
from rice.files import UnsafePathError, safe_join
from rice.progress import Progress
from tracking.layouts.frames import frame_size
from tracking.layouts.text import read_flags, read_names
from tracking.sequence import Boxes_N4, Levels_N, PictureFiles, Sequence, has_area

Role = Literal["train", "test"]

T = TypeVar("T")
R = TypeVar("R")

_WORKERS = min(32, 4 + (os.cpu_count() or 1))
"""More than processors: on network disks the time goes into waiting."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Where one sequence lies; nothing is read yet.

    frames: a folder of pictures or a video file. truth: the file of boxes. labels: other annotation files that are
    read if they are there.
    """

    name: str
    frames: Path
    truth: Path
    labels: tuple[Path, ...] = ()


class Benchmark(ABC):
    """One layout of tracking data on disk. `expects`: what it looks like, for messages; `judged`: the split that is
    judged on by custom."""

    name: str
    expects: str
    judged = "test"

    def recognises(self, root: Path) -> bool:
        """Whether `root` holds this layout rather than another one."""
        return bool(self.splits(root))

    @abstractmethod
    def splits(self, root: Path) -> tuple[str, ...]:
        """Names of the splits that are there."""

    def role(self, root: Path) -> dict[Role, str]:
        """Which split trains and which one tests, as far as they are there."""
        wanted: dict[Role, str] = {"train": "train", "test": self.judged}
        return {role: split for role, split in wanted.items() if split in self.splits(root)}

    @abstractmethod
    def clips(self, root: Path, split: str) -> list[Clip]:
        """Where the sequences of a split lie, in the benchmark's order. Errors: RiceError; as `open`, up to reading."""

    @abstractmethod
    def read(self, split: str, clip: Clip) -> Sequence:
        """One clip of a split, checked. Errors: see `open`."""

    def open(self, root: Path, split: str, progress: Progress) -> list[Sequence]:
        """Read and check a split.

        Errors: RiceError in one line naming the file, and the line where there is one: an unknown split or one
        without sequences, names that come twice or lead nowhere, annotations that do not fit the frames, frames that
        are missing or numbered otherwise, and outside training splits a first box that no tracker can start from.
        """
        return in_threads(partial(self.read, split), self.clips(root, split), progress, f"{self.name} {split}")


def require_split(benchmark: Benchmark, root: Path, split: str) -> None:
    """Errors: RiceError naming the splits that are there, unless `split` is one of them."""
    splits = benchmark.splits(root)
    if split not in splits:
        found = f"Found: {', '.join(splits)}" if splits else f"Expected {benchmark.expects}"
        raise RiceError(f"no split {split!r} of {benchmark.name} at {root}.{nearest(split, splits)} {found}")


def listed(path: Path, root: Path, places: Mapping[str, Path]) -> list[tuple[str, Path]]:
    """(name, folder) of the sequences that the file `path` lists; `places`: the folders that a scan of `root` found.

    Errors: RiceError with the line: a name that leaves `root`, one without a folder; and as `read_names`.
    """
    names = read_names(path)
    for name, line in names.items():
        if name in places:  # found by a scan, so that it cannot lead elsewhere
            continue
        try:
            safe_join(root, name)
        except UnsafePathError as error:
            raise RiceError(f"{path} line {line}: {error}") from error
        raise RiceError(f"{path} line {line}: there is no folder of the sequence {name!r} in {root}; get a whole copy")
    return [(name, places[name]) for name in names]


def unique(clips: Iterable[Clip]) -> list[Clip]:
    """Errors: RiceError naming two clips of the same name: results are filed under it."""
    found: dict[str, Clip] = {}
    for clip in clips:
        if clip.name in found:
            raise RiceError(f"{clip.truth}: {found[clip.name].truth} is called {clip.name!r} too; rename or remove one")
        found[clip.name] = clip
    return list(found.values())


def in_threads(function: Callable[[T], R], items: list[T], progress: Progress, description: str) -> list[R]:
    """`[function(item) for item in items]`; the first error, in order, ends it."""
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="clips") as pool:
        return list(progress.track(pool.map(function, items), description, total=len(items)))


def check_count(clip: Clip, boxes_N4: Boxes_N4, frames: int, *, first_only: bool = False, hint: str = "") -> None:
    """Errors: RiceError unless there are as many boxes as frames (or one, where `first_only`)."""
    if len(boxes_N4) == frames or (first_only and len(boxes_N4) == 1):
        return
    or_one = " or the first only" if first_only else ""
    raise RiceError(
        f"{clip.truth} has {len(boxes_N4)} boxes, expected one for each of the {frames} frames of {clip.frames}"
        f"{or_one}{hint or '; get a whole copy'}"
    )


def read_labels(path: Path, clip: Clip, frames: int, *, highest: int = 1) -> Levels_N:
    """(frames,) values of a file with one a frame. Errors: RiceError for another number of them; as `read_flags`."""
    values = read_flags(path, highest=highest)
    if len(values) != frames:
        raise RiceError(
            f"{path} has {len(values)} values, expected one for each of the {frames} frames of {clip.frames}"
        )
    return values


def check_start(clip: Clip, boxes_N4: Boxes_N4, frames: PictureFiles | tuple[int, int], *, origin: int = 0) -> None:
    """Whether a tracker can start from the first box (from 0). `frames`: the pictures, or their width, height.

    Errors: RiceError for a box that is not finite, without an area, or wholly outside its frame.
    """
    x, y, width, height = boxes_N4[0].tolist()
    stated = ", ".join(f"{value:g}" for value in (x + origin, y + origin, width, height))
    if not has_area(boxes_N4[:1])[0]:
        raise RiceError(f"{clip.truth} line 1: expected a box with an area for a tracker to start from, got {stated}")
    size = frame_size(frames.path(0)) if isinstance(frames, PictureFiles) else frames
    if size and not (-width < x < size[0] and -height < y < size[1]):
        raise RiceError(
            f"{clip.truth} line 1: the first box {stated} lies wholly outside its frame of {size[0]} x {size[1]} "
            f"pixels, whose top left corner is {origin}, {origin} here; does the file count from {1 - origin}, is it "
            "another clip's, or are the frames resized?"
        )
