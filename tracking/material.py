"""What there is to learn from and to be judged on below a data root.

The root is one benchmark (`tracking.layouts`), or a folder of several by their names: coco, got10k, lasot, trackingnet,
tnl2k; then the configuration says which of them train and which test.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.coco import CocoPair, by_hash
from probes.protocol import NotThisLayoutError
from rice.data.coco import fingerprint as coco_fingerprint
from rice.data.coco import open_split as open_coco
from rice.data.splits import NoDatasetError, SplitFiles, find_splits
from rice.files import sha256_json
from rice.progress import Progress
from tracking.config import TrackingConfig
from tracking.layouts import Benchmark, find_benchmark, fingerprint
from tracking.pairs import Clips, Source, Stills
from tracking.protocols import DEFAULT_PROTOCOL, TITLES, Protocol
from tracking.sequence import Sequence as Clip

COCO = "coco"


@dataclass(frozen=True)
class Place:
    """One split of one benchmark on disk. `benchmark`: None for COCO's layout."""

    path: Path
    benchmark: Benchmark | None
    split: str

    @property
    def name(self) -> str:
        """Of the benchmark."""
        return COCO if self.benchmark is None else self.benchmark.name

    def fingerprint(self) -> str:
        """SHA-256 that changes with the annotations and the number of frames."""
        if self.benchmark is None:
            return coco_fingerprint(find_splits(self.path)[self.split])
        return fingerprint(self.path, self.split, self.benchmark.name)


@dataclass(frozen=True)
class Places:
    """Where a configuration's training and test sets lie; nothing is read yet but names."""

    train: tuple[Place, ...]
    test: tuple[Place, ...]

    @classmethod
    def of(cls, root: Path, config: TrackingConfig) -> "Places":
        """Errors: NotThisLayoutError where the root holds no such benchmarks, or has none to learn from or to test on;
        RiceError for a split that cannot be read."""
        train = [_train(root / name) for name in config.train] or [_train(root)]
        test = [_test(root / name) for name in config.test] or [_test(root)]
        return cls(tuple(train), tuple(test))

    def fingerprint(self) -> str:
        """Of all that would be read."""
        return sha256_json([[p.name, p.split, p.fingerprint()] for p in (*self.train, *self.test)])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Clips to be judged by the benchmark's own protocol. `withheld`: only their first boxes are known."""

    benchmark: str
    split: str
    clips: Sequence[Clip]

    @property
    def protocol(self) -> Protocol:
        """The benchmark's official one."""
        return DEFAULT_PROTOCOL[self.benchmark]

    @property
    def title(self) -> str:
        """As papers write it."""
        return TITLES[self.benchmark]

    @property
    def withheld(self) -> bool:
        """Whether a server has the truth."""
        return all(clip.withheld and len(clip) > 1 for clip in self.clips)


@dataclass(frozen=True, eq=False)
class Material:
    """Training sources and test sets, checked. `excluded`: training clips that a test set has, too, by name."""

    sources: tuple[Source, ...]
    tests: tuple[HeldOut, ...]
    excluded: int

    @property
    def clips(self) -> list[Clip]:
        """Of all test sets."""
        return [clip for test in self.tests for clip in test.clips]


def open_material(places: Places, config: TrackingConfig, progress: Progress) -> Material:
    """Read every annotation. Errors: RiceError naming file and line; nothing to learn from."""
    tests = tuple(open_tests(places.test, config.test_sequences, progress))
    names = {clip.name for test in tests for clip in test.clips}
    sources: list[Source] = []
    excluded = 0
    for place in places.train:
        if place.benchmark is None:
            split = open_coco(place.path, place.split)
            sources.append(Stills.of(place.name, split, config, by_hash(split, config.train_sequences)))
            continue
        clips = place.benchmark.open(place.path, place.split, progress)
        kept = [clip for clip in clips if clip.name not in names]
        excluded += len(clips) - len(kept)
        sources.append(Clips.of(place.name, first_by_hash(kept, config.train_sequences), config))
    return Material(tuple(sources), tests, excluded)


def open_tests(places: Sequence[Place], limit: int | None, progress: Progress) -> Iterator[HeldOut]:
    """Test sets in order, of at most `limit` clips each."""
    for place in places:
        assert place.benchmark is not None
        clips = place.benchmark.open(place.path, place.split, progress)
        yield HeldOut(place.name, place.split, first_by_hash(clips, limit))


def first_by_hash(clips: Sequence[Clip], limit: int | None) -> list[Clip]:
    """At most `limit` clips, the first in the order of a hash of their names, in the benchmark's order."""
    if limit is None or len(clips) <= limit:
        return list(clips)
    chosen = sorted(clips, key=lambda clip: hashlib.sha256(clip.name.encode()).digest())[:limit]
    kept = {clip.name for clip in chosen}
    return [clip for clip in clips if clip.name in kept]


def place_to_judge(root: Path, *, benchmark: str | None = None, split: str | None = None) -> Place:
    """What to be judged on at `root`: its test split, or the split named. Errors: RiceError; see `find_benchmark`."""
    found = find_benchmark(root, benchmark)
    roles = found.role(root)
    if split is None and "test" not in roles:
        raise NotThisLayoutError(f"{root} has no split to be judged on; there are {', '.join(found.splits(root))}")
    return Place(root, found, split or roles["test"])


def _train(path: Path) -> Place:
    try:
        benchmark = find_benchmark(path)
    except NotThisLayoutError:
        if _still_splits(path):
            return Place(path, None, CocoPair(path, None, None).files()[0].name)
        raise
    roles = benchmark.role(path)
    if "train" not in roles:
        raise NotThisLayoutError(
            f"{path} has nothing to learn from: {benchmark.name} with {', '.join(benchmark.splits(path))}; name the "
            "benchmarks below the root that train (--train) and test (--test)"
        )
    return Place(path, benchmark, roles["train"])


def _test(path: Path) -> Place:
    try:
        return place_to_judge(path)
    except NotThisLayoutError as error:
        if _still_splits(path):
            still = f"{path} holds still pictures, in which nothing can be followed: it can only train"
            raise NotThisLayoutError(still) from error
        raise


def _still_splits(path: Path) -> dict[str, SplitFiles]:
    try:
        return find_splits(path)
    except NoDatasetError:
        return {}
