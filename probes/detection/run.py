"""One training on one dataset, judged: what the probe, the command and a suite's many datasets all do."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from probes.detection.bootstrap import Items, items, standard_error
from probes.detection.checkpoint import DetectorFacts
from probes.detection.config import DetectionConfig
from probes.detection.evaluate import Result, detect_split
from probes.detection.evaluators import Evaluator
from probes.detection.material import Material, prepare
from probes.detection.model import Detector
from probes.detection.score import Inputs, IouType, Scores, judge
from probes.detection.score import prepare as prepare_scores
from probes.detection.train import detector_for, train_detector
from probes.heads import Tower, keep_heads
from probes.protocol import identity
from probes.watch import Run
from rice.data.coco import CocoSplit
from rice.files import read_json, write_json
from rice.progress import Progress
from rice.train.world import World

JUDGED = {"box AP": "boxes", "mask AP": "masks"}
"""What is shown of a training: names of scores, in percent -> their labels."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a detector's results are worth, for boxes or masks. `inputs`: what was judged."""

    scores: Scores
    inputs: Inputs

    @cached_property
    def items(self) -> Items:
        """Per image, for intervals; not needed for every evaluation on the way."""
        return items(self.inputs)

    def standard_errors(self) -> dict[str, float]:
        """Of AP, AP50, AP75 (LVIS: APr, APc, APf) over images, where they are known."""
        return {name: value for name, value in standard_error(self.items).items() if math.isfinite(value)}


def judge_results(
    test: CocoSplit, images: Sequence[int], results: Sequence[Result], *, masks: bool, evaluator: Evaluator = "faster"
) -> dict[IouType, Judged]:
    """Scores of boxes, and of masks where the detector has them and the truth does."""
    truth, ids = test.as_coco(), [test.images[index].id for index in images]
    kinds: list[IouType] = ["bbox", "segm"] if masks and test.has_masks else ["bbox"]
    judged: dict[IouType, Judged] = {}
    for kind in kinds:
        # A mask's size is its own area, as detectron2 has it, so its box must not come along.
        given = results if kind == "bbox" else [{k: v for k, v in r.items() if k != "bbox"} for r in results]
        inputs = prepare_scores(truth, given, iou=kind, lvis=test.federated, image_ids=ids)
        judged[kind] = Judged(scores=judge(inputs, evaluator), inputs=inputs)
    return judged


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The last step's detector on the test split."""

    detector: Detector
    results: list[Result]
    judged: dict[IouType, Judged]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training on a frozen encoder that writes under `folder`, and frozen features that are kept under `features`."""

    tower: Tower
    train: CocoSplit
    test: CocoSplit
    size: int
    config: DetectionConfig
    seed: int
    folder: Path
    features: Path
    evaluator: Evaluator = "faster"

    def run(self, progress: Progress, world: World) -> Outcome:
        """Train, judge, and leave the last and the best detector. Killed, it goes on from its checkpoint.

        Errors: RiceError for data that cannot train, or a checkpoint of another configuration.
        """
        with world.leader_first():  # which writes the cache, where one is asked for
            encoder = self.tower.encoder
            material = prepare(encoder, self.train, self.test, self.size, self.config, self.features, progress)
        detector = detector_for(material, self.seed)
        updates = material.train.updates(self.config)
        last: Outcome | None = None

        def evaluate(done: int) -> dict[str, float]:
            nonlocal last
            results = detect_split(material.test, detector, folder=self.folder, progress=progress, world=world)
            with world.leader_first():
                if not world.leads:
                    return {}
                last = self._judge(material, detector, results)
                scores = self._keep(material, last, done, updates)
            return {name: 100 * scores[name] for name in JUDGED if name in scores}

        every = self.config.evaluation_steps(updates)
        run = Run(seed=self.seed, folder=self.folder, progress=progress, world=world, evaluate=evaluate, every=every)
        train_detector(material, detector, run)
        return last or self._judge(material, detector, read_json(self.folder / "results.json"))

    def _judge(self, material: Material, detector: Detector, results: list[Result]) -> Outcome:
        masks, images = material.train.masks, material.test.images
        judged = judge_results(self.test, images, results, masks=masks, evaluator=self.evaluator)
        return Outcome(detector=detector, results=results, judged=judged)

    def _keep(self, material: Material, outcome: Outcome, done: int, updates: int) -> dict[str, float]:
        """Write the detector as it is, and keep it where it is the best so far. The scores by name."""
        scores = {
            f"{name} {key}": value
            for kind, name in (("bbox", "box"), ("segm", "mask"))
            if kind in outcome.judged
            for key, value in outcome.judged[kind].scores.values.items()
        }
        facts = DetectorFacts(
            **self.tower.facts(),
            size=self.size,
            categories=tuple((c.id, c.name) for c in material.train.split.categories),
            image_counts=outcome.detector.cascade.class_loss.image_counts,
            masks=material.train.masks,
            heads=dataclasses.asdict(self.config.heads),
            config=identity(self.config),
            seed=self.seed,
            done=done,
            updates=updates,
            scores=scores,
        )
        write_json(self.folder / "results.json", outcome.results)
        keep_heads(self.folder, outcome.detector, facts, lambda scores: scores["box AP"])
        return scores
