"""The dense probe: how much of per-pixel recognition is linear in an encoder's frozen patch tokens?"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from probes.protocol import Metric, NotThisLayoutError, run_only
from rice.errors import RiceError
from rice.progress import Progress

if TYPE_CHECKING:
    from rice.data.coco import CocoSplit, SplitFiles
    from rice.encoders.base import Encoder
    from rice.encoders.spec import EncoderSpec

MATCHED_TOKENS = 32


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """What the dense probe computes.

    Args:
        grid: "native": the encoder's own input size, or that of NAME@SIZE; "matched": 32 x 32 tokens for every encoder.
        train_images: most images of the train split that are used, validation part included; None: all.
        validation_fraction: share of these that chooses the learning rate, the same for every seed.
        train_fraction: share of the others that one seed trains on.
        updates: optimiser steps.
        batch: images per step.
        learning_rates: the grid to choose from, ascending.
        cache_gb: disk for frozen features, in GB; what does not fit is recomputed in every epoch.
    """

    grid: Literal["native", "matched"] = "native"
    train_images: int | None = 5000
    validation_fraction: float = 0.2
    train_fraction: float = 0.9
    updates: int = 2000
    batch: int = 16
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    cache_gb: float = run_only(40.0)

    def __post_init__(self) -> None:
        rates = list(self.learning_rates)
        fractions = (self.validation_fraction, self.train_fraction)
        if not rates or rates != sorted(set(rates)) or rates[0] <= 0:
            raise RiceError(f"expected learning rates above 0 in ascending order, got {rates}")
        if self.validation_fraction >= 1 or not all(0 < fraction <= 1 for fraction in fractions):
            raise RiceError(f"expected fractions in (0, 1], the validation part's below 1, got {fractions}")
        if min(self.updates, self.batch) < 1 or (self.train_images or 2) < 2:
            raise RiceError("expected at least 1 update, 1 image a batch, and 2 train images")


class DenseProbe:
    """Frozen patch tokens -> linear head -> per-pixel classes, on any dataset in COCO's layout.

    The background is class 0; pixels of a crowd that belong to no instance are ignored. `items.parquet` holds pixel
    counts per test image and class (see `probes.dense.evaluate.write_items`).
    """

    name: ClassVar[str] = "dense"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = DenseConfig

    def __init__(self, config: DenseConfig, data: Path) -> None:
        self.config = config
        self.data = data

    def inspect(self) -> str:
        """One line on the splits that would train and test. Errors: RiceError; its kind tells foreign from broken."""
        train, test = self._splits
        return f"trains on {_describe(train)}; tests on {_describe(test)}; {len(train.categories)} classes"

    def fingerprint(self) -> str:
        """SHA-256 over both splits' annotations and the names and sizes of their images."""
        from rice.data.coco import fingerprint
        from rice.files import sha256_json

        return sha256_json([fingerprint(files) for files in self._files()])

    def input_size(self, spec: "EncoderSpec", size: int | None) -> int:
        """Native: `size`, else the encoder's own. Matched: 32 patches. Errors: RiceError when the encoder cannot."""
        if self.config.grid == "native":
            edge = spec.native_size if size is None else size
        else:
            edge = MATCHED_TOKENS * spec.patch
            if size not in (None, edge):
                raise RiceError(f"grid matched gives {spec.name} {edge} pixels, but @{size} was asked; drop @{size}")
        spec.check_size(edge, edge)
        return edge

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterator[Metric]:
        """Yield mean IoU, foreground mean IoU and pixel accuracy of one seed. See `probes.protocol.Probe`.

        The seed sets initialisation, order and the train subsample; features, targets and token statistics (of the
        whole fit part) are shared between seeds.
        """
        from probes.dense import data, evaluate, train

        (train_split, test_split), config = self._splits, self.config
        size = self.input_size(encoder.spec, None)
        material = data.prepare(encoder, train_split, test_split, size, config, workdir, progress)
        heads, chosen = train.train_and_choose(material, config, seed=seed, progress=progress)
        counts = evaluate.judge(partial(heads.one, index=chosen), material, test_split, config.batch, progress)
        image_ids = [image.id for image in test_split.images]
        evaluate.write_items(workdir / "items.parquet", image_ids, counts, heads.rates[chosen])
        for name, (score, definition) in evaluate.SCORES.items():
            value, stderr = evaluate.score_with_error(counts, score)
            yield Metric(
                name=name,
                value=value,
                n=len(image_ids),
                unit="fraction",
                higher_is_better=True,
                split=test_split.name,
                stderr=stderr,
                protocol=f"{definition}; {self._protocol()}",
            )

    def _protocol(self) -> str:
        config = self.config
        rates = ", ".join(f"{rate:g}" for rate in config.learning_rates)
        size = "the encoder's own size" if config.grid == "native" else f"{MATCHED_TOKENS} x {MATCHED_TOKENS} tokens"
        cap = "all" if config.train_images is None else f"at most {config.train_images}"
        return (
            f"images squashed to {size}; frozen patch tokens, LayerNorm, standardised per channel on train; "
            f"linear head, cross entropy per pixel with nearest upsampling, AdamW, {config.updates} updates of "
            f"{config.batch} images out of {config.train_fraction:g} of {cap} train images less the "
            f"{config.validation_fraction:g} on which the learning rate is chosen from {rates}; "
            "tested once, logits bilinear to each image's own size; crowd pixels ignored"
        )

    @cached_property
    def _splits(self) -> "tuple[CocoSplit, CocoSplit]":
        """Train and test, checked; parsed once for all seeds."""
        from rice.data.coco import open_split

        files = self._files()
        train, test = (open_split(self.data, found.name) for found in files)
        _check_categories(train, test)
        return train, test

    def _files(self) -> "tuple[SplitFiles, SplitFiles]":
        from rice.data.coco import find_splits, open_split, role

        try:
            splits = find_splits(self.data)
        except RiceError as error:
            raise NotThisLayoutError(str(error)) from error
        try:
            roles = role(splits)
        except RiceError as error:
            for name in splits:
                open_split(self.data, name)  # what is broken in it is the better message
            raise NotThisLayoutError(str(error)) from error
        return splits[roles.train], splits[roles.test]


def _check_categories(train: "CocoSplit", test: "CocoSplit") -> None:
    left, right = ({(c.id, c.name) for c in split.categories} for split in (train, test))
    if left != right:
        odd = ", ".join(f"{name!r} (id {id_})" for id_, name in sorted(left ^ right)[:3])
        raise RiceError(
            f"expected the same categories in {train.name} and {test.name} of one dataset, these differ: {odd}"
        )


def _describe(split: "CocoSplit") -> str:
    annotations = sum(len(image.annotations) for image in split.images)
    return f"{split.name} ({len(split.images):,} images, {annotations:,} annotations)"
