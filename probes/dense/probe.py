"""The dense probe: how much of per-pixel recognition is linear in an encoder's frozen patch tokens?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from probes.linear_config import LinearConfig
from probes.protocol import Metric, NotThisLayoutError, Probe, Resampling
from rice.errors import RiceError
from rice.progress import Progress

if TYPE_CHECKING:
    from probes.coco import CocoPair
    from rice.encoders.base import Encoder
    from rice.encoders.spec import EncoderSpec

MATCHED_TOKENS = 32


@dataclass(frozen=True, kw_only=True)
class DenseConfig(LinearConfig):
    """What the dense probe computes.

    Args:
        grid: "native": the encoder's own input size, or that of NAME@SIZE; "matched": 32 x 32 tokens for every encoder.
        train_split: name of the split to learn from, where `rice data check` would choose another.
        test_split: name of the split to be judged on, likewise.
        train_images: most images of the train split that are used, validation part included; None: all.
    """

    grid: Literal["native", "matched"] = "native"
    train_split: str | None = None
    test_split: str | None = None
    train_images: int | None = 5000
    updates: int = 2000
    batch: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_images is not None and self.train_images < 2:
            raise RiceError(f"expected at least 2 train-images, got {self.train_images}")


class DenseProbe(Probe):
    """Frozen patch tokens -> linear head -> per-pixel classes, on any dataset in COCO's layout.

    The background is class 0; pixels of a crowd that belong to no instance are ignored. `items.parquet` holds pixel
    counts per test image and class (see `probes.dense.evaluate.write_items`).
    """

    name, version, Config = "dense", 1, DenseConfig
    config: DenseConfig

    def inspect(self) -> str:
        """One line on the splits that would train and test. Errors: RiceError; its kind tells foreign from broken."""
        from probes.coco import describe

        train, test = self._pair.splits
        for split in (train, test):
            if not any(a.segmentation for image in split.images for a in image.annotations):
                raise NotThisLayoutError(
                    f"{split.files.annotations}: expected annotations with masks, found boxes only"
                )
        return f"trains on {describe(train)}; tests on {describe(test)}; {len(train.categories)} classes"

    def fingerprint(self) -> str:
        """See `CocoPair`."""
        return self._pair.fingerprint

    def count_images(self) -> int:
        """Pictures of both splits that pass through the encoder."""
        train, test = (len(split.images) for split in self._pair.splits)
        return min(train, self.config.train_images or train) + test

    def decode_all(self, progress: Progress) -> None:
        """Read every picture and mask of both splits. Errors: RiceError naming the first that is damaged."""
        from probes.coco import decode_all
        from rice.data.coco import CocoSplit

        decode_all(self._pair.splits, CocoSplit.semantic_map, progress)

    def input_size(self, spec: "EncoderSpec", size: int | None) -> int:
        """Native: `size`, else the encoder's own. Matched: 32 patches. Errors: RiceError when the encoder cannot."""
        if self.config.grid == "matched":
            edge = MATCHED_TOKENS * spec.patch
            if size not in (None, edge):
                raise RiceError(f"grid matched gives {spec.name} {edge} pixels, but @{size} was asked; drop @{size}")
            size = edge
        return super().input_size(spec, size)

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterator[Metric]:
        """Yield mean IoU, foreground mean IoU and pixel accuracy of one seed. See `probes.protocol.Probe`.

        The seed sets initialisation, order and the train subsample; features, targets and token statistics (of the
        whole fit part) are shared between seeds.
        """
        from probes.cache import material_key
        from probes.dense import data, evaluate, train
        from probes.dense.scores import SCORES

        (train_split, test_split), config = self._pair.splits, self.config
        key, size = material_key(encoder, self, "tokens, LayerNorm"), self.input_size(encoder.spec, None)
        folder = workdir / key[:20]
        material = data.prepare(encoder, train_split, test_split, size, config, key, folder, progress)
        heads, chosen = train.train_and_choose(material, config, seed=seed, progress=progress)
        counts = evaluate.judge(partial(heads.one, index=chosen), material, test_split, config.batch, progress)
        image_ids = [image.id for image in test_split.images]
        evaluate.write_items(workdir / "items.parquet", image_ids, counts, heads.rates[chosen])
        for name, (score, definition) in SCORES.items():
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

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`."""
        from probes.dense.scores import resampling

        return resampling(items)

    def _protocol(self) -> str:
        config = self.config
        size = "the encoder's own size" if config.grid == "native" else f"{MATCHED_TOKENS} x {MATCHED_TOKENS} tokens"
        cap = "all train images" if config.train_images is None else f"at most {config.train_images} train images"
        return (
            f"images squashed to {size}; frozen patch tokens, LayerNorm, standardised per channel on train; linear "
            f"head, cross entropy per pixel with nearest upsampling; {cap}; {config.training_protocol()} by mean IoU; "
            "tested once, logits bilinear to each image's own size; crowd pixels ignored"
        )

    @cached_property
    def _pair(self) -> "CocoPair":
        from probes.coco import CocoPair

        return CocoPair(self.data, self.config.train_split, self.config.test_split)
