"""The detection probe (paper, section 4.3): Cascade Mask R-CNN on a frozen encoder, on COCO, LVIS or Roboflow100."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from probes.detection.config import DetectionConfig
from probes.protocol import Metric, NotThisLayoutError, Probe, Resampling
from rice.errors import RiceError
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.coco import CocoPair
    from probes.detection.evaluators import Evaluator
    from probes.detection.run import Judged, Outcome, Training
    from probes.detection.suites import Suite
    from probes.heads import Tower
    from rice.data.coco import CocoSplit
    from rice.encoders.base import Encoder

_NAMES = {"bbox": "box", "segm": "mask"}
_SIZES = {"s": "small", "m": "medium", "l": "large"}
_GROUPS = {"r": "rare", "c": "common", "f": "frequent"}


class DetectionProbe(Probe):
    """Frozen patch tokens -> pyramid -> Cascade Mask R-CNN, judged by average precision of boxes and masks.

    The data root is a dataset in COCO's layout or one of its relatives, or a suite of many (Roboflow100, RF100-VL):
    then every dataset has its own training, and the metrics are the means of the domains and their mean.
    `items.parquet`: per test image what it takes to compute AP on any set of images (`probes.detection.bootstrap`); of
    a suite a row per dataset.
    """

    name, version, Config = "detection", 1, DetectionConfig
    config: DetectionConfig

    def inspect(self) -> str:
        """One line on what would train and test. Errors: RiceError; its kind tells foreign from broken."""
        from probes.coco import describe

        if self.suite is not None:
            suite = self.suite
            for dataset in self.datasets.values():
                dataset.inspect()
            missing = f"; {len(suite.missing)} are missing" if suite.missing else ""
            unknown = f"; not of it, and left out: {', '.join(suite.unknown)}" if suite.unknown else ""
            return f"{suite.name}: {len(suite.datasets)} datasets of {len(suite.domains)} domains{missing}{unknown}"
        train, test = self.splits
        self._check(train, test)
        masks = "boxes and masks" if train.has_masks else "boxes"
        kind = ", federated" if train.federated else ""
        return f"trains on {describe(train)}; tests on {describe(test)}; {len(train.categories)} classes, {masks}{kind}"

    def fingerprint(self) -> str:
        """See `CocoPair`; of a suite, of all its datasets."""
        if self.suite is None:
            return self._pair.fingerprint
        from rice.files import sha256_json

        return sha256_json([self.suite.name, {name: dataset.fingerprint() for name, dataset in self.datasets.items()}])

    def count_images(self) -> int:
        """Pictures that pass through the encoder: every epoch again, where they are not cached."""
        from probes.detection.data import training_set

        count = 0
        for dataset in self.datasets.values():
            train, test = dataset.splits
            shown = training_set(train, self.config)
            twice = 2 if self.config.flip else 1
            trained = (
                len(shown.images) * twice if self.config.cache_gb else shown.updates(self.config) * self.config.batch
            )
            count += trained + min(len(test.images), self.config.test_images or len(test.images))
        return count

    def decode_all(self, progress: Progress) -> None:
        """Read every picture and mask. Errors: RiceError naming the first that is damaged."""
        from probes.coco import decode_all

        decode_all([split for dataset in self.datasets.values() for split in dataset.splits], _masks, progress)

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterator[Metric]:
        """Yield the average precisions of one seed. See `probes.protocol.Probe`.

        The seed sets initialisation, order, mirroring and jitter, and which anchors and proposals are drawn.
        """
        if self.suite is not None:
            yield from self._run_suite(self.suite, encoder, seed, workdir, progress)
            return
        outcome = self._train(encoder, seed, workdir, progress)
        from probes.detection.bootstrap import write_items

        write_items(workdir / "items.parquet", outcome.judged["bbox"].items)
        for kind, judged in outcome.judged.items():
            yield from self._metrics(_NAMES[kind], judged)

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`: AP, AP50, AP75 (LVIS: APr, APc, APf) of boxes, or a suite's means."""
        from probes.detection.resample import resampling

        return resampling(items)

    def training(
        self, tower: "Tower", *, seed: int, folder: Path, features: Path, evaluator: "Evaluator" = "faster"
    ) -> "Training":
        """One training on this dataset, which is no suite, that writes under `folder`; see `Training`."""
        from probes.detection.run import Training

        train, test = self.splits
        self._check(train, test)
        return Training(
            tower=tower,
            train=train,
            test=test,
            size=self.input_size(tower.encoder.spec, None),
            config=self.config,
            seed=seed,
            folder=folder,
            features=features,
            evaluator=evaluator,
        )

    def _train(self, encoder: "Encoder", seed: int, workdir: Path, progress: Progress) -> "Outcome":
        """One training under `workdir`; cached features are shared between seeds."""
        from probes.cache import material_key
        from probes.heads import Tower
        from rice.train.world import World

        shared = workdir / material_key(encoder, self, "detection")[:20]
        training = self.training(Tower.of(encoder), seed=seed, folder=shared / f"seed{seed}", features=shared)
        return training.run(progress, World(0, 1, encoder.device))

    def _run_suite(
        self, suite: "Suite", encoder: "Encoder", seed: int, workdir: Path, progress: Progress
    ) -> Iterator[Metric]:
        """A training per dataset, each kept once it is done; then the means of the domains, and theirs."""
        import pandas as pd

        from probes.detection.suites import AVERAGE, domain_means
        from rice.files import atomic_write, read_json, write_json

        scores: dict[str, float] = {}
        for dataset in suite.datasets:
            done = workdir / "suite" / f"{dataset.name}-seed{seed}.json"
            if not done.exists():
                outcome = self.datasets[dataset.name]._train(encoder, seed, workdir / dataset.name, progress)
                write_json(done, outcome.judged["bbox"].scores.values)
            scores[dataset.name] = read_json(done)["AP"]
        rows = [{"id": d.name, "domain": d.domain, "box AP": scores[d.name]} for d in suite.datasets]
        with atomic_write(workdir / "items.parquet", "wb") as file:
            pd.DataFrame(rows).to_parquet(file)
        means = domain_means(scores, suite)
        for domain, value in means.items():
            count = len(means) - 1 if domain == AVERAGE else sum(d.domain == domain for d in suite.datasets)
            what = f"unweighted mean of {count} {'domains' if domain == AVERAGE else 'datasets'}"
            whole = f"; {len(suite.missing)} datasets of {suite.name} are missing" if suite.missing else ""
            yield Metric(
                name=f"{domain} AP",
                value=value,
                n=count,
                unit="fraction",
                higher_is_better=True,
                split="test",
                protocol=f"{what}{whole}; box AP; {self.protocol()}",
            )

    def _metrics(self, kind: str, judged: "Judged") -> Iterator[Metric]:
        """AP first; what the truth has nothing of (no small object, say) is left out."""
        scores, errors = judged.scores, judged.standard_errors()
        rules = "LVIS's federated protocol" if scores.lvis else "COCO's protocol"
        for key, value in scores.values.items():
            if value < 0 or not key.startswith("AP"):
                continue
            yield Metric(
                name=f"{kind} {key}",
                value=value,
                n=scores.images,
                unit="fraction",
                higher_is_better=True,
                split=self.splits[1].name,
                stderr=errors.get(key),
                protocol=f"{_meaning(key)} of {kind}es, {rules} ({scores.evaluator}); {self.protocol()}".replace(
                    "maskes", "masks"
                ),
            )

    def protocol(self) -> str:
        """How the detector is trained, in words."""
        config, heads = self.config, self.config.heads
        low, high = config.jitter
        scale = "fitted into the square" if low == high == 1 else f"scaled by {low:g} to {high:g}"
        steps = ", ".join(f"{share:.3g}" for share in config.milestones)
        rate = f"a tenth after {steps} of it" if config.milestones else "cosine"
        limit = "" if config.train_images is None else f", at most {config.train_images} train images"
        return (
            f"frozen tokens, LayerNorm, pyramid 4x to 0.25x, Cascade Mask R-CNN of {heads.channels} channels and "
            f"{heads.roi_samples} regions; {config.epochs} epochs of batches of {config.batch}, "
            f"AdamW {config.learning_rate:g}, {rate}; pictures {scale}, mirrored with {config.flip:g}{limit}; "
            "the last step is judged"
        )

    def _check(self, train: "CocoSplit", test: "CocoSplit") -> None:
        """Errors: RiceError where nothing can be learnt or judged; foreign where there are no boxes at all."""
        from probes.detection.data import training_set

        if not any(image.annotations for image in train.images):
            raise NotThisLayoutError(f"{train.files.annotations}: expected annotated boxes, found none")
        training_set(train, self.config)
        if not any(not a.iscrowd for image in test.images for a in image.annotations):
            raise RiceError(f"{test.files.annotations}: expected instances to be judged on, found none")

    @cached_property
    def suite(self) -> "Suite | None":
        """The suite that the data root is, if it is one."""
        from probes.detection.suites import find_suite

        try:
            return find_suite(self.data, name=self.config.suite)
        except RiceError as error:
            raise NotThisLayoutError(str(error)) if not self.data.is_dir() else error from error

    @cached_property
    def datasets(self) -> "dict[str, DetectionProbe]":
        """The suite's datasets by name, a probe each; else this one, whose name is empty."""
        if self.suite is None:
            return {"": self}
        return {dataset.name: DetectionProbe(self.config, dataset.path) for dataset in self.suite.datasets}

    @property
    def splits(self) -> "tuple[CocoSplit, CocoSplit]":
        """Train and test, checked; parsed once for all seeds."""
        return self._pair.splits

    @cached_property
    def _pair(self) -> "CocoPair":
        from probes.coco import CocoPair

        return CocoPair(self.data, self.config.train_split, self.config.test_split)


def _masks(split: "CocoSplit", index: int) -> None:
    """Decode the masks of an image; boxes without one are no fault here."""
    for annotation in split.images[index].annotations:
        if annotation.segmentation is not None:
            split.mask(annotation)


def _meaning(key: str) -> str:
    """'AP50' -> 'average precision at IoU 0.5'."""
    rest = key.removeprefix("AP")
    if rest in ("50", "75"):
        return f"average precision at IoU 0.{rest}"
    group = _SIZES.get(rest) or _GROUPS.get(rest)
    return "average precision, mean over IoU 0.5 to 0.95" + (f", {group} ones" if group else "")
