"""One global batch a step, whatever the ranks, workers and the step begun at; boxes enclose what is labelled."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shard_samples import COLOURS, painted, write_dataset_of

from rice.data.batches import assemble, training_view
from rice.data.regions import Draws
from rice.data.shard_reader import Record
from rice.data.shards import DatasetInfo, Sample, write_dataset, write_shard
from rice.data.stream import Batch, RegionStream, StreamConfig
from rice.errors import RiceError

CONFIG = StreamConfig(size=48, regions=4, positives=3, image_positives=2, window=2)
REGIONS = [2, 0, 6, 1, 3, 5, 0, 4, 2, 8, 1, 1, 7]
SAMPLES = [painted(number, regions) for number, regions in enumerate(REGIONS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    write_dataset_of(path, [SAMPLES[:4], SAMPLES[4:5], SAMPLES[5:10], SAMPLES[10:]])
    return path


def steps(stream: RegionStream, first: int, count: int, **options: Any) -> list[Batch]:
    return list(itertools.islice(stream.batches(first, **options), count))


def same(one: Batch, two: Batch) -> bool:
    equal = (a == b if isinstance(a, tuple) else torch.equal(a, b) for a, b in zip(one, two, strict=True))
    return all(equal)


def joined(parts: tuple[Batch, ...]) -> Batch:
    return Batch(*(sum(f, ()) if isinstance(f[0], tuple) else torch.cat(f) for f in zip(*parts, strict=True)))


def test_ranks_share_the_batch_of_one(folder: Path) -> None:
    whole = steps(RegionStream.open(folder, CONFIG, seed=5), 0, 6, batch=6)
    for world in (2, 3, 6):
        streams = [RegionStream.open(folder, CONFIG, seed=5) for _ in range(world)]
        ranks = [steps(stream, 0, 6, batch=6, rank=rank, world=world) for rank, stream in enumerate(streams)]
        assert all(same(joined(parts), batch) for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True))


@pytest.mark.parametrize("first", [1, 2, 7, 40])
def test_any_step_can_be_the_first(folder: Path, first: int) -> None:
    whole = steps(RegionStream.open(folder, CONFIG, seed=5), 0, first + 2, batch=4)
    resumed = steps(RegionStream.open(folder, CONFIG, seed=5), first, 2, batch=4)
    assert same(whole[first], resumed[0])
    assert same(whole[first + 1], resumed[1])


def test_an_epoch_has_every_sample_once_and_another_view_of_it_the_next_time(folder: Path) -> None:
    count = len(SAMPLES)
    stream = RegionStream.open(folder, CONFIG, seed=5)
    first, second = steps(stream, 0, 2, batch=count)
    assert sorted(first.samples.tolist()) == sorted(second.samples.tolist()) == list(range(count))
    assert not torch.equal(first.samples, second.samples)
    shown = [i for i, regions in enumerate(REGIONS) if regions]  # the others are grey all over
    twice = [(first.images[first.samples == i], second.images[second.samples == i]) for i in shown]
    assert not any(torch.equal(a, b) for a, b in twice)


def test_another_seed_is_another_order(folder: Path) -> None:
    one, two = (steps(RegionStream.open(folder, CONFIG, seed=s), 0, 1, batch=13)[0] for s in (0, 1))
    assert not torch.equal(one.samples, two.samples)


def test_a_sample_looks_the_same_in_a_batch_of_any_size(folder: Path) -> None:
    stream = RegionStream.open(folder, CONFIG, seed=5)
    (large,) = steps(stream, 0, 1, batch=12)
    assert same(large, joined(tuple(steps(stream, 0, 4, batch=3))))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(folder: Path, workers: int) -> None:
    config = StreamConfig(**{**CONFIG.__dict__, "workers": workers})
    alone = steps(RegionStream.open(folder, CONFIG, seed=5), 3, 7, batch=4)
    state = torch.get_rng_state()
    shared = steps(RegionStream.open(folder, config, seed=5), 3, 7, batch=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(same, alone, shared))


def test_boxes_enclose_what_they_are_labelled_as(folder: Path) -> None:
    stream = RegionStream.open(folder, CONFIG, seed=5)
    checked = 0
    for batch in steps(stream, 0, 8, batch=13):
        assert (batch.boxes[..., :2] < batch.boxes[..., 2:]).all()
        assert (batch.boxes >= 0).all()
        assert (batch.boxes <= CONFIG.size).all()
        for image, boxes, labels in zip(batch.images, batch.boxes, batch.object_labels[..., 0], strict=True):
            for box, label in zip(boxes[labels >= 0], labels[labels >= 0], strict=True):
                x, y = ((box[:2] + box[2:]) / 2).long().tolist()
                assert np.abs(image[:, y, x].numpy().astype(int) - COLOURS[label]).max() <= 2
                checked += 1
    assert checked > 200


def test_pictures_without_visible_regions_have_a_valid_box_and_no_label(folder: Path) -> None:
    (batch,) = steps(RegionStream.open(folder, CONFIG, seed=5), 0, 1, batch=13)
    empty = torch.isin(batch.samples, torch.tensor([1, 6]))
    assert empty.sum() == 2
    assert (batch.object_labels[empty] == -1).all()
    assert (batch.ocr_labels[empty] == -1).all()
    assert (batch.boxes[empty] == torch.tensor([0.0, 0.0, 48.0, 48.0])).all()
    assert not batch.corrupt.any()


def test_shapes_types_and_positives_are_as_declared(folder: Path) -> None:
    (batch,) = steps(RegionStream.open(folder, CONFIG, seed=5), 0, 1, batch=13)
    declared = [
        (batch.images, torch.uint8, (13, 3, 48, 48)),
        (batch.boxes, torch.float32, (13, 4, 4)),
        (batch.object_labels, torch.int64, (13, 4, 1)),
        (batch.ocr_labels, torch.int64, (13, 4, 3)),
        (batch.image_labels, torch.int64, (13, 2)),
        (batch.samples, torch.int64, (13,)),
        (batch.corrupt, torch.bool, (13,)),
    ]
    for tensor, dtype, shape in declared:
        assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape)
    for sample, words, labels, image_labels in zip(
        batch.samples.tolist(), batch.ocr_labels, batch.object_labels, batch.image_labels, strict=True
    ):
        texts = [set(ids) for ids in SAMPLES[sample].tokens]
        for ids, label in zip(words.tolist(), labels[:, 0].tolist(), strict=True):
            kept = [i for i in ids if i >= 0]
            assert len(set(kept)) == len(kept) <= 3
            assert label == -1 or any(set(kept) <= text for text in texts)
        assert [i for i in image_labels.tolist() if i >= 0] == SAMPLES[sample].image_labels[:2]


def test_every_region_of_the_whole_pictures_is_seen_once(folder: Path) -> None:
    stream = RegionStream.open(folder, CONFIG, seed=5)
    batches = list(stream.all_regions(batch=3))
    assert torch.cat([b.samples for b in batches]).tolist() == list(range(len(SAMPLES)))
    for batch in batches:
        for sample, boxes, labels in zip(batch.samples.tolist(), batch.boxes, batch.object_labels, strict=True):
            annotated = SAMPLES[sample]
            count = len(annotated.labels)
            scale = np.array([48 / annotated.width, 48 / annotated.height] * 2)
            np.testing.assert_allclose(boxes[:count].numpy(), annotated.boxes * scale, rtol=1e-6)
            assert labels[:, 0].tolist() == annotated.labels + [-1] * (len(labels) - count)


def test_keys_name_shard_and_sample(folder: Path) -> None:
    stream = RegionStream.open(folder, CONFIG)
    assert stream.keys([0, 4, 12]) == ["toy-000000:00000", "toy-000001:00004", "toy-000003:00012"]
    assert stream.keys(torch.tensor([9])) == ["toy-000002:00009"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"no picture", lambda data: b"\0"]
)
def test_a_damaged_picture_is_flagged_with_its_reason_and_spares_the_others(
    tmp_path: Path, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    wrong = Sample(**{**SAMPLES[2].__dict__, "image": damage(SAMPLES[2].image)})
    write_dataset_of(tmp_path, [[*SAMPLES[:2], wrong, SAMPLES[3]], *([s] for s in [SAMPLES[4]])])
    stream = RegionStream.open(tmp_path, CONFIG, seed=5)
    (batch,) = steps(stream, 0, 1, batch=5)
    assert batch.corrupt.tolist() == (batch.samples == 2).tolist()
    assert len(batch.reasons) == 1
    assert batch.reasons[0]
    assert (batch.images[batch.corrupt] == 0).all()
    for labels in (batch.object_labels, batch.ocr_labels, batch.image_labels):
        assert (labels[batch.corrupt] == -1).all()
    whole = RegionStream.open(folder, CONFIG, seed=5)
    record = whole._shards[0].sidecar.record(3)
    view = training_view(record, CONFIG, Draws(5, 0, 3))
    alone = assemble([view], [SAMPLES[3].image], np.array([3]), CONFIG, CONFIG.regions)
    assert torch.equal(batch.images[batch.samples == 3], alone.images)
    assert torch.equal(batch.boxes[batch.samples == 3], alone.boxes)


@pytest.mark.data
def test_a_corrupt_jpeg_among_the_shards_is_flagged(tmp_path: Path, shared_data: Path) -> None:
    broken = (shared_data / "broken" / "broken.jpg").read_bytes()
    wrong = Sample(**{**SAMPLES[2].__dict__, "image": broken, "suffix": "jpg"})
    write_dataset_of(tmp_path, [[SAMPLES[0], wrong]])
    (batch,) = steps(RegionStream.open(tmp_path, CONFIG), 0, 1, batch=2)
    assert batch.corrupt.tolist() == (batch.samples == 1).tolist()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_label_beyond_the_classes_stops_in_one_line(tmp_path: Path, workers: int) -> None:
    shard = write_shard(tmp_path, "toy-000000", SAMPLES[:3])
    most = max(label for sample in SAMPLES[:3] for label in sample.labels)
    write_dataset(tmp_path, DatasetInfo(object_classes=most, ocr_classes=50, shards=(shard,)))
    stream = RegionStream.open(tmp_path, StreamConfig(size=48, workers=workers))
    with pytest.raises(RiceError, match=rf"toy-000000\.parquet: 0000\d has the object label {most}") as caught:
        next(stream.batches(batch=2))
    assert "\n" not in str(caught.value)


def test_a_truncated_shard_stops_in_one_line(tmp_path: Path) -> None:
    write_dataset_of(tmp_path, [SAMPLES[:3]])
    tar = tmp_path / "toy-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-100])
    with pytest.raises(RiceError, match=r"toy-000000\.tar has \d+ bytes"):
        next(RegionStream.open(tmp_path, CONFIG).batches(batch=2))


def test_folders_join_and_must_agree_on_the_classes(tmp_path: Path, folder: Path) -> None:
    write_dataset_of(tmp_path / "text", [[Sample(**{**SAMPLES[3].__dict__, "tokens": [[]]})]], ocr_classes=0)
    stream = RegionStream.open([folder, tmp_path / "text"], CONFIG)
    assert (stream.samples, stream.object_classes, stream.ocr_classes) == (len(SAMPLES) + 1, len(COLOURS), 50)
    assert stream.keys([13]) == ["toy-000000:00003"]
    write_dataset_of(tmp_path / "more", [SAMPLES[:1]], ocr_classes=60)
    with pytest.raises(RiceError, match=r"expected one number of ocr_classes in all folders, got 50 in .*, 60 in"):
        RegionStream.open([folder, tmp_path / "more"], CONFIG)


@pytest.mark.parametrize(("batch", "world", "start"), [(5, 2, 1), (0, 1, 1), (2, 3, 2), (32_768, 56, 32)])
def test_ranks_must_divide_the_batch_and_it_is_said_how_many_do(
    folder: Path, batch: int, world: int, start: int
) -> None:
    with pytest.raises(RiceError, match=f"{world} ranks divide evenly, got {batch}; start {start}, or"):
        RegionStream.open(folder, CONFIG).batches(batch=batch, world=world)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"regions": 0},
        {"positives": 0},
        {"image_positives": 0},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 1.1)},
        {"crop_scale": (0.9, 0.8)},
        {"crop_ratio": (0.0, 1.0)},
        {"flip": 1.5},
        {"min_visible": 0.0},
        {"min_edge": -1.0},
        {"window": 0},
        {"workers": -1},
        {"prefetch": 0},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(RiceError, match=next(iter(wrong))):
        StreamConfig(**{"size": 48} | wrong)


def test_only_a_few_shards_are_held_in_memory(tmp_path: Path) -> None:
    write_dataset_of(tmp_path, [[painted(i, 1)] for i in range(12)])
    stream = RegionStream.open(tmp_path, StreamConfig(size=16, window=2))
    for _ in itertools.islice(stream.batches(batch=3), 8):
        held = [shard for shard in stream._shards if "sidecar" in shard.__dict__]
        assert len(held) <= 4


def test_a_region_needs_half_of_itself_in_the_crop() -> None:
    config = StreamConfig(size=32, regions=2, crop_scale=(0.2, 0.6), min_visible=0.5)
    none = np.zeros(0, dtype=np.int32)
    box = np.array([[0, 0, 50, 50]], dtype=np.uint16)
    record = Record("x", 100, 100, box, np.array([3], dtype=np.int32), [none], none)
    for sample in range(300):
        view = training_view(record, config, Draws(0, 0, sample))
        crop, mask = view.crop, np.zeros((100, 100))
        mask[:50, :50] = 1
        inside = mask[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width].sum() / mask.sum()
        assert view.labels.tolist() == ([3, 3] if inside >= 0.5 else [])


@pytest.mark.parametrize(("tokens", "mirrored"), [([], True), ([3], False)])
def test_pictures_with_text_are_never_mirrored(tokens: list[int], mirrored: bool) -> None:
    record = Record(
        key="a",
        width=64,
        height=64,
        boxes=np.array([[0, 0, 8, 8], [8, 8, 60, 60]], dtype=np.uint16),
        labels=np.array([1, -1], dtype=np.int32),
        tokens=[np.array([], dtype=np.int32), np.array(tokens, dtype=np.int32)],
        image_labels=np.array([], dtype=np.int32),
    )
    views = [training_view(record, replace(CONFIG, flip=1.0), Draws(0, 0, sample)) for sample in range(5)]
    assert {view.flip for view in views} == {mirrored}


def test_regions_of_too_few_pixels_are_not_shown(folder: Path) -> None:
    """In crops and in whole pictures alike, and none of the others is lost."""

    def of(batch: Batch) -> set[tuple[float, ...]]:
        known = (batch.object_labels[:, :, 0] >= 0) | (batch.ocr_labels >= 0).any(2)
        return {tuple(box) for box in batch.boxes[known].tolist()}

    def edge(box: tuple[float, ...]) -> float:
        return min(box[2] - box[0], box[3] - box[1])

    every, large = (RegionStream.open(folder, replace(CONFIG, min_edge=e, regions=64), seed=5) for e in (0.0, 12.0))
    for run in (lambda stream: next(stream.batches(batch=13)), lambda stream: next(stream.all_regions(batch=13))):
        assert {box for box in of(run(every)) if edge(box) >= 12} == of(run(large)) != of(run(every))
