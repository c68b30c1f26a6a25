"""Pairs: what is drawn, how it is cut and varied, and that a pair is a function of the seed and its number alone."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tiny_tracker import Box, config, square_frames, walk, write_clip

from probes.protocol import NotThisLayoutError
from rice.data.coco import open_split
from rice.data.video import open_footage, write_video
from rice.errors import RiceError
from tracking.config import TrackingConfig
from tracking.pairs import Clips, Random, Sampler, Shown, Source, Stills, draw_frames, jittered, numbers
from tracking.sequence import Sequence as Clip
from tracking.sequence import VideoFile

SIZES = (32, 64)
STILL: dict[str, Any] = {"gray": 0.0, "flip": 0.0, "brightness": 0.0}


class OneTarget:
    """A source of one frame with one target, which counts how often it is asked."""

    def __init__(self, box: Box = (40, 25, 12, 20), frame: NDArray[np.uint8] | None = None, name: str = "one") -> None:
        plain = np.zeros((80, 100, 3), np.uint8)
        x, y, width, height = (round(value) for value in box)
        plain[y : y + height, x : x + width] = (200, 120, 40)
        self.name, self.asked = name, 0
        self._shown = Shown(plain if frame is None else frame, np.array(box, np.float64))

    def __len__(self) -> int:
        return 1

    def draw(self, dice: Random) -> tuple[Shown, Shown]:
        self.asked += 1
        dice.random(3)
        return self._shown, self._shown


def sampler(*sources: Source, seed: int = 0, **changes: Any) -> Sampler:
    return Sampler(sources=sources or (OneTarget(),), sizes=SIZES, config=config(**changes), seed=seed)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=80), st.integers(1, 40), st.integers(0, 2**32))
def test_the_search_comes_after_the_template_and_both_show_the_target(
    visible: list[bool], max_gap: int, seed: int
) -> None:
    flags = np.array(visible)
    dice = np.random.default_rng(seed)
    if flags.sum() < 2:
        with pytest.raises(RiceError, match=f"shows its target twice, got {flags.sum()} of {len(flags)} frames"):
            draw_frames(flags, max_gap, dice)
        return
    first, second = draw_frames(flags, max_gap, dice)
    assert 0 <= first < second < len(flags)
    assert flags[first]
    assert flags[second]


@given(st.integers(2, 300), st.integers(2, 250), st.integers(0, 2**32))
def test_where_the_target_is_always_seen_the_search_is_within_the_gap(count: int, max_gap: int, seed: int) -> None:
    first, second = draw_frames(np.ones(count, bool), max_gap, np.random.default_rng(seed))
    assert second - first < max_gap


@pytest.mark.parametrize("distance", [3, 100, 1000])
def test_the_gap_grows_where_nothing_is_near(distance: int) -> None:
    visible = np.zeros(distance + 1, bool)
    visible[[0, -1]] = True
    assert draw_frames(visible, 2, np.random.default_rng(0)) == (0, distance)


def test_every_start_and_every_later_frame_within_the_gap_has_the_same_chance() -> None:
    dice, draws = np.random.default_rng(0), 8000
    found = np.array([draw_frames(np.ones(41, bool), 5, dice) for _ in range(draws)])
    starts = np.bincount(found[:, 0], minlength=41)
    assert starts[40] == 0
    assert np.abs(starts[:40] - draws / 40).max() < 5 * math.sqrt(draws / 40)
    early = found[found[:, 0] < 36]
    steps = np.bincount(early[:, 1] - early[:, 0], minlength=6)[1:]
    assert steps.tolist()[4] == 0
    assert np.abs(steps[:4] - len(early) / 4).max() < 5 * math.sqrt(len(early) / 4)


def test_a_jittered_boxs_sides_are_log_normal_and_its_centre_uniform_within_half_the_reach() -> None:
    settings_ = config(centre_jitter=3.0, scale_jitter=0.25)
    dice, box = np.random.default_rng(0), np.array([50.0, 20, 30, 12])
    found = np.array([jittered(box, settings_, dice) for _ in range(20_000)])
    logs = np.log(found[:, 2:] / box[2:])
    assert logs.mean(0) == pytest.approx([0, 0], abs=5 * 0.25 / math.sqrt(20_000))
    assert logs.std(0) == pytest.approx([0.25, 0.25], rel=0.03)
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.04
    moved = found[:, :2] + found[:, 2:] / 2 - (box[:2] + box[2:] / 2)
    shares = moved / np.sqrt(found[:, 2:].prod(1, keepdims=True))
    assert np.abs(shares).max() <= 1.5
    assert np.abs(shares).max() > 1.49
    assert shares.mean(0) == pytest.approx([0, 0], abs=0.04)
    assert shares.var(0) == pytest.approx([9 / 12, 9 / 12], rel=0.03)
    assert abs(np.corrcoef(shares.T)[0, 1]) < 0.04


def test_without_jitter_the_box_stays() -> None:
    box = np.array([50.0, 20, 30, 12])
    found = jittered(box, config(centre_jitter=0.0, scale_jitter=0.0), np.random.default_rng(0))
    np.testing.assert_allclose(found, box)


def extent(picture: torch.Tensor) -> list[float]:
    """Left, top, width, height of what is bright, in shares of the picture."""
    bright = picture.amax(0).numpy() > 0.4
    rows, columns = np.nonzero(bright.any(1))[0], np.nonzero(bright.any(0))[0]
    edges = (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])
    return [float(edge) / len(bright) for edge in edges]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_target_is_where_its_box_says_in_plain_and_in_mirrored_pictures(flip: float) -> None:
    drawn = sampler(gray=0.0, brightness=0.0, flip=flip, centre_jitter=2.0)
    for number in range(20):
        pair = drawn.pair(number)
        x, y, width, height = pair.box.tolist()
        if 0 < x < 1 - width and 0 < y < 1 - height:
            assert extent(pair.search) == pytest.approx([x, y, width, height], abs=1.2 / SIZES[1])
        assert pair.box.dtype == torch.float32


def test_mirroring_is_of_the_picture_and_of_nothing_else() -> None:
    plain, mirrored = (sampler(gray=0.0, brightness=0.0, flip=flip).pair(7) for flip in (0.0, 1.0))
    assert torch.equal(plain.template.flip(2), mirrored.template)
    assert torch.equal(plain.search.flip(2), mirrored.search)
    x, y, width, height = plain.box.tolist()
    assert mirrored.box.tolist() == pytest.approx([1 - x - width, y, width, height], abs=1e-6)
    assert x != pytest.approx(1 - x - width, abs=0.01)


def test_each_picture_of_a_pair_is_mirrored_by_itself() -> None:
    left = np.zeros((40, 40, 3), np.uint8)
    left[:, :20] = 200
    drawn = sampler(OneTarget((10, 10, 20, 20), left), **STILL | {"flip": 0.5}, centre_jitter=0.0, scale_jitter=0.0)
    pairs = [drawn.pair(number) for number in range(200)]
    sides = [
        tuple(bool(p[..., : p.shape[2] // 2].mean() < p[..., p.shape[2] // 2 :].mean()) for p in pair[:2])
        for pair in pairs
    ]
    counts = [sides.count(combination) for combination in ((False, False), (False, True), (True, False), (True, True))]
    assert min(counts) > 50 - 5 * math.sqrt(50 * 0.75)


def test_the_template_is_not_jittered() -> None:
    drawn = sampler(**STILL)
    templates = [drawn.pair(number).template for number in range(4)]
    assert all(torch.equal(templates[0], other) for other in templates[1:])
    assert extent(templates[0]) == pytest.approx([0.5 - 6 / 31, 0.5 - 10 / 31, 12 / 31, 20 / 31], abs=1.2 / SIZES[0])


def test_gray_is_of_both_pictures_or_of_none() -> None:
    drawn = sampler(**STILL | {"gray": 0.5})
    grays = []
    for number in range(60):
        pair = drawn.pair(number)
        flat = [bool((picture == picture[:1]).all()) for picture in (pair.template, pair.search)]
        assert flat[0] == flat[1]
        grays.append(flat[0])
    assert 10 < sum(grays) < 50
    pair = sampler(**STILL | {"gray": 1.0}).pair(0)
    luma = 0.299 * 200 + 0.587 * 120 + 0.114 * 40  # ITU-R BT.601
    assert pair.template.max().item() == pytest.approx(luma / 255, abs=1e-6)
    assert pair.search.max().item() == pytest.approx(luma / 255, abs=1e-6)


def test_brightness_is_of_each_picture_by_itself_and_within_its_bounds() -> None:
    frame = np.full((40, 40, 3), 100, np.uint8)
    drawn = sampler(OneTarget((10, 10, 20, 20), frame), **STILL | {"brightness": 0.2})
    factors = np.array([[p.max().item() * 255 / 100 for p in drawn.pair(number)[:2]] for number in range(400)])
    assert factors.min() >= 0.8 - 1e-5
    assert factors.max() <= 1.2 + 1e-5
    assert factors.mean(0) == pytest.approx([1, 1], abs=0.03)
    assert factors.std(0) == pytest.approx([0.4 / math.sqrt(12)] * 2, rel=0.15)
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.2
    white = sampler(OneTarget((10, 10, 20, 20), np.full((40, 40, 3), 255, np.uint8)), **STILL | {"brightness": 0.5})
    pictures = [picture for number in range(20) for picture in white.pair(number)[:2]]
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in pictures)


def equal(left: Any, right: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_pair_is_a_function_of_seed_and_number_alone(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"clip{k}", walk(8, (5 + 3 * k, 9, 10, 12), (3, 1))) for k in range(3)]
    source = Clips.of("folder", clips, config())
    one, again, other = (sampler(source, OneTarget(), seed=seed) for seed in (4, 4, 5))
    expected = [one.pair(number) for number in range(24)]
    with ThreadPoolExecutor(4) as pool:
        order = np.random.default_rng(0).permutation(24).tolist()
        found = dict(zip(order, pool.map(again.pair, order), strict=True))
    assert all(equal(expected[number], found[number]) for number in range(24))
    assert not any(equal(expected[number], other.pair(number)) for number in range(24))
    assert not any(equal(expected[0], pair) for pair in expected[1:])


def test_sources_have_equal_shares_whatever_their_length() -> None:
    class Long(OneTarget):
        def __len__(self) -> int:
            return 10**6

    sources = [OneTarget(), Long(), OneTarget()]
    drawn = sampler(*sources)
    for number in range(600):
        drawn.pair(number)
    assert sum(source.asked for source in sources) == 600
    assert max(abs(source.asked - 200) for source in sources) < 5 * math.sqrt(600 * 2 / 9)


def test_windows_that_miss_the_frame_are_drawn_again_and_an_endless_series_is_an_error() -> None:
    edge = OneTarget((99.9, 79.9, 1, 1), np.full((80, 100, 3), 255, np.uint8))
    drawn = sampler(edge, centre_jitter=4.0, search_factor=4.0, **STILL)
    assert all(drawn.pair(number).search.any() for number in range(50))
    assert edge.asked > 60
    outside = OneTarget((300, 300, 5, 5))
    with pytest.raises(RiceError, match="one: 1000 draws gave no window that shows its target's frame"):
        sampler(outside).pair(0)
    assert outside.asked == 1000


@given(st.integers(1, 40), st.integers(0, 1000), st.integers(1, 8))
def test_the_ranks_of_a_step_partition_its_pairs(batch: int, start: int, ranks: int) -> None:
    shares = [list(islice(numbers(batch, start, rank, ranks), 3)) for rank in range(ranks)]
    for step in range(3):
        found = sorted(number for share in shares for number in share[step])
        assert found == list(range((start + step) * batch, (start + step + 1) * batch))


def source_clip(root: Path, name: str, frames: int = 8, **fields: Any) -> Clip:
    return write_clip(root / name, walk(frames, (5, 9, 10, 12), (2, 1)), **fields)


def test_only_clips_that_can_teach_are_kept(tmp_path: Path) -> None:
    absent = np.array([False] * 4 + [True] * 4)
    write_video(tmp_path / "v.mp4", square_frames(walk(8, (5, 9, 10, 12), (2, 1)), [(48, 64)] * 8), 25)  # type: ignore[arg-type]
    video = Clip(
        benchmark="folder",
        name="video",
        frames=VideoFile(footage=open_footage(tmp_path / "v.mp4"), count=8),
        boxes=np.array(walk(8, (5, 9, 10, 12), (2, 1))),
    )
    clips = [
        source_clip(tmp_path, "good"),
        source_clip(tmp_path, "short", frames=5),
        source_clip(tmp_path, "least", frames=6),
        source_clip(tmp_path, "hidden", absent=absent),
        source_clip(tmp_path, "five", absent=np.array([False] * 5 + [True] * 3)),
        source_clip(tmp_path, "covered", cover=np.array([8] * 4 + [0] * 4)),
        source_clip(tmp_path, "flat", boxes=np.array([(5, 9, 10, 12)] * 4 + [(5, 9, 0, 12)] * 4, float)),
        source_clip(tmp_path, "withheld", boxes=np.array([(5.0, 9, 10, 12)])),
        source_clip(tmp_path, "partly", boxes=np.array(walk(6, (5, 9, 10, 12), (2, 1)))),
        video,
    ]
    found = Clips.of("set", clips, config(least_frames=6))
    assert [clip.name for clip, _ in found.clips] == ["good", "least", "five"]
    assert (len(found), found.name, found.max_gap) == (3, "set", 200)
    with pytest.raises(NotThisLayoutError, match=r"^set: .* at least 6 frames .* none in 1; see --least-frames$"):
        Clips.of("set", clips[1:2], config(least_frames=6))


def test_a_drawn_frame_goes_with_its_own_box(tmp_path: Path) -> None:
    boxes = walk(8, (4, 6, 10, 12), (5, 3))
    source = Clips.of("set", [write_clip(tmp_path / "clip", boxes)], config())
    dice = np.random.default_rng(0)
    for _ in range(20):
        shown = source.draw(dice)
        starts = []
        for frame, box in shown:
            rows, columns = np.nonzero((frame > 100).any(2))
            assert [columns.min(), rows.min()] == box[:2].tolist()
            starts.append(box[0])
        assert starts[0] < starts[1]


def write_stills(root: Path, boxes: list[Box], crowds: tuple[int, ...] = ()) -> Path:
    (root / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(root / "val/1.png")
    annotations = [
        {
            "id": k,
            "image_id": 1,
            "category_id": 1,
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": int(k in crowds),
        }
        for k, box in enumerate(boxes, start=1)
    ]
    images = [{"id": 1, "file_name": "1.png", "width": 90, "height": 60}]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (root / "annotations/instances_val.json").write_text(json.dumps(document))
    return root


def test_stills_are_single_objects_longer_than_the_least_on_both_sides(tmp_path: Path) -> None:
    boxes: list[Box] = [(1, 2, 21, 21), (5, 5, 20, 40), (5, 5, 40, 20), (8, 9, 30, 25), (3, 3, 50, 50)]
    split = open_split(write_stills(tmp_path, boxes, crowds=(5,)), "val")
    settings_: TrackingConfig = config(least_still=20.0)
    source = Stills.of("coco", split, settings_, [0])
    assert [k for _, k in source.objects] == [0, 3]
    assert len(source) == 2
    with pytest.raises(
        NotThisLayoutError, match=r"coco: expected objects of more than 60 pixels .*; see --least-still"
    ):
        Stills.of("coco", split, config(least_still=60.0), [0])
    template, search = source.draw(np.random.default_rng(0))
    assert template.frame is search.frame
    assert tuple(template.box.tolist()) in {boxes[0], boxes[3]}
    assert template.frame.shape == (60, 90, 3)
    assert torch.isfinite(sampler(source).pair(0).search).all()


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    clip = source_clip(tmp_path, "clip")
    for number in range(1, 9):
        (tmp_path / f"clip/{number:08d}.png").write_bytes(b"no picture")
    with pytest.raises(RiceError, match=r"clip.0000000\d\.png"):
        sampler(Clips.of("set", [clip], config())).pair(0)
