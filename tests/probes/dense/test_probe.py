"""The dense probe as a whole: what it finds, what it does not see, and that it repeats itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from probes.dense.probe import DenseConfig, DenseProbe
from probes.protocol import Metric, NotThisLayoutError
from rice.encoders.base import Encoder, Features
from rice.errors import RiceError
from rice.progress import SilentProgress

QUICK: dict[str, Any] = {"updates": 60, "batch": 8, "learning_rates": (1e-3, 1e-2, 1e-1)}


def run(
    root: Path, encoder: Encoder, workdir: Path, *, seed: int = 0, **changes: Any
) -> tuple[dict[str, Metric], pd.DataFrame]:
    """Metrics by name, and the items."""
    probe = DenseProbe(DenseConfig(**(QUICK | changes)), root)
    metrics = {m.name: m for m in probe.run(encoder, seed=seed, workdir=workdir, progress=SilentProgress())}
    return metrics, pd.read_parquet(workdir / "items.parquet")


def heads(workdir: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """The trained weights."""
    (path,) = workdir.rglob(f"seed{seed}/heads.pt")
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["head"]
    return state


def test_features_that_encode_the_label_reach_every_pixel(make_root, make_encoder, colours, tmp_path):
    metrics, items = run(make_root(colours), make_encoder(), tmp_path / "work")
    assert metrics["mIoU"].value > 0.99
    assert metrics["foreground mIoU"].value > 0.99
    assert metrics["pixel accuracy"].value > 0.99
    assert metrics["mIoU"].n == len(items) == 8
    assert metrics["mIoU"].split == "val"


def test_noise_does_no_better_than_the_commonest_class(make_root, make_encoder, noise, tmp_path):
    metrics, items = run(make_root(noise, counts=(40, 12)), make_encoder(), tmp_path / "work")
    background = (
        sum(row.truth[list(row.classes).index(0)] for row in items.itertuples() if 0 in row.classes)
        / items.pixels.sum()
    )
    assert metrics["pixel accuracy"].value == pytest.approx(background, abs=0.02)
    assert metrics["foreground mIoU"].value < 0.05


def test_items_suffice_to_compute_every_metric(make_root, make_encoder, murky, tmp_path):
    metrics, items = run(make_root(murky), make_encoder(), tmp_path / "work")
    totals = np.zeros((3, 4))
    for row in items.itertuples():
        totals[:, row.classes] += [row.intersection, row.union, row.truth]
    intersection, union, truth = totals
    assert metrics["mIoU"].value == pytest.approx((intersection / union)[truth > 0].mean())
    assert metrics["pixel accuracy"].value == pytest.approx(items.correct.sum() / items.pixels.sum())


def test_one_seed_repeats_itself_and_another_draws_other_images(make_root, make_encoder, murky, tmp_path):
    root, encoder = make_root(murky), make_encoder()
    first, _ = run(root, encoder, tmp_path / "a")
    again, _ = run(root, encoder, tmp_path / "b")
    other, _ = run(root, encoder, tmp_path / "a", seed=1)
    assert first == again
    assert all(first[name].value != other[name].value for name in first)
    assert first["mIoU"].protocol == other["mIoU"].protocol


def test_recomputed_features_give_the_numbers_of_cached_ones(make_root, make_encoder, murky, tmp_path):
    root, encoder = make_root(murky), make_encoder()
    cached, _ = run(root, encoder, tmp_path / "cached")
    recomputed, _ = run(root, encoder, tmp_path / "recomputed", cache_gb=0.0)
    assert list((tmp_path / "cached").rglob("*.npy"))
    assert not list((tmp_path / "recomputed").rglob("*.npy"))
    for name, metric in cached.items():
        assert recomputed[name].value == pytest.approx(metric.value, abs=2e-3)


def test_training_and_choice_never_see_the_test_labels(make_root, make_encoder, colours, tmp_path):
    encoder = make_encoder()
    honest = make_root(colours, name="honest")
    permuted = make_root(colours, name="permuted", relabel=lambda classes: (classes + 1) % 4)
    expected, items = run(honest, encoder, tmp_path / "a")
    got, other_items = run(permuted, encoder, tmp_path / "b")
    assert got["mIoU"].value < 0.1 < expected["mIoU"].value
    assert items.learning_rate[0] == other_items.learning_rate[0]
    for left, right in zip(heads(tmp_path / "a").values(), heads(tmp_path / "b").values(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_the_learning_rate_that_fits_the_validation_part_is_tested(make_root, make_encoder, colours, tmp_path):
    _, items = run(make_root(colours), make_encoder(), tmp_path / "work", learning_rates=(1e-9, 1e-1))
    assert items.learning_rate.unique().tolist() == [1e-1]


def test_crowd_pixels_are_not_judged(make_root, make_encoder, colours, tmp_path):
    root = make_root(colours, relabel=lambda classes: np.where(classes == 1, -1, classes))
    metrics, items = run(root, make_encoder(), tmp_path / "work")
    assert items.pixels.sum() < 8 * 16 * 16
    assert metrics["pixel accuracy"].value > 0.99
    assert all(1 not in row.classes or row.truth[list(row.classes).index(1)] == 0 for row in items.itertuples())


def test_features_that_are_not_numbers_are_refused(make_root, make_encoder, colours, tmp_path):
    def broken(module: nn.Module, images: torch.Tensor, layer: int) -> Features:
        return Features(module(images) / 0 * 0, None)

    with pytest.raises(RiceError, match="NaN"):
        run(make_root(colours), make_encoder(extract=broken), tmp_path / "work")
    assert not list((tmp_path / "work").rglob("*.npy"))


def test_matched_grid_gives_every_encoder_32_tokens(make_encoder):
    probe = DenseProbe(DenseConfig(grid="matched"), Path("unread"))
    assert probe.input_size(make_encoder(patch=14, size=384).spec, None) == 448
    assert probe.input_size(make_encoder(patch=14, size=560, size_multiple=28).spec, 448) == 448
    with pytest.raises(RiceError, match="drop @224"):
        probe.input_size(make_encoder(patch=14, size=384).spec, 224)
    with pytest.raises(RiceError, match="multiples of 28"):
        probe.input_size(make_encoder(patch=15, size=384, size_multiple=28).spec, None)


def test_native_grid_is_the_encoders_or_the_one_asked_for(make_encoder):
    probe = DenseProbe(DenseConfig(), Path("unread"))
    spec = make_encoder(patch=14, size=384).spec
    assert probe.input_size(spec, None) == 384
    assert probe.input_size(spec, 28) == 28
    with pytest.raises(RiceError, match="nearest: 14 and 28"):
        probe.input_size(spec, 27)


def test_changed_files_change_the_fingerprint(make_root, colours):
    root = make_root(colours)
    before = DenseProbe(DenseConfig(), root).fingerprint()
    assert DenseProbe(DenseConfig(), root).fingerprint() == before
    (root / "val" / "900.png").write_bytes((root / "val" / "900.png").read_bytes() + b"\0")
    assert DenseProbe(DenseConfig(), root).fingerprint() != before


def test_splits_can_be_named(make_root, colours):
    root = make_root(colours)
    swapped = DenseProbe(DenseConfig(train_split="val", test_split="train"), root)
    assert swapped.inspect().startswith("trains on val (8 images")
    with pytest.raises(RiceError, match="found: train, val"):
        DenseProbe(DenseConfig(test_split="nope"), root).inspect()


def test_a_dataset_without_a_test_split_is_foreign_and_not_broken(make_root, colours):
    root = make_root(colours)
    (root / "annotations" / "instances_val.json").unlink()
    with pytest.raises(NotThisLayoutError, match="expected a train split and a test"):
        DenseProbe(DenseConfig(), root).inspect()


def test_splits_with_other_categories_are_refused(make_root, colours):
    root = make_root(colours)
    path = root / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace("kind 2", "sort 2"))
    with pytest.raises(RiceError, match="'kind 2' .id 20., 'sort 2'"):
        DenseProbe(DenseConfig(), root).inspect()


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rates": ()},
        {"learning_rates": (1e-2, 1e-3)},
        {"train_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"updates": 0},
        {"train_images": 1},
        {"cache_gb": float("nan")},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RiceError, match="expected"):
        DenseConfig(**bad)


@pytest.mark.data
def test_real_photos_run_end_to_end(shared_data: Path, make_encoder: Callable[..., Encoder], tmp_path: Path) -> None:
    metrics, items = run(shared_data / "coco", make_encoder(patch=16, size=128), tmp_path, train_images=40)
    assert len(items) == 100
    assert 0 < metrics["mIoU"].value < 0.2
    assert 0.3 < metrics["pixel accuracy"].value < 1
    assert metrics["pixel accuracy"].stderr is not None
    assert 0.005 < metrics["pixel accuracy"].stderr < 0.1
