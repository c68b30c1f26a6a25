"""Tracking benchmarks as they lie on disk, all read into `tracking.sequence.Sequence`. Imports no torch."""

import hashlib
from pathlib import Path

from probes.protocol import NotThisLayoutError
from rice.errors import RiceError, nearest
from rice.files import sha256_file
from rice.progress import Progress, SilentProgress
from tracking.layouts.benchmark import Benchmark, Clip, Role, in_threads
from tracking.layouts.folder import Folder
from tracking.layouts.frames import names_in, pictures_among
from tracking.layouts.got10k import Got10k
from tracking.layouts.lasot import LaSOT
from tracking.layouts.tnl2k import TNL2K
from tracking.layouts.trackingnet import TrackingNet
from tracking.sequence import Sequence

__all__ = ["BENCHMARKS", "Benchmark", "Role", "find_benchmark", "fingerprint", "open_split"]

BENCHMARKS: tuple[Benchmark, ...] = (Got10k(), LaSOT(), TrackingNet(), TNL2K(), Folder())
"""In the order in which they are tried: `folder` takes what has no mark of its own."""


def find_benchmark(root: Path, name: str | None = None) -> Benchmark:
    """The layout of `root`, or the one called `name`.

    Errors: NotThisLayoutError saying what was looked for; RiceError for an unknown name.
    """
    if not root.is_dir():
        raise NotThisLayoutError(f"expected a folder of tracking data, found none at {root}")
    if name is not None:
        known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
        if name not in known:
            raise RiceError(f"unknown benchmark {name!r}.{nearest(name, known)} Known: {', '.join(known)}")
        if not known[name].splits(root):
            raise NotThisLayoutError(f"no {name} at {root}: expected {known[name].expects}")
        return known[name]
    found = next((benchmark for benchmark in BENCHMARKS if benchmark.recognises(root)), None)
    if found is None:
        looked_for = "; ".join(f"{benchmark.name}: {benchmark.expects}" for benchmark in BENCHMARKS)
        raise NotThisLayoutError(f"no tracking data in a known layout at {root}: expected one of {looked_for}")
    return found


def open_split(
    root: Path, split: str, *, benchmark: str | None = None, progress: Progress | None = None
) -> list[Sequence]:
    """Read and check one split. Errors: as `find_benchmark` and `Benchmark.open`."""
    return find_benchmark(root, benchmark).open(root, split, progress or SilentProgress())


def fingerprint(root: Path, split: str, benchmark: str | None = None) -> str:
    """SHA-256 over the sequences' names, their annotation files and the number of frames of each (a video's size).

    Opens no frame and parses no annotation. Errors: as `find_benchmark` and `Benchmark.clips`; RiceError for an
    annotation file or a folder of frames that is not there.
    """
    clips = find_benchmark(root, benchmark).clips(root, split)
    digest = hashlib.sha256()
    for stamp in in_threads(_stamp, clips, SilentProgress(), "fingerprint"):
        digest.update(stamp)
    return digest.hexdigest()


def _stamp(clip: Clip) -> bytes:
    try:
        files = [clip.truth, *(path for path in clip.labels if path.is_file())]
        hashes = [f"{path.name}\0{sha256_file(path)}" for path in files]
        video = clip.frames.stat().st_size if clip.frames.is_file() else None
    except OSError as error:
        raise RiceError(f"cannot read {error.filename}: {error.strerror or error}") from error
    count = video if video is not None else len(pictures_among(names_in(clip.frames)))
    return "\0".join([clip.name, *hashes, f"{count}\0"]).encode(errors="surrogateescape")
