"""Linear heads: that many trained at once are each what it would be alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.linear import ChannelStatistics, LinearBatch, LinearHeads, best_rate, fit_heads, layer_norm
from probes.linear_config import LinearConfig
from rice.progress import SilentProgress

CLASSES, WIDTH = 3, 8


def data(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Features far from standard, and one-hot classes that depend on them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, WIDTH, generator=generator) * torch.arange(1, WIDTH + 1) + 5
    classes = (x[:, :CLASSES] / torch.arange(1, CLASSES + 1)).argmax(1)
    return x, torch.nn.functional.one_hot(classes, CLASSES).float()


def train(rates: tuple[float, ...], updates: int = 40, checkpoint: Path = Path("unused")) -> LinearHeads:
    """Heads on `data`."""
    x, y = data()
    shares = y.mean(0)
    heads = LinearHeads(ChannelStatistics.of([x]), shares, rates, torch.Generator().manual_seed(1))

    def batches(start: int) -> Iterator[LinearBatch]:
        for k in range(start, updates):
            rows = slice(k * 50 % 200, k * 50 % 200 + 50)
            yield x[rows], y[rows]

    config = LinearConfig(updates=updates, batch=50, learning_rates=rates)
    fit_heads(heads, batches, config, seed=0, progress=SilentProgress(), checkpoint=checkpoint)
    return heads


def test_heads_trained_together_are_those_trained_alone(tmp_path: Path) -> None:
    rates = (1e-3, 1e-1, 30.0)  # the last one is meant to go astray
    together = train(rates, checkpoint=tmp_path / "all.pt")
    for index, rate in enumerate(rates):
        alone = train((rate,), checkpoint=tmp_path / f"{index}.pt")
        torch.testing.assert_close(together.weights[index], alone.weights[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.biases[index], alone.biases[0], rtol=1e-4, atol=1e-5)


def test_one_head_gives_its_part_of_all_logits(tmp_path: Path) -> None:
    heads, (x, _) = train((1e-3, 1e-1), checkpoint=tmp_path / "x.pt"), data()
    for index in range(2):
        torch.testing.assert_close(heads(x)[:, index], heads.one(x, index))


def test_training_starts_from_the_class_shares() -> None:
    x, _ = data()
    shares = torch.tensor([0.7, 0.3, 0.0])
    heads = LinearHeads(ChannelStatistics.of([x]), shares, (1e-3,), torch.Generator().manual_seed(1))
    probabilities = heads(x)[:, 0].softmax(-1)
    torch.testing.assert_close(probabilities.mean(0), shares, atol=0.01, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), parts=st.integers(1, 5), offset=st.floats(-1000, 1000))
def test_statistics_of_a_stream_are_numpys_of_the_whole(seed: int, parts: int, offset: float) -> None:
    generator = np.random.default_rng(seed)
    whole = (offset + generator.normal(size=(parts * 4, 3, WIDTH))).astype(np.float16)
    found = ChannelStatistics.of(torch.from_numpy(part) for part in np.array_split(whole, parts))
    flat = whole.reshape(-1, WIDTH).astype(np.float64)
    np.testing.assert_allclose(found.mean.numpy(), flat.mean(0), rtol=1e-5, atol=1e-6)
    std = flat.std(0)
    np.testing.assert_allclose(found.std.numpy(), np.where(std < 1e-6, 1, std), rtol=1e-4)


def test_a_constant_channel_stays_finite() -> None:
    x = torch.full((10, 2), 3.0)
    assert ChannelStatistics.of([x]).apply(x).abs().max() == 0


def test_statistics_survive_the_disk(tmp_path: Path) -> None:
    found = ChannelStatistics.of([data()[0]])
    found.save(tmp_path / "s.npz")
    again = ChannelStatistics.load(tmp_path / "s.npz")
    assert torch.equal(found.mean, again.mean)
    assert torch.equal(found.std, again.std)


def test_layer_norm_is_that_of_numpy() -> None:
    x = data()[0].double().numpy()
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer_norm(torch.from_numpy(x).half()).numpy(), expected, atol=5e-3)


@pytest.mark.parametrize(("scores", "index"), [([0.1, 0.3, 0.2], 1), ([0.3, 0.3, 0.1], 0), ([0.0], 0)])
def test_the_best_rate_is_the_smallest_of_equals(scores: list[float], index: int) -> None:
    assert best_rate(scores) == index
