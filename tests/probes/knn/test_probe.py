"""The image-level probe as a whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from probes.images import squash
from probes.knn.probe import KnnConfig, KnnProbe
from probes.protocol import Metric
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.progress import SilentProgress

COLOURS = {"blue": (20, 20, 220), "green": (20, 220, 20), "red": (220, 20, 20)}


class Tiny(Encoder):
    """Mean colours in a random code; cuts pictures by squashing them."""

    def __init__(self, *, cls: bool = False) -> None:
        module = nn.Conv2d(3, 12, 4, 4)
        generator = torch.Generator().manual_seed(0)
        for parameter in module.parameters():
            nn.init.normal_(parameter, generator=generator)
        spec = EncoderSpec(name="tiny", source="test", patch=4, size_multiple=4, width=12, native_size=8)

        def extract(module: nn.Module, images: Tensor, layer: int) -> Features:
            patches = module(images).sin()
            return Features(patches, patches.amax((2, 3)) if cls else None)

        super().__init__(module, spec, extract, weights="random")

    def preprocess(self, image: Image.Image, size: int | None = None) -> Tensor:
        return squash(image, size or 8)


def paint(root: Path, *, noise: float, count: int = 12, classes: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """`root/train|test/COLOUR/*.png`."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.array(COLOURS[name]) + generator.normal(0, noise, (8, 8, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / name / f"{index}.png")
    return root


def run(
    root: Path, workdir: Path, *, encoder: Encoder | None = None, seed: int = 0, **changes: Any
) -> tuple[dict[str, Metric], pd.DataFrame]:
    """Metrics by name, and the items."""
    config = KnnConfig(**({"updates": 40, "batch": 16, "learning_rates": (1e-2, 1e-1)} | changes))
    metrics = KnnProbe(config, root).run(encoder or Tiny(), seed=seed, workdir=workdir, progress=SilentProgress())
    return {m.name: m for m in metrics}, pd.read_parquet(workdir / "items.parquet")


def test_classes_that_features_tell_apart_are_all_found(tmp_path: Path) -> None:
    metrics, items = run(paint(tmp_path / "data", noise=3), tmp_path / "work")
    assert metrics["knn top-1"].value == metrics["linear top-1"].value == 1
    assert metrics["knn top-1"].n == len(items) == 36
    assert metrics["knn top-1"].split == "test"
    assert (items["class"] == items.knn).all()


def test_items_hold_both_predictions(tmp_path: Path) -> None:
    metrics, items = run(paint(tmp_path / "data", noise=400), tmp_path / "work")
    assert items.knn_correct.mean() == pytest.approx(metrics["knn top-1"].value)
    assert items.linear_correct.mean() == pytest.approx(metrics["linear top-1"].value)
    assert ((items["class"] == items.linear) == items.linear_correct).all()
    assert items.image.is_unique
    assert all((tmp_path / "data" / name).exists() for name in items.image)
    assert 0.1 < metrics["knn top-1"].value < 1


def test_one_seed_repeats_itself_and_another_does_not(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", noise=400, count=40)
    first, items = run(root, tmp_path / "a")
    again, same = run(root, tmp_path / "b", cache_gb=0.0)
    _, other = run(root, tmp_path / "a", seed=1)
    assert first == again
    pd.testing.assert_frame_equal(items, same)
    assert (items.knn != other.knn).any()
    assert (items.linear != other.linear).any()


def test_the_pool_decides_the_vector(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", noise=400)
    scores = {
        (pool, cls): run(root, tmp_path / f"{pool}{cls}", encoder=Tiny(cls=cls), pool=pool)[1]
        for pool, cls in (("auto", True), ("cls", True), ("auto", False), ("mean", False), ("mean", True))
    }
    pd.testing.assert_frame_equal(scores["auto", True], scores["cls", True])
    pd.testing.assert_frame_equal(scores["auto", False], scores["mean", False])
    pd.testing.assert_frame_equal(scores["mean", True], scores["mean", False])
    assert (scores["cls", True].knn != scores["mean", True].knn).any()
    with pytest.raises(RiceError, match="no class token; choose pool mean or auto"):
        run(root, tmp_path / "none", pool="cls")


def test_a_damaged_picture_fails_with_its_name(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", noise=10)
    (root / "train" / "red" / "3.png").write_bytes(b"no picture")
    with pytest.raises(RiceError, match=r"cannot read the image .*3\.png"):
        run(root, tmp_path / "work")


def test_what_the_probe_says_of_a_folder(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", noise=10)
    probe = KnnProbe(KnnConfig(train_images_per_class=5), root)
    assert probe.inspect() == "trains on 36 pictures; tests on 36 (test); 3 classes"
    assert probe.count_images() == 15 + 36
    before = probe.fingerprint()
    (root / "test" / "red" / "new.png").write_bytes(b"x")
    assert KnnProbe(KnnConfig(), root).fingerprint() != before


@pytest.mark.parametrize("bad", [{"k": 0}, {"temperature": 0.0}, {"train_images_per_class": 1}])
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RiceError, match="expected k >= 1"):
        KnnConfig(**bad)
