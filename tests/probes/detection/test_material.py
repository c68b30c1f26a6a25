"""What a detector is given of a picture: the same tokens and targets from disk or computed, on any number of ranks."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probes.cache import CachedFeatures, FeatureSource
from probes.detection.config import DetectionConfig, HeadsConfig
from probes.detection.data import samples
from probes.detection.evaluate import to_results
from probes.detection.material import Canvas, Material, as_tokens, cache_bytes, held_out, prepare
from probes.detection.model import Detections, Target
from probes.detection.views import View
from rice.errors import RiceError
from rice.progress import SilentProgress

from .folders import CATEGORIES, Scene, Thing, tiny_encoder, write_split

SIZE = 32


def disc(width: int, height: int, x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width] + 0.5
    found: NDArray[np.bool_] = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return found


def round_thing(category: int, width: int, height: int, x: float, y: float, radius: float) -> Thing:
    return Thing(category, (x - radius, y - radius, 2 * radius, 2 * radius), disc(width, height, x, y, radius))


SCENES = [
    Scene(48, 30, [round_thing(0, 48, 30, 12, 10, 7), round_thing(2, 48, 30, 36, 18, 10)]),  # wide
    Scene(20, 64, [round_thing(1, 20, 64, 10, 40, 8), Thing(3, (2.0, 2.0, 9.0, 20.0))]),  # tall
    Scene(32, 32, [Thing(0, (4.0, 6.0, 12.0, 20.0))]),  # as it is shown
    Scene(90, 10, [Thing(1, (50.0, 1.0, 30.0, 8.0))]),
    Scene(8, 80, [Thing(2, (1.0, 30.0, 6.0, 40.0)), Thing(2, (0.0, 0.0, 8.0, 9.0), crowd=True)]),
]


def settings(**changes: Any) -> DetectionConfig:
    return dataclasses.replace(DetectionConfig(batch=3, heads=HeadsConfig(masks="always")), **changes)


def material_of(
    tmp_path: Path, config: DetectionConfig, scenes: Sequence[Scene] = SCENES, patch: int = 4, size: int = SIZE
) -> Material:
    root = tmp_path / f"data-{len(list(tmp_path.iterdir()))}"
    train, test = write_split(root, "train", scenes), write_split(root, "val", scenes[:3], seed=1)
    folder = tmp_path / f"cell-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    return prepare(tiny_encoder(patch, native=size), train, test, size, config, folder, SilentProgress())


def steps_of(
    material: Material, count: int, seed: int = 0, start: int = 0, rank: int = 0, ranks: int = 1
) -> list[tuple[Tensor, list[Target]]]:
    return list(itertools.islice(material.batches(seed, start, rank, ranks), count))


def assert_same_target(left: Target, right: Target) -> None:
    assert left.size == right.size
    assert torch.equal(left.boxes, right.boxes)
    assert torch.equal(left.labels, right.labels)
    assert (left.masks is None) == (right.masks is None)
    assert left.masks is None or right.masks is None or torch.equal(left.masks, right.masks)


def assert_same_steps(
    left: Sequence[tuple[Tensor, list[Target]]], right: Sequence[tuple[Tensor, list[Target]]]
) -> None:
    for (tokens, targets), (expected, wanted) in zip(left, right, strict=True):
        assert torch.equal(tokens, expected)
        for mine, reference in zip(targets, wanted, strict=True):
            assert_same_target(mine, reference)


@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_cached_and_computed_material_are_bit_identical(tmp_path: Path, flip: float) -> None:
    cached = material_of(tmp_path, settings(cache_gb=1.0, flip=flip))
    computed = material_of(tmp_path, settings(flip=flip))
    assert isinstance(cached.cached, CachedFeatures)
    assert computed.cached is None
    assert_same_steps(steps_of(cached, 6, seed=3), steps_of(computed, 6, seed=3))
    assert isinstance(cached.test.features, CachedFeatures)
    assert isinstance(computed.test.features, FeatureSource)
    for left, right in zip(*(m.test.features.stream([[0, 2], [1]]) for m in (cached, computed)), strict=True):
        assert torch.equal(left, right)


def test_a_cache_is_read_again_and_not_computed_again(tmp_path: Path) -> None:
    root = tmp_path / "data"
    train, test = write_split(root, "train", SCENES), write_split(root, "val", SCENES[:2], seed=1)
    folder, config = tmp_path / "cell", settings(cache_gb=1.0)
    folder.mkdir()
    encoder = tiny_encoder()
    first = steps_of(prepare(encoder, train, test, SIZE, config, folder, SilentProgress()), 2)

    def refuse(module: nn.Module, images: Tensor, layer: int) -> Any:
        raise AssertionError("computed again")

    encoder._extract = refuse
    assert_same_steps(first, steps_of(prepare(encoder, train, test, SIZE, config, folder, SilentProgress()), 2))
    other = dataclasses.replace(config, amp=False)
    with pytest.raises(RiceError, match="holds other features than expected"):  # bf16 gives other tokens, on a GPU
        prepare(encoder, train, test, SIZE, other, folder, SilentProgress())


def tokens_by_hand(material: Material, position: int, view: View) -> Tensor:
    """(D, h, w), float64: mean colour of each patch of the padded picture, normalised over D."""
    split, edge = material.train.split, material.canvas.edge
    pixels = np.asarray(view.picture(split.load_image(material.train.images[position])), np.float64) / 255
    mean, std = (np.array(v, np.float64) for v in (material.encoder.spec.mean, material.encoder.spec.std))
    square = np.zeros((edge, edge, 3))
    square[: pixels.shape[0], : pixels.shape[1]] = (pixels - mean) / std  # padding: zero to the encoder
    patch, (rows, columns) = material.encoder.spec.patch, material.canvas.grid
    cells = square[: rows * patch, : columns * patch].reshape(rows, patch, columns, patch, 3).mean((1, 3))
    tokens = np.concatenate([cells, np.full((rows, columns, 1), 0.5)], 2)
    centred = tokens - tokens.mean(2, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(2, keepdims=True) + 1e-5)
    return torch.from_numpy(normed).permute(2, 0, 1)


@pytest.mark.parametrize(("patch", "size"), [(4, 32), (14, 50)])
def test_tokens_are_those_of_the_picture_as_its_view_shows_it(tmp_path: Path, patch: int, size: int) -> None:
    for config in (settings(), settings(jitter=(0.3, 2.0))):
        material = material_of(tmp_path, config, patch=patch, size=size)
        plan = itertools.islice(samples(material.train.repeats, 3, 5, 0), 4)
        for step, (tokens, targets) in zip(plan, steps_of(material, 4, seed=5), strict=True):
            for sample, found, target in zip(step, tokens, targets, strict=True):
                view = material.view(sample, 5)
                assert target.size == view.shown[::-1]
                expected = tokens_by_hand(material, sample.position, view)
                torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-3)  # fp16


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_shares_of_the_ranks_are_together_the_one_batch(tmp_path: Path, cache_gb: float, ranks: int) -> None:
    material = material_of(tmp_path, settings(batch=6, cache_gb=cache_gb))
    whole = steps_of(material, 4)
    shares = [steps_of(material, 4, rank=rank, ranks=ranks) for rank in range(ranks)]
    for number, (tokens, targets) in enumerate(whole):
        for rank, share in enumerate(shares):
            assert_same_steps([share[number]], [(tokens[rank::ranks], targets[rank::ranks])])


def test_a_training_resumed_at_a_step_is_given_what_an_unbroken_one_is(tmp_path: Path) -> None:
    material = material_of(tmp_path, settings(jitter=(0.5, 1.5)))
    assert_same_steps(steps_of(material, 3, start=4), steps_of(material, 7)[4:])


def test_another_seed_shows_other_pictures_in_other_ways(tmp_path: Path) -> None:
    material = material_of(tmp_path, settings(jitter=(0.5, 1.5)))
    left, right = ([t.size for _, targets in steps_of(material, 6, seed=s) for t in targets] for s in (0, 1))
    assert left != right
    views = {material.view(sample, 0) for step in itertools.islice(samples(np.ones(1), 9, 0), 3) for sample in step}
    assert len(views) > 20, "a picture is shown anew each time, but for chance"


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.2, 2.0)])
def test_boxes_lie_within_what_is_shown_and_masks_are_theirs(tmp_path: Path, jitter: tuple[float, float]) -> None:
    material = material_of(tmp_path, settings(jitter=jitter, batch=5))
    seen = 0
    for _, targets in steps_of(material, 12):
        for target in targets:
            height, width = target.size
            assert max(height, width) <= SIZE
            assert target.masks is not None
            assert len(target.boxes) == len(target.labels) == len(target.masks)
            assert target.masks.shape[1:] == (SIZE, SIZE)
            assert not target.masks[:, height:].any()
            assert not target.masks[:, :, width:].any()
            for box, mask in zip(target.boxes.tolist(), target.masks.numpy(), strict=True):
                assert 0 <= box[0] < box[2] <= width
                assert 0 <= box[1] < box[3] <= height
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                bounds = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                np.testing.assert_allclose(bounds, box, atol=1.01)
                seen += 1
    assert seen > 30


def test_a_cut_object_has_the_box_of_what_is_left_of_its_mask(tmp_path: Path) -> None:
    """A disc cut near its rim is narrower than its box is: a triangle's visible part has another box."""
    mask = np.tri(64, 64, dtype=bool)  # lower left half
    scene = Scene(64, 64, [Thing(0, (0.0, 0.0, 64.0, 64.0), mask)])
    material = material_of(tmp_path, settings(), [scene, scene, scene])
    for offset in ((0, 0), (20, 0), (0, 32), (30, 10)):
        view = View(64, 64, False, (64, 64), offset, (32, 32))
        target = material.target(0, view)
        part = mask[offset[1] : offset[1] + 32, offset[0] : offset[0] + 32]
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert target.boxes.tolist() == [[float(value) for value in expected]]
        assert target.masks is not None
        assert torch.equal(target.masks[0], torch.from_numpy(part))
    unseen = material.target(0, View(64, 64, False, (64, 64), (32, 0), (32, 32)))
    assert len(unseen.boxes) == len(unseen.labels) == 0
    assert unseen.masks is not None
    assert unseen.masks.shape == (0, SIZE, SIZE)


def test_without_masks_boxes_are_cut_and_those_that_are_not_visible_left_out(tmp_path: Path) -> None:
    things = [Thing(1, (2.0, 3.0, 10.5, 20.0)), Thing(2, (40.0, 40.0, 10.0, 8.0)), Thing(3, (30.0, 0.0, 20.0, 64.0))]
    material = material_of(tmp_path, settings(heads=HeadsConfig(masks="never")), [Scene(64, 64, things)] * 3)
    target = material.target(0, View(64, 64, False, (64, 64), (4, 8), (32, 32)))
    assert target.masks is None
    assert target.labels.tolist() == [1, 3]
    assert target.boxes.tolist() == [[0.0, 0.0, 8.5, 15.0], [26.0, 0.0, 32.0, 32.0]]


def test_a_box_too_thin_for_single_precision_is_left_out(tmp_path: Path) -> None:
    """Its offsets would be the logarithm of zero, and the loss infinite."""
    things = [Thing(1, (20.0, 3.0, 1e-7, 20.0), None), Thing(2, (4.0, 4.0, 10.0, 8.0), None)]
    material = material_of(tmp_path, settings(heads=HeadsConfig(masks="never")), [Scene(32, 32, things)] * 3)
    boxes = material.target(0, View.whole(32, 32, SIZE)).boxes
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(boxes) == 1


def test_the_target_of_a_mirrored_view_is_the_mirrored_target(tmp_path: Path) -> None:
    material = material_of(tmp_path, settings())
    for position, index in enumerate(material.train.images):
        record = material.train.split.images[index]
        plain, mirrored = (
            material.target(position, View.whole(record.width, record.height, SIZE, flip=flip))
            for flip in (False, True)
        )
        height, width = plain.size
        assert mirrored.size == plain.size
        assert torch.equal(mirrored.labels, plain.labels)
        expected = plain.boxes.clone()
        expected[:, 0], expected[:, 2] = width - plain.boxes[:, 2], width - plain.boxes[:, 0]
        torch.testing.assert_close(mirrored.boxes, expected, rtol=0, atol=1e-4)
        assert plain.masks is not None
        assert mirrored.masks is not None
        assert torch.equal(mirrored.masks[:, :height, :width], plain.masks[:, :height, :width].flip(2))


def test_an_object_too_small_to_be_seen_is_not_learnt_where_masks_are(tmp_path: Path) -> None:
    """A tenth of a pixel of the square; its box alone would have an area."""
    scene = Scene(320, 320, [Thing(0, (15.0, 15.0, 1.0, 1.0)), Thing(1, (100.0, 100.0, 60.0, 60.0))])
    material = material_of(tmp_path, settings(), [scene] * 3)
    assert material.target(0, View.whole(320, 320, SIZE)).labels.tolist() == [1]
    boxes = material_of(tmp_path, settings(heads=HeadsConfig(masks="never")), [scene] * 3)
    assert boxes.target(0, View.whole(320, 320, SIZE)).labels.tolist() == [0, 1]


def test_crowds_are_not_learnt(tmp_path: Path) -> None:
    material = material_of(tmp_path, settings())
    assert material.target(4, View.whole(8, 80, SIZE)).labels.tolist() == [2]


def test_what_is_shown_of_a_test_picture_maps_back_to_it(tmp_path: Path) -> None:
    split = write_split(tmp_path / "data", "val", SCENES)
    part = held_out(tiny_encoder(), split, SIZE)
    assert part.images == tuple(range(len(SCENES)))
    for index, scene in enumerate(SCENES):
        view = part.view(index)
        assert not view.flip
        assert not view.crops
        assert max(view.shown) == SIZE
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (thing.box for thing in scene.things)])
        shown = torch.from_numpy(view.boxes(boxes))
        count = len(boxes)
        found = Detections(shown, torch.ones(count), torch.zeros(count, dtype=torch.int64), None)
        results = to_results(found, view, 1, CATEGORIES)
        np.testing.assert_allclose([r["bbox"] for r in results], [thing.box for thing in scene.things], atol=1e-9)


def test_a_limit_of_test_pictures_is_the_same_whatever_computes_them(tmp_path: Path) -> None:
    split = write_split(
        tmp_path / "data", "val", [scene._replace(id=id_) for scene, id_ in zip(SCENES, (9, 4, 77, 1, 30), strict=True)]
    )
    part = held_out(tiny_encoder(), split, SIZE, limit=3)
    assert list(part.images) == sorted(part.images)
    assert len(part.images) == 3
    whole = held_out(tiny_encoder(), split, SIZE)
    (some,), (every,) = part.features.stream([range(3)]), whole.features.stream([range(5)])
    assert torch.equal(some, every[list(part.images)])
    assert as_tokens(some).shape == (3, 4, 8, 8)
    assert as_tokens(some).dtype == torch.float32


def test_the_budget_of_the_cache_is_held_and_the_error_names_both_sizes(tmp_path: Path) -> None:
    config = settings(cache_gb=1e-5)
    needed = cache_bytes(config, 4, (8, 8), len(SCENES), 3)
    assert needed == (2 * 5 + 3) * 8 * 8 * 4 * 2
    assert cache_bytes(settings(flip=0.0), 4, (8, 8), 5, 3) == 8 * 8 * 8 * 4 * 2
    material_of(tmp_path, settings(cache_gb=needed / 1e9))
    with pytest.raises(RiceError, match="cache-gb") as error:
        material_of(tmp_path, settings(cache_gb=(needed - 1000) / 1e9))
    said = str(error.value)
    assert "6.5 KiB" in said or "6.7 kB" in said
    assert "5.5 KiB" in said or "5.7 kB" in said
    assert "\n" not in said


def test_a_cache_takes_the_bytes_that_were_announced(tmp_path: Path) -> None:
    config = settings(cache_gb=1.0)
    material_of(tmp_path, config)
    arrays = [np.load(path, mmap_mode="r") for path in tmp_path.rglob("*.npy")]
    assert sum(array.nbytes for array in arrays) == cache_bytes(config, 4, (8, 8), len(SCENES), 3)


def test_a_native_size_that_is_no_multiple_shows_pictures_where_there_are_tokens(tmp_path: Path) -> None:
    """SigLIP: 384 pixels at patch 14 have 27 x 27 tokens on 378 of them."""
    canvas = Canvas.of(tiny_encoder(14, native=384), 384)
    assert canvas == (384, 378, (27, 27))
    scenes = [
        Scene(400, 300, [Thing(0, (0.0, 0.0, 400.0, 300.0))]),
        Scene(120, 600, [Thing(1, (20.0, 500.0, 100.0, 100.0))]),
        Scene(500, 500, [Thing(2, (400.0, 400.0, 100.0, 100.0))]),
    ]
    material = material_of(tmp_path, settings(flip=0.0), scenes, patch=14, size=384)
    for tokens, targets in steps_of(material, 2):
        assert tokens.shape[1:] == (4, 27, 27)
        for target in targets:
            assert max(target.size) == 378
            assert float(target.boxes.max()) == pytest.approx(378, abs=1e-3)
            assert target.masks is not None
            assert target.masks.shape[1:] == (384, 384)


def test_a_size_that_the_encoder_cannot_take_is_refused() -> None:
    with pytest.raises(RiceError, match="nearest: 28 and 42"):
        Canvas.of(tiny_encoder(14, native=384), 30)
    assert Canvas.of(tiny_encoder(14, native=384), 42) == (42, 42, (3, 3))
