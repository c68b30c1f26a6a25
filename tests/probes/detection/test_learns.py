"""The detector learns what is in frozen tokens, on photos and on generated scenes, and nothing where nothing is."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from worlds import edited

from probes.detection.config import DetectionConfig
from probes.detection.probe import DetectionProbe
from probes.detection.recipe import small
from rice.data.coco import open_split
from rice.data.world import WorldConfig, materialise
from rice.encoders.base import Encoder, Features
from rice.encoders.load import load_encoder
from rice.progress import SilentProgress


def scores(encoder: Encoder, config: DetectionConfig, data: Path, workdir: Path, seed: int = 0) -> dict[str, float]:
    """AP in percent by metric."""
    found = DetectionProbe(config, data).run(encoder, seed=seed, workdir=workdir, progress=SilentProgress())
    return {metric.name: 100 * metric.value for metric in found}


def four_photos(data: Path, out: Path) -> Path:
    """A dataset of the first four real photos with one to four objects; their files stay where they are."""
    split = open_split(data / "coco", "train2017")
    document = split.as_coco()
    kept = [image.id for image in split.images if 1 <= len(image.annotations) <= 4][:4]
    document["images"] = [image for image in document["images"] if image["id"] in kept]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in kept]
    for annotation in document["annotations"]:
        if isinstance(annotation["segmentation"], list):
            annotation["segmentation"] = [list(polygon) for polygon in annotation["segmentation"]]
    (out / "annotations").mkdir(parents=True)
    (out / "annotations/instances_train2017.json").write_text(json.dumps(document))
    (out / "train2017").symlink_to(split.files.folder)
    return out


@pytest.mark.slow
@pytest.mark.data
def test_real_photos_are_learnt_by_heart(shared_data: Path, tmp_path: Path) -> None:
    """COCO photos at 256 pixels with reduced heads, half a minute: box AP over 60, mask AP over 45."""
    reduced = {"channels": 32, "hidden": 128, "roi_samples": 32, "rpn_top": (200, 100), "proposals": 60, "box_convs": 1}
    config = replace(
        small(),
        heads=replace(small().heads, **reduced),
        epochs=120,
        learning_rate=3e-3,
        weight_decay=0.0,
        warmup=10,
        flip=0.0,
        cache_gb=1.0,
        train_split="train2017",
        test_split="train2017",
    )
    encoder = load_encoder("timm:vit_small_patch16_224@256", weights=None)
    found = scores(encoder, config, four_photos(shared_data, tmp_path / "photos"), tmp_path / "work")
    assert found["box AP"] > 60
    assert found["mask AP"] > 45


def one_category(document: dict[str, Any]) -> None:
    document["categories"] = [{"id": 1, "name": "thing"}]
    for annotation in document["annotations"]:
        annotation["category_id"] = 1


def shuffled(encoder: Encoder) -> Encoder:
    """The same tokens in another order, of every picture its own: what is there is known, where it is is not."""
    extract: Callable[[nn.Module, Tensor, int], Features] = encoder._extract

    def mixed(module: nn.Module, images_B3HW: Tensor, layer: int) -> Features:
        found = extract(module, images_B3HW, layer)
        rows = []
        for patches_Dhw in found.patches:
            seed = int(patches_Dhw.double().sum().abs() * 1e6) % 2**32
            order = np.random.default_rng(seed).permutation(patches_Dhw[0].numel())
            rows.append(patches_Dhw.flatten(1)[:, order].view_as(patches_Dhw))
        return Features(torch.stack(rows), found.cls)

    return Encoder(encoder.module, encoder.spec, mixed, weights=encoder.weights)


@pytest.mark.slow
def test_features_in_their_places_beat_the_same_ones_shuffled_on_held_out_scenes(tmp_path: Path) -> None:
    """By 10 AP of boxes and more. Of one category: what a test has time for is to find things."""
    root = materialise(WorldConfig(size=128, train=160, test=50, words=(0, 0), objects=(2, 4)), tmp_path / "world")
    for split in ("train", "val"):
        edited(root, split, one_category)
    heads = replace(
        small().heads,
        channels=48,
        hidden=128,
        rpn_convs=1,
        box_convs=1,
        rpn_samples=64,
        rpn_top=(200, 100),
        proposals=60,
        roi_samples=32,
        masks="never",
    )
    config = replace(small(), epochs=7, batch=8, learning_rate=3e-3, cache_gb=1.0, heads=heads)
    encoder = load_encoder("mini-s8-128")
    placed = scores(encoder, config, root, tmp_path / "placed")["box AP"]
    assert placed > scores(shuffled(encoder), config, root, tmp_path / "shuffled")["box AP"] + 10


@pytest.mark.data
def test_real_exports_are_read_trained_and_judged(shared_data: Path, tmp_path: Path) -> None:
    """Roboflow's own file with one category name under two ids; and Pascal VOC's layout."""
    bccd = DetectionProbe(small(), shared_data / "bccd").inspect()
    assert "trains on train (205 images" in bccd
    assert "tests on test (72 images" in bccd
    facade = open_split(shared_data / "facade")
    names = [category.name for category in facade.categories]
    twin = next(name for name in names if names.count(name) > 1)
    split = facade.name
    config = replace(
        small(), epochs=1, train_images=4, test_images=4, train_split=split, test_split=split, warmup=0, batch=2
    )
    config = dataclasses.replace(config, heads=replace(config.heads, channels=16, hidden=32, score_threshold=0.001))
    encoder = load_encoder("mini-s8-128")
    found = scores(encoder, config, shared_data / "facade", tmp_path)
    assert 0 <= found["box AP"] <= 100
    assert names.count(twin) == 2
