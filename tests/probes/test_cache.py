"""Frozen features on disk: the numbers of recomputation, whole after any kill."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from probes import cache
from probes.cache import CachedFeatures, FeatureSource, encoder_key, open_features
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.progress import SilentProgress

COUNT, SHAPE = 23, (4, 6)


def load(item: int) -> Tensor:
    """A picture that says which one it is."""
    return torch.full((3, 2, 2), item / 7)


def extract(images: Tensor) -> Tensor:
    """Features (B, 4, 6) with values that fp16 rounds."""
    base = images[:, 0, 0, 0, None, None]
    return base + torch.arange(24.0).view(1, *SHAPE) / 3


def source(
    load: Callable[[int], Tensor] = load,
    extract: Callable[[Tensor], Tensor] = extract,
    dtype: torch.dtype = torch.float16,
    key: str = "a",
) -> FeatureSource:
    return FeatureSource(load=load, extract=extract, count=COUNT, shape=SHAPE, key=key, dtype=dtype)


def opened(folder: Path, source: FeatureSource, budget: float = 1e9) -> cache.FrozenFeatures:
    return open_features(source, folder, budget_bytes=budget, progress=SilentProgress(), label="test")


def read(features: cache.FrozenFeatures, batches: list[list[int]]) -> list[np.ndarray]:
    return [batch.numpy() for batch in features.stream(batches)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five items a chunk."""
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 5 * 24 * 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_cached_features_are_the_recomputed_ones(tmp_path: Path, dtype: torch.dtype) -> None:
    batches = [[22, 0, 7], [7], [4, 5, 9, 10]]
    cached, recomputed = opened(tmp_path, source(dtype=dtype)), opened(tmp_path, source(dtype=dtype), budget=0)
    assert isinstance(cached, CachedFeatures)
    assert isinstance(recomputed, FeatureSource)
    for got, expected, items in zip(read(cached, batches), read(recomputed, batches), batches, strict=True):
        assert got.dtype == np.dtype(str(dtype).removeprefix("torch."))
        np.testing.assert_array_equal(got, expected)
        exact = np.stack([extract(load(i)[None])[0].numpy() for i in items])
        np.testing.assert_allclose(got, exact, rtol=1e-3)


def test_the_budget_is_on_bytes(tmp_path: Path) -> None:
    assert source().nbytes == COUNT * 24 * 2
    assert isinstance(opened(tmp_path / "a", source(), budget=source().nbytes), CachedFeatures)
    assert isinstance(opened(tmp_path / "b", source(), budget=source().nbytes - 1), FeatureSource)
    assert not (tmp_path / "b").exists()


def test_features_are_extracted_once(tmp_path: Path) -> None:
    opened(tmp_path, source())

    def forbidden(item: int) -> Tensor:
        raise AssertionError("extracted twice")

    again = opened(tmp_path, source(load=forbidden))
    assert len(read(again, [[1, 2]])[0]) == 2


def test_a_killed_extraction_resumes_to_the_same_arrays(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import torch
        from probes import cache
        from rice.progress import SilentProgress
        cache._CHUNK_BYTES = 5 * 24 * 2
        done = []
        def extract(images):
            if len(done) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(1)
            return images[:, 0, 0, 0, None, None] + torch.arange(24.0).view(1, 4, 6) / 3
        source = cache.FeatureSource(
            load=lambda item: torch.full((3, 2, 2), item / 7), extract=extract, count=23, shape=(4, 6), key="a"
        )
        cache.open_features(source, Path(sys.argv[1]), budget_bytes=1e9, progress=SilentProgress(), label="x")
        """
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "killed")],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert killed.returncode == -9
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("0*.npy")}
    assert len(before) == 3
    (tmp_path / "killed" / ".000000015.npy.x.tmp").write_bytes(b"half")
    everything = [list(range(COUNT))]
    resumed = read(opened(tmp_path / "killed", source()), everything)
    np.testing.assert_array_equal(resumed, read(opened(tmp_path / "whole", source()), everything))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert not list((tmp_path / "killed").glob(".*.tmp"))


def test_another_chunk_length_does_not_garble_an_old_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(opened(tmp_path, source()), [list(range(COUNT))])
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 9 * 24 * 2)
    np.testing.assert_array_equal(read(opened(tmp_path, source()), [list(range(COUNT))]), first)


def test_features_of_another_encoder_are_not_mistaken(tmp_path: Path) -> None:
    opened(tmp_path, source())
    with pytest.raises(RiceError, match="holds other features than expected; delete it"):
        opened(tmp_path, source(key="b"))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e6])
def test_features_that_fp16_cannot_hold_are_refused(tmp_path: Path, bad: float) -> None:
    spoilt = source(extract=lambda images: extract(images).masked_fill(images[:, :1, 0, :1] > 2, bad))
    for budget in (0.0, 1e9):
        with pytest.raises(RiceError, match="NaN, infinite or beyond the range"):
            list(opened(tmp_path, spoilt, budget=budget).stream([[20, 21, 22]]))


def test_a_full_disk_is_reported_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(RiceError, match=r"need 1\.1 KiB and .* has 100 B free; lower cache-gb"):
        opened(tmp_path, source())


def encoder(weight: float = 1.0, layer: int = -1) -> Encoder:
    module = nn.Conv2d(3, 4, 2, 2)
    nn.init.constant_(module.weight, weight)
    nn.init.zeros_(module.bias)
    spec = EncoderSpec(name="e", source="e", patch=2, size_multiple=2, width=4, native_size=4, layer=layer)
    return Encoder(module, spec, lambda m, x, k: Features(m(x), None), weights="random")


def test_the_key_follows_weights_layer_size_and_form() -> None:
    keys = [
        encoder_key(encoder(), 4, "tokens"),
        encoder_key(encoder(weight=1.5), 4, "tokens"),
        encoder_key(encoder(layer=-2), 4, "tokens"),
        encoder_key(encoder(), 8, "tokens"),
        encoder_key(encoder(), 4, "pooled"),
        encoder_key(encoder().to(torch.bfloat16), 4, "tokens"),
    ]
    assert len(set(keys)) == len(keys)
    assert encoder_key(encoder(), 4, "tokens") == keys[0]
