"""k-NN and the linear classifier against scikit-learn."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from probes.knn.evaluate import accuracy, nearest_neighbours
from probes.knn.model import Vectors
from probes.knn.probe import KnnConfig
from probes.knn.train import train_and_choose
from probes.linear import layer_norm
from rice.progress import SilentProgress

CLASSES, WIDTH = 5, 24


def clouds(count: int, seed: int, spread: float = 1.6) -> Vectors:
    """Overlapping clouds around fixed centres, far from the origin."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))
    labels = generator.integers(0, CLASSES, count)
    features = 3 + centres[labels] + spread * generator.normal(size=(count, WIDTH))
    return Vectors(torch.from_numpy(features).float(), torch.from_numpy(labels))


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (1, 0.07), (7, 1.0), (500, 0.2)])
def test_votes_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    bank, queries = clouds(200, 0), clouds(1500, 1)
    reference = KNeighborsClassifier(
        min(k, 200), metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
    ).fit(bank.features.double().numpy(), bank.labels.numpy())
    expected = reference.predict(queries.features.double().numpy())
    got = nearest_neighbours(bank, queries.features, classes=CLASSES, k=k, temperature=temperature)
    assert (got.numpy() == expected).mean() >= 0.999  # fp32 against fp64: one near tie in 1,500 may fall otherwise


def test_a_bank_smaller_than_k_votes_whole() -> None:
    bank = Vectors(torch.eye(3), torch.tensor([0, 1, 2]))
    got = nearest_neighbours(bank, torch.eye(3) + 0.1, classes=3, k=20, temperature=0.07)
    assert got.tolist() == [0, 1, 2]


def test_the_linear_classifier_is_as_good_as_scikit_learns(tmp_path: Path) -> None:
    fit, validation, tests = clouds(600, 0), clouds(200, 1), clouds(2000, 2)
    config = KnnConfig(updates=300)
    classify, rate = train_and_choose(
        fit, validation, CLASSES, config, seed=0, progress=SilentProgress(), checkpoint=tmp_path / "linear.pt"
    )
    got = (classify(tests.features) == tests.labels).double().mean().item()
    scaler = StandardScaler().fit(layer_norm(fit.features))
    reference = LogisticRegression(max_iter=2000).fit(scaler.transform(layer_norm(fit.features)), fit.labels)
    expected = reference.score(scaler.transform(layer_norm(tests.features)), tests.labels)
    assert 0.5 < expected < 0.95
    assert got == pytest.approx(expected, abs=0.03)
    assert rate in config.learning_rates


def test_the_rate_is_chosen_on_the_validation_part(tmp_path: Path) -> None:
    fit, validation = clouds(300, 0), clouds(200, 1)
    config = KnnConfig(updates=50, learning_rates=(1e-8, 1e-2))
    right = train_and_choose(
        fit, validation, CLASSES, config, seed=0, progress=SilentProgress(), checkpoint=tmp_path / "a.pt"
    )
    assert right[1] == 1e-2


def test_accuracy_has_the_binomial_standard_error() -> None:
    value, stderr = accuracy([True] * 30 + [False] * 70)
    assert value == pytest.approx(0.3)
    assert stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 100))
