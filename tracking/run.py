"""One training on one data root, judged: what the probe and the command both do."""

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probes.heads import LAST, Tower, keep_heads
from probes.watch import Run
from rice.progress import Progress
from rice.train.world import World
from tracking.checkpoint import TrackerFacts
from tracking.config import TrackingConfig
from tracking.evaluate import TRACKS, Store, follow_all
from tracking.material import HeldOut, Material
from tracking.metrics import Truth
from tracking.pairs import Sampler
from tracking.protocols import Protocol
from tracking.score import Scores, judge
from tracking.sequence import Sequence as Clip
from tracking.submit import got10k_zip, trackingnet_zip
from tracking.tracker import Tracker, build_tracker
from tracking.train import train_head

HEADLINES = ("success", "ao")
"""The first score of a benchmark, by which trackers are compared."""


def judge_tracks(test: HeldOut, store: Store, protocol: Protocol | None = None) -> Scores | None:
    """Scores of the tracks that are stored; None where only first boxes are known, as those of a server's benchmark.

    Clips of one's own of which only the first box is known are followed, not judged. The boxes are read back as they
    were written, so that `rice track score` of the files says the same.
    """
    judged = [clip for clip in test.clips if not clip.withheld]
    if not judged:
        return None
    truths = {clip.name: truth_of(clip) for clip in judged}
    return judge(protocol or test.protocol, truths, {clip.name: store.boxes(clip) for clip in judged})


def truth_of(clip: Clip) -> Truth:
    """In the benchmark's own coordinates."""
    boxes = clip.boxes.copy()
    boxes[:, :2] += clip.origin
    return Truth(boxes=boxes, absent=clip.absent, cover=clip.cover, size=clip.size)


def write_submission(test: HeldOut, store: Store, folder: Path) -> Path | None:
    """The zip that the benchmark's server takes, where it has the truth. Errors: RiceError for an incomplete one."""
    expected = {clip.name: len(clip) for clip in test.clips}
    path = folder / f"submission-{test.benchmark}.zip"
    if not test.withheld:
        return None
    if test.benchmark == "got10k":
        got10k_zip(path, {clip.name: (store.boxes(clip), store.seconds(clip)) for clip in test.clips}, expected)
    elif test.benchmark == "trackingnet":
        trackingnet_zip(path, {clip.name: store.boxes(clip) for clip in test.clips}, expected)
    else:
        return None
    return path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The last step's tracker on the test sets; scores by benchmark, where they are judged here."""

    tracker: Tracker
    scores: Mapping[str, Scores]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training on a frozen encoder that writes under `folder`."""

    tower: Tower
    material: Material
    config: TrackingConfig
    seed: int
    folder: Path

    def run(self, progress: Progress, world: World) -> Outcome:
        """Train, judge, and leave the last and the best tracker. Killed, it goes on from its checkpoint.

        Errors: RiceError for data that cannot train, or a checkpoint of another configuration.
        """
        config = self.config
        tracker = build_tracker(self.tower.encoder, config, seed=self.seed)
        last: Outcome | None = None

        def evaluate(done: int) -> dict[str, float]:
            nonlocal last
            world.spread(tracker.head.buffers())  # the leader's running statistics, which are also the stored ones
            self._follow(tracker, progress, world)
            with world.leader_first():
                last = self._judge(tracker)
                return self._keep(last, done) if world.leads else {}

        sampler = Sampler(sources=self.material.sources, sizes=tracker.sizes, config=config, seed=self.seed)
        every = config.evaluation_steps(config.updates)
        run = Run(seed=self.seed, folder=self.folder, progress=progress, world=world, evaluate=evaluate, every=every)
        train_head(tracker.encoder, tracker.head, sampler, run)
        if last is None:  # resumed after the last step
            self._follow(tracker, progress, world)
            last = self._judge(tracker)
        return last

    @property
    def store(self) -> Store:
        """Where the tracks of the latest evaluation are."""
        return Store(self.folder)

    def _follow(self, tracker: Tracker, progress: Progress, world: World) -> None:
        follow_all(
            tracker, self.material.clips, self.store, at_once=self.config.at_once, progress=progress, world=world
        )

    def _judge(self, tracker: Tracker) -> Outcome:
        judged = {test.benchmark: judge_tracks(test, self.store) for test in self.material.tests}
        return Outcome(tracker=tracker, scores={name: scores for name, scores in judged.items() if scores is not None})

    def _keep(self, outcome: Outcome, done: int) -> dict[str, float]:
        """Write the tracker as it is, and keep it where it is the best so far. Its scores by benchmark and name."""
        scores = flat(outcome.scores)
        facts = TrackerFacts(
            **self.tower.facts(),
            sizes=outcome.tracker.sizes,
            config=dataclasses.asdict(self.config),
            seed=self.seed,
            done=done,
            updates=self.config.updates,
            scores=scores,
        )
        for test in self.material.tests:
            write_submission(test, self.store, self.folder)
        keep_heads(self.folder, outcome.tracker.head, facts, headline)
        return scores

    def keep(self, folder: Path) -> None:
        """Make `folder` what is worth keeping: the last tracker, its tracks, and zips for servers."""
        shutil.rmtree(folder, ignore_errors=True)  # another seed's
        folder.mkdir(parents=True)
        for path in (self.folder / LAST, *self.folder.glob("submission-*.zip")):
            shutil.copy2(path, folder)
        shutil.copytree(self.folder / TRACKS, folder / TRACKS)


def flat(scores: Mapping[str, Scores]) -> dict[str, float]:
    """{'lasot success': 64.1, ...}, percent."""
    return {f"{benchmark} {name}": v for benchmark, one in scores.items() for name, v in one.values.items()}


def headline(scores: Mapping[str, float]) -> float:
    """The mean over benchmarks of their first score, percent; 0 where a server has all truth."""
    found = [value for name, value in scores.items() if name.rpartition(" ")[2] in HEADLINES]
    return sum(found) / len(found) if found else 0.0
