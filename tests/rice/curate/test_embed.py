"""Every region has the feature of its own crop, in the order of the regions, however they are batched."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor, resize

import rice
from rice.curate.config import CheckConfig, EmbedConfig, EngineConfig
from rice.curate.embed import CropFeatures, EmbedStage, build_features
from rice.curate.engine import Engine
from rice.curate.features import find_features
from rice.curate.pictures import decoded, kept
from rice.curate.propose import SCHEMA
from rice.curate.sources import find_sources
from rice.curate.take import take_pictures
from rice.encoders.base import Encoder, Features
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError
from rice.progress import SilentProgress

MINI = EmbedConfig(encoder="mini-s8-128", batch=5)


def drawn(count: int, seed: int, width: int = 96, height: int = 80) -> np.ndarray:
    dice = np.random.default_rng(seed)
    corners = dice.integers(0, (width // 2, height // 2), (count, 2))
    return np.concatenate([corners, corners + dice.integers(8, 40, (count, 2))], axis=1).astype(np.uint16)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (80, 96, 3), dtype=np.uint8)


def test_a_region_has_the_feature_of_its_own_crop_whatever_lies_in_its_batch() -> None:
    features, encoder = build_features(MINI, "cpu"), rice.load_encoder("mini-s8-128")
    expected = []
    for number, count in enumerate((3, 7, 1, 4)):
        pixels, boxes = noise(number), drawn(count, number)
        features.add(pixels, boxes)
        for box in boxes.tolist():
            crop = pil_to_tensor(Image.fromarray(pixels).crop(tuple(box)))
            image = resize(crop, [128, 128], antialias=True).float() / 255
            expected.append(nn.functional.normalize(encoder(image[None]).cls, dim=-1)[0])
    found = features.take()
    assert found.dtype == np.float16
    assert np.abs(found - torch.stack(expected).numpy()).max() < 2e-3
    assert len(features.take()) == 0


def test_an_encoder_without_a_class_token_gives_the_mean_of_its_normalised_patches() -> None:
    def extract(module: nn.Module, images: torch.Tensor, layer: int) -> Features:
        return Features(module(images), None)

    torch.manual_seed(0)
    facts = {"patch": 4, "size_multiple": 4, "width": 6, "native_size": 16, "mean": (0, 0, 0), "std": (1, 1, 1)}
    spec = EncoderSpec(name="toy", source="toy", **facts)  # type: ignore[arg-type]
    module = nn.Conv2d(3, 6, 4, stride=4).requires_grad_(False)
    features = CropFeatures(Encoder(module, spec, extract, weights="random"), batch=2)
    pixels, boxes = noise(1), drawn(3, 1)
    features.add(pixels, boxes)
    rows = []
    for box in boxes.tolist():
        image = resize(pil_to_tensor(Image.fromarray(pixels).crop(tuple(box))), [16, 16], antialias=True).double() / 255
        tokens = module.double()(image[None])[0].flatten(1).T
        normed = (tokens - tokens.mean(1, keepdim=True)) / (tokens.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        mean = normed.mean(0)
        rows.append((mean / mean.norm()).numpy())
        module.float()
    assert np.abs(features.take() - np.array(rows)).max() < 2e-3


@pytest.fixture
def curation(tmp_path: Path) -> Path:
    """Pictures, and regions of some of them."""
    pile.write_files(tmp_path / "in", {f"{k}.png": pile.encoded(noise(k), "PNG") for k in range(4)})
    with Engine(EngineConfig(workers=1, device="cpu"), 1) as engine:
        sources = find_sources([tmp_path / "in"], 10)
        take_pictures(sources, tmp_path / "out", CheckConfig(min_edge=10), engine, SilentProgress())
    return tmp_path / "out"


def propose(out: Path, counts: list[int]) -> list[Any]:
    pictures = kept(out, "in-000000")
    boxes = [drawn(count, number).tolist() for number, count in enumerate(counts)]
    rows = [
        {"key": picture["key"], "boxes": own, "scores": [1.0] * len(own)}
        for picture, own in zip(pictures, boxes, strict=True)
    ]
    (out / "propose").mkdir()
    path = out / "propose" / "in-000000.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    pile.finish(out, "propose", "in-000000", path)
    return boxes


@pytest.mark.parametrize("pool", ["crops", "roi_align"])
@pytest.mark.parametrize("counts", [[2, 0, 3, 1], [0, 0, 0, 0]])
def test_rows_are_in_the_order_of_pictures_and_their_regions(curation: Path, pool: Any, counts: list[int]) -> None:
    boxes = propose(curation, counts)
    config = EmbedConfig(encoder="mini-s8-128", pool=pool)
    with Engine(EngineConfig(workers=1, device="cpu"), 1) as engine:
        engine.run(EmbedStage(curation, config), {"in-000000": 4}, SilentProgress())
    found = np.load(curation / "embed" / "in-000000.npy")
    pictures = kept(curation, "in-000000")
    alone, expected = build_features(config, "cpu"), [np.zeros((0, 128), np.float16)]
    for pixels, own in zip(decoded(curation, "in-000000", pictures), boxes, strict=True):
        for box in own:
            alone.add(pixels, np.array([box], np.uint16))
            expected.append(alone.take())
    assert found.shape == (sum(counts), 128)
    assert np.abs(found.astype(np.float32) - np.concatenate(expected)).max(initial=0) < 2e-3
    assert np.abs(np.linalg.norm(found.astype(np.float32), axis=1) - 1).max(initial=0) < 1e-3


def test_a_shard_that_fails_leaves_nothing_to_the_next(curation: Path) -> None:
    propose(curation, [2, 0, 3, 1])
    tar = curation / "shards" / "in-000000.tar"
    sound = tar.read_bytes()
    last = kept(curation, "in-000000")[-1]
    tar.write_bytes(sound[: last["offset"]] + bytes(last["length"]) + sound[last["offset"] + last["length"] :])
    stage = EmbedStage(curation, MINI)
    work = stage.open("cpu")
    with pytest.raises(RiceError, match=f"damaged at {last['key']}"):
        list(stage.do(work, "in-000000"))
    tar.write_bytes(sound)
    list(stage.do(work, "in-000000"))
    assert np.load(curation / "embed" / "in-000000.npy").shape == (6, 128)


def test_other_features_of_one_shape_are_not_taken_for_those_that_were_clustered(curation: Path) -> None:
    propose(curation, [2, 0, 3, 1])
    with Engine(EngineConfig(workers=1, device="cpu"), 1) as engine:
        engine.run(EmbedStage(curation, MINI), {"in-000000": 4}, SilentProgress())
    before = find_features(curation / "embed").fingerprint()
    assert find_features(curation / "embed").fingerprint() == before
    shutil.rmtree(curation / "embed")
    with Engine(EngineConfig(workers=1, device="cpu"), 1) as engine:
        other = EmbedConfig(encoder="mini-s8-128", pool="roi_align")
        engine.run(EmbedStage(curation, other), {"in-000000": 4}, SilentProgress())
    assert find_features(curation / "embed").fingerprint() != before


def test_before_there_are_regions_it_is_said_what_to_run(curation: Path) -> None:
    with Engine(EngineConfig(workers=1, device="cpu"), 1) as engine, pytest.raises(RiceError) as error:
        engine.run(EmbedStage(curation, MINI), {"in-000000": 4}, SilentProgress())
    assert "propose has no in-000000 yet" in str(error.value)
    assert f"run rice curate propose {curation}" in str(error.value)
