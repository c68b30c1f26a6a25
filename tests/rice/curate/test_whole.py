"""Image-level labels are the nearest centres of whole pictures' features, and nothing else of the shards changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from rice.curate.config import KMeansConfig
from rice.curate.whole import as_regions, label_whole
from rice.data.coco import open_split
from rice.data.pack import PackConfig, pack_split
from rice.data.stream import RegionStream, StreamConfig
from rice.data.world import WorldConfig, materialise
from rice.encoders.load import load_encoder
from rice.errors import RiceError
from rice.progress import SilentProgress

QUIET = SilentProgress()
ENCODER = "mini-s8-128@64"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    world = materialise(WorldConfig(size=64, train=24, test=1, objects=(1, 3), words=(0, 0)), root / "world")
    pack_split(open_split(world, "train"), root / "packed", PackConfig(samples_per_shard=10), QUIET)
    return root / "packed"


def test_labels_are_the_nearest_centres_of_the_class_tokens(packed: Path, tmp_path: Path) -> None:
    shards = label_whole(packed, tmp_path, ENCODER, KMeansConfig(clusters=5), QUIET, nearest=3)
    stream = RegionStream.open(shards, StreamConfig(size=64, image_positives=3))
    before = RegionStream.open(packed, StreamConfig(size=64))
    batch, own = next(stream.all_regions(batch=24)), next(before.all_regions(batch=24))
    assert torch.equal(batch.images, own.images)
    cls_ND = load_encoder(ENCODER)(own.images.float() / 255).cls
    assert cls_ND is not None
    points = cls_ND.half().double().numpy()
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    centres = load_file(tmp_path / "clusters" / "centres.safetensors")["centres"].astype(np.float64)
    distances = ((points[:, None] - centres[None]) ** 2).sum(-1)
    assert np.array_equal(batch.image_labels.numpy(), np.argsort(distances, axis=1)[:, :3])
    assert (stream.object_classes, stream.regions, stream.samples) == (5, 0, 24)


def test_a_whole_as_a_region_is_all_of_the_picture_with_its_nearest_cluster(packed: Path, tmp_path: Path) -> None:
    shards = label_whole(packed, tmp_path / "whole", ENCODER, KMeansConfig(clusters=5), QUIET, nearest=2)
    wholes = RegionStream.open(shards, StreamConfig(size=64, image_positives=1))
    boxed = RegionStream.open(as_regions(shards, tmp_path / "boxed"), StreamConfig(size=64))
    found, own = next(boxed.all_regions(batch=24)), next(wholes.all_regions(batch=24))
    assert torch.equal(found.images, own.images)
    assert found.boxes.flatten(0, -2).tolist() == [[0.0, 0.0, 64.0, 64.0]] * 24
    assert torch.equal(found.object_labels.flatten(), own.image_labels[:, 0])
    assert (boxed.object_classes, boxed.regions) == (5, 24)


def test_a_second_call_computes_nothing(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = label_whole(packed, tmp_path, ENCODER, KMeansConfig(clusters=5), QUIET, nearest=2)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    monkeypatch.setattr("rice.curate.whole.load_encoder", None)
    assert label_whole(packed, tmp_path, ENCODER, KMeansConfig(clusters=5), QUIET, nearest=2) == first
    assert before == {path.name: path.read_bytes() for path in first.iterdir()}


def test_labels_by_other_settings_are_kept(packed: Path, tmp_path: Path) -> None:
    label_whole(packed, tmp_path, ENCODER, KMeansConfig(clusters=5), QUIET, nearest=2)
    with pytest.raises(RiceError, match="holds another run: its clusters is 5, not 4"):
        label_whole(packed, tmp_path, ENCODER, KMeansConfig(clusters=4), QUIET, nearest=2)


def test_fewer_clusters_than_labels_are_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="at least as many clusters"):
        label_whole(packed, tmp_path, ENCODER, KMeansConfig(clusters=5), QUIET, nearest=6)
    assert not list(tmp_path.iterdir())
