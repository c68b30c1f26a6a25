"""The detection probe (paper, section 4.3): Cascade Mask R-CNN on a frozen encoder, on COCO, LVIS or Roboflow100."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from probes.detection.config import DetectionConfig
from probes.protocol import Metric, NotThisLayoutError, Resampling, identity
from rice.errors import RiceError
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.detection.run import Judged, Outcome
    from probes.detection.suites import Suite
    from rice.data.coco import CocoSplit, SplitFiles
    from rice.encoders.base import Encoder
    from rice.encoders.spec import EncoderSpec

_NAMES = {"bbox": "box", "segm": "mask"}
_SIZES = {"s": "small", "m": "medium", "l": "large"}
_GROUPS = {"r": "rare", "c": "common", "f": "frequent"}


class DetectionProbe:
    """Frozen patch tokens -> pyramid -> Cascade Mask R-CNN, judged by average precision of boxes and masks.

    The data root is a dataset in COCO's layout or one of its relatives, or a suite of many (Roboflow100, RF100-VL):
    then every dataset has its own training, and the metrics are the means of the domains and their mean.
    `items.parquet`: per test image what it takes to compute AP on any set of images (`probes.detection.bootstrap`); of
    a suite a row per dataset.
    """

    name: ClassVar[str] = "detection"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = DetectionConfig

    def __init__(self, config: DetectionConfig, data: Path) -> None:
        self.config = config
        self.data = data

    def inspect(self) -> str:
        """One line on what would train and test. Errors: RiceError; its kind tells foreign from broken."""
        from probes.coco import describe

        if self._suite is not None:
            suite = self._suite
            for dataset in suite.datasets:
                DetectionProbe(self.config, dataset.path).inspect()
            missing = f"; {len(suite.missing)} are missing" if suite.missing else ""
            return f"{suite.name}: {len(suite.datasets)} datasets of {len(suite.domains)} domains{missing}"
        train, test = self.splits
        self._check(train, test)
        masks = "boxes and masks" if train.has_masks else "boxes"
        kind = ", federated" if train.federated else ""
        return f"trains on {describe(train)}; tests on {describe(test)}; {len(train.categories)} classes, {masks}{kind}"

    def fingerprint(self) -> str:
        """SHA-256 over the annotations, and the names and sizes of the images, of all splits that would be read."""
        from rice.data.coco import fingerprint
        from rice.files import sha256_json

        if self._suite is not None:
            parts = {d.name: DetectionProbe(self.config, d.path).fingerprint() for d in self._suite.datasets}
            return sha256_json([self._suite.name, parts])
        return sha256_json([fingerprint(files) for files in self._files()])

    def count_images(self) -> int:
        """Pictures that pass through the encoder: every epoch again, where they are not cached."""
        if self._suite is not None:
            return sum(DetectionProbe(self.config, d.path).count_images() for d in self._suite.datasets)
        from probes.detection.data import training_set

        train, test = self.splits
        shown = training_set(train, self.config)
        tested = min(len(test.images), self.config.test_images or len(test.images))
        if self.config.cache_gb:
            return len(shown.images) * (2 if self.config.flip else 1) + tested
        return shown.updates(self.config) * self.config.batch + tested

    def decode_all(self, progress: Progress) -> None:
        """Read every picture and mask. Errors: RiceError naming the first that is damaged."""
        from probes.coco import decode_all

        if self._suite is not None:
            for dataset in self._suite.datasets:
                DetectionProbe(self.config, dataset.path).decode_all(progress)
        else:
            decode_all(self.splits, _masks, progress)

    def input_size(self, spec: "EncoderSpec", size: int | None) -> int:
        """`size`, else the encoder's own. Errors: RiceError when the encoder cannot."""
        edge = spec.native_size if size is None else size
        spec.check_size(edge, edge)
        return edge

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterator[Metric]:
        """Yield the average precisions of one seed. See `probes.protocol.Probe`.

        The seed sets initialisation, order, mirroring and jitter, and which anchors and proposals are drawn.
        """
        if self._suite is not None:
            yield from self._run_suite(self._suite, encoder, seed, workdir, progress)
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

    def _train(self, encoder: "Encoder", seed: int, workdir: Path, progress: Progress) -> "Outcome":
        """One training under `workdir`; cached features are shared between seeds."""
        from probes.cache import encoder_key
        from probes.detection.run import Training
        from rice.files import sha256_json
        from rice.train.world import World

        train, test = self.splits
        self._check(train, test)
        size = self.input_size(encoder.spec, None)
        weights = encoder_key(encoder, size, "detection")
        key = sha256_json([weights, train.fingerprint(), test.fingerprint(), identity(self.config)])[:20]
        training = Training(
            encoder=encoder,
            reference=encoder.spec.name,
            weights=encoder.weights,
            fingerprint=weights,
            train=train,
            test=test,
            size=size,
            config=self.config,
            seed=seed,
            folder=workdir / key / f"seed{seed}",
            features=workdir / key,
        )
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
                outcome = DetectionProbe(self.config, dataset.path)._train(
                    encoder, seed, workdir / dataset.name, progress
                )
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
    def _suite(self) -> "Suite | None":
        from probes.detection.suites import find_suite

        try:
            return find_suite(self.data, name=self.config.suite)
        except RiceError as error:
            raise NotThisLayoutError(str(error)) if not self.data.is_dir() else error from error

    @cached_property
    def splits(self) -> "tuple[CocoSplit, CocoSplit]":
        """Train and test, checked; parsed once for all seeds."""
        from probes.coco import train_and_test

        return train_and_test(self.data, self.config.train_split, self.config.test_split)

    def _files(self) -> "tuple[SplitFiles, SplitFiles]":
        from probes.coco import split_files

        return split_files(self.data, self.config.train_split, self.config.test_split)


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
