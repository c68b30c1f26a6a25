"""What every probe with linear heads lets its user choose. Imports no torch."""

from dataclasses import dataclass

from probes.protocol import run_only
from rice.errors import RiceError


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """How linear heads are trained and their learning rate is chosen.

    Args:
        validation_fraction: share of the train images that chooses the learning rate, the same for every seed.
        train_fraction: share of the other train images that one seed trains on.
        updates: optimiser steps.
        batch: images per step.
        learning_rates: the grid to choose from, ascending.
        cache_gb: disk for frozen features, in GB; what does not fit is recomputed on every pass.
    """

    validation_fraction: float = 0.2
    train_fraction: float = 0.9
    updates: int
    batch: int
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    cache_gb: float = run_only(40.0)

    def __post_init__(self) -> None:
        rates = list(self.learning_rates)
        if not rates or rates != sorted(set(rates)) or rates[0] <= 0:
            raise RiceError(f"expected learning-rates above 0 in ascending order, got {rates}")
        if not (0 < self.validation_fraction < 1 and 0 < self.train_fraction <= 1):
            raise RiceError(
                "expected 0 < validation-fraction < 1 and 0 < train-fraction <= 1, "
                f"got {self.validation_fraction} and {self.train_fraction}"
            )
        if self.updates < 1 or self.batch < 1 or not self.cache_gb >= 0:
            raise RiceError(
                "expected updates of at least 1, a batch of at least 1 and a cache-gb of at least 0, "
                f"got {self.updates}, {self.batch} and {self.cache_gb:g}"
            )

    def training_protocol(self) -> str:
        """The part of a metric's definition that these settings decide."""
        rates = ", ".join(f"{rate:g}" for rate in self.learning_rates)
        return (
            f"AdamW, {self.updates} updates of {self.batch} images, on {self.train_fraction:g} (by seed) of the train "
            f"images less {self.validation_fraction:g} on which the learning rate is chosen from {rates}"
        )
