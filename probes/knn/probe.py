"""The image-level probe: k nearest neighbours and a linear classifier on one frozen vector per picture."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from probes.linear_config import LinearConfig
from probes.protocol import Metric, Probe, Resampling
from rice.errors import RiceError
from rice.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from probes.knn.data import ImageFolder, Picture
    from probes.knn.model import Vectors
    from rice.encoders.base import Encoder


@dataclass(frozen=True, kw_only=True)
class KnnConfig(LinearConfig):
    """What the image-level probe computes.

    Args:
        pool: the vector of a picture: "cls" token, "mean" of the patch tokens, "auto": cls where the tower has one.
        k: neighbours that vote; fixed, as in DINO's protocol; a smaller bank votes whole.
        temperature: a neighbour's weight is exp(cosine / temperature).
        train_images_per_class: most train images of a class that are used, validation part included; None: all.
    """

    pool: Literal["auto", "cls", "mean"] = "auto"
    k: int = 20
    temperature: float = 0.07
    train_images_per_class: int | None = 100
    updates: int = 1000
    batch: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = self.train_images_per_class
        if self.k < 1 or not self.temperature > 0 or (limit is not None and limit < 2):
            raise RiceError(
                "expected k >= 1, temperature > 0 and train-images-per-class >= 2, "
                f"got {self.k}, {self.temperature} and {limit}"
            )


class KnnProbe(Probe):
    """Frozen vectors -> k-NN and linear classification of an image folder (see `probes.knn.data`).

    `items.parquet` holds both predictions for each test picture.
    """

    name, version, Config = "knn", 1, KnnConfig
    config: KnnConfig

    def inspect(self) -> str:
        """One line on the pictures and classes. Errors: see `probes.knn.data.open_folder`."""
        folder = self._folder
        return (
            f"trains on {len(folder.train):,} pictures; tests on {len(folder.test):,} ({folder.test_name}); "
            f"{len(folder.classes)} classes"
        )

    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of the pictures, and over which of them train and test."""
        from rice.files import sha256_json

        parts = (self._folder.train, self._folder.test)
        return sha256_json([[(picture.name, picture.path.stat().st_size) for picture in part] for part in parts])

    def count_images(self) -> int:
        """Pictures of both parts that pass through the encoder."""
        return len(self._train_pictures) + len(self._folder.test)

    def decode_all(self, progress: Progress) -> None:
        """Read every picture. Errors: RiceError naming the first that is damaged."""
        from probes.images import load_each, read_picture

        pictures = [*self._folder.train, *self._folder.test]
        loaded = load_each(lambda picture: read_picture(picture.path).size, pictures)
        for _ in progress.track(loaded, "decode", len(pictures)):
            pass

    def run(self, encoder: "Encoder", *, seed: int, workdir: Path, progress: Progress) -> Iterator[Metric]:
        """Yield k-NN and linear top-1 of one seed. See `probes.protocol.Probe`.

        The seed sets the train subsample (of each class alike), and the linear head's initialisation and order.
        """
        from probes.cache import material_key
        from probes.knn import evaluate, train
        from probes.knn.data import divide
        from probes.knn.model import read_vectors

        config, folder = self.config, self._folder
        size, classes = self.input_size(encoder.spec, None), len(folder.classes)
        key = material_key(encoder, self, "pooled")
        home = workdir / key[:20]

        def vectors(part: str, pictures: "Sequence[Picture]") -> "Vectors":
            return read_vectors(encoder, pictures, config, size, key=key, folder=home / part, progress=progress)

        held_out, rest = divide(self._train_pictures, config.validation_fraction)
        if not held_out:
            raise RiceError(
                f"{self.data}: expected a class with two train pictures, to choose the learning rate on one"
            )
        validation, fit, tests = vectors("validation", held_out), vectors("fit", rest), vectors("test", folder.test)
        bank = validation.join(fit).subsample(config.train_fraction, seed)
        knn = evaluate.nearest_neighbours(
            bank, tests.features, classes=classes, k=config.k, temperature=config.temperature
        )
        classify, rate = train.train_and_choose(
            fit.subsample(config.train_fraction, seed),
            validation,
            classes,
            config,
            seed=seed,
            progress=progress,
            checkpoint=home / f"seed{seed}" / "linear.pt",
        )
        linear = classify(tests.features)
        evaluate.write_items(workdir / "items.parquet", folder, knn.tolist(), linear.tolist(), rate)
        yield self._metric("knn top-1", (knn == tests.labels).tolist(), self._knn_protocol())
        yield self._metric("linear top-1", (linear == tests.labels).tolist(), self._linear_protocol())

    @staticmethod
    def resampling(items: Path) -> Iterable[Resampling]:
        """See `probes.protocol.Resamples`: both accuracies are means over pictures."""
        import pandas as pd

        frame = pd.read_parquet(items)
        right_N2 = frame[["knn_correct", "linear_correct"]].to_numpy(dtype=float)

        def scores(weights_RN: "NDArray[np.float64]") -> "Mapping[str, NDArray[np.float64]]":
            share_R2 = weights_RN @ right_N2 / weights_RN.sum(axis=1, keepdims=True)
            return {"knn top-1": share_R2[:, 0], "linear top-1": share_R2[:, 1]}

        return [Resampling(ids=frame["image"].tolist(), scores=scores)]

    def _metric(self, name: str, correct: list[bool], protocol: str) -> Metric:
        from probes.knn.evaluate import accuracy

        value, stderr = accuracy(correct)
        return Metric(
            name=name,
            value=value,
            n=len(correct),
            unit="fraction",
            higher_is_better=True,
            split=self._folder.test_name,
            stderr=stderr,
            protocol=protocol,
        )

    def _vector_protocol(self) -> str:
        pool = {"cls": "class token", "mean": "mean patch token", "auto": "class token, else mean patch token"}
        limit = self.config.train_images_per_class
        cap = "all train images" if limit is None else f"at most {limit} train images per class"
        return f"top-1; images cut as the encoder's source does; frozen {pool[self.config.pool]}; {cap}"

    def _knn_protocol(self) -> str:
        config = self.config
        return (
            f"{self._vector_protocol()}; {config.k} nearest by cosine out of {config.train_fraction:g} of them "
            f"(by seed), votes weighted by exp(cosine / {config.temperature:g})"
        )

    def _linear_protocol(self) -> str:
        return (
            f"{self._vector_protocol()}; LayerNorm, standardised per channel on train, softmax regression; "
            f"{self.config.training_protocol()} by top-1; tested once"
        )

    @cached_property
    def _folder(self) -> "ImageFolder":
        from probes.knn.data import open_folder

        return open_folder(self.data)

    @cached_property
    def _train_pictures(self) -> "tuple[Picture, ...]":
        from probes.knn.data import limit_per_class

        return limit_per_class(self._folder.train, self.config.train_images_per_class)
