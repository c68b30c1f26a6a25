"""Following a test set: together or alone, in one go or resumed, the same tracks; what is stored is read back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tracker import ALONE, Box, square_frames, tiny_encoder, tiny_tracker, walk, write_clip

from rice.data.video import open_footage, write_video
from rice.encoders.base import Encoder
from rice.encoders.load import load_encoder
from rice.errors import RiceError
from rice.progress import Progress, SilentProgress
from tracking import evaluate as module
from tracking.evaluate import Store, Track, follow_all, followed
from tracking.sequence import Sequence as Clip
from tracking.sequence import VideoFile
from tracking.tracker import Tracker

START: Box = (20, 12, 12, 10)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Of many lengths, with all that may happen to a target and its frames."""
    root = tmp_path / "clips"
    return [
        write_clip(root / "plain", walk(9, START, (2, 1))),
        write_clip(root / "single", walk(1, START, (0, 0))),
        write_clip(root / "leaves", walk(12, START, (9, 0))),
        write_clip(root / "pixel", walk(5, (30, 20, 1, 1), (1, 1))),
        write_clip(root / "sizes", walk(7, START, (1, 2)), [(48, 64)] * 3 + [(40, 30)] * 2 + [(90, 120)] * 2),
        write_clip(root / "tiny frames", walk(4, (2, 2, 4, 4), (0, 0)), (8, 9)),
        write_clip(root / "outside", walk(6, (-6, -4, 12, 10), (2, 1))),
        write_clip(root / "withheld", walk(3, START, (2, 1)), boxes=np.array([START], float)),
    ]


def tracked(tracker: Tracker, clips: Sequence[Clip], at_once: int) -> dict[str, Track]:
    found: dict[str, Track] = {}

    def done(clip: Clip, track: Track) -> None:
        assert clip.name not in found
        found[clip.name] = track

    steps = sum(1 for _ in followed(tracker, clips, at_once, done))
    assert steps == sum(map(len, clips))
    return found


def follow(tracker: Tracker, clips: Sequence[Clip], store: Store, **options: Any) -> None:
    follow_all(tracker, clips, store, **({"at_once": 3, "progress": SilentProgress(), "world": ALONE} | options))


@pytest.mark.parametrize(("encoder", "pixels"), [("tiny", 1e-5), ("shipped", 1e-4)])
def test_clips_together_are_clips_one_at_a_time(clips: list[Clip], encoder: str, pixels: float) -> None:
    """To the rounding of the encoder, whose sums in fp32 depend on the batch; the head reckons in float64 here."""
    tracker = tiny_tracker(tiny_encoder() if encoder == "tiny" else load_encoder("mini-s8-128"))
    tracker.head.double()
    expected = {
        clip.name: np.array([found.box for found in tracker.track(clip.frames.stream(), tuple(clip.boxes[0].tolist()))])
        for clip in clips
    }
    for at_once in (1, 3, 16):
        found = tracked(tracker, clips, at_once)
        assert found.keys() == expected.keys()
        for name, track in found.items():
            np.testing.assert_allclose(track.boxes, expected[name], rtol=0, atol=pixels, err_msg=name)
            assert track.seconds.shape == (len(expected[name]),)
            assert (track.seconds > 0).all()
    moved = [np.ptp(boxes, axis=0).max() for boxes in expected.values() if len(boxes) > 2]
    assert min(moved) > 0.5, "the tracker moves"


def test_the_first_box_is_the_given_one_and_others_lie_in_their_frames(clips: list[Clip]) -> None:
    found = tracked(tiny_tracker(), clips, 3)
    for clip in clips:
        boxes = found[clip.name].boxes
        assert boxes[0].tolist() == clip.boxes[0].tolist()
        for box, frame in zip(boxes[1:], list(clip.frames.stream())[1:], strict=True):
            assert (box[:2] >= 0).all()
            assert (box[:2] + box[2:] <= np.array(frame.shape[1::-1]) + 1e-6).all()


def test_no_more_clips_than_asked_are_followed_together_and_a_place_is_taken_at_once(clips: list[Clip]) -> None:
    tracker = tiny_tracker()
    widths: list[int] = []
    follow_ = Tracker.follow

    def counted(self: Tracker, frames: Any, *rest: Any) -> Any:
        widths.append(len(frames))
        return follow_(self, frames, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "follow", counted)
        tracked(tracker, clips, 3)
    assert max(widths) == 3
    assert sum(widths) == sum(len(clip) - 1 for clip in clips)
    assert len(widths) < sum(widths) / 2


def test_files_are_read_back_exactly_and_in_the_benchmarks_own_coordinates(tmp_path: Path) -> None:
    """LaSOT counts pixels from 1."""
    plain = write_clip(tmp_path / "a", walk(4, START, (2, 1)))
    lasot = write_clip(tmp_path / "b", walk(4, START, (2, 1)), benchmark="lasot", origin=1)
    dice = np.random.default_rng(0)
    for clip, shift in ((plain, 0), (lasot, 1)):
        store = Store(tmp_path / "out")
        track = Track(dice.uniform(0, 60, (4, 4)).round(4), dice.uniform(0, 0.1, 4).round(8))
        assert not store.has(clip)
        store.write(clip, track)
        assert store.has(clip)
        expected = track.boxes + np.array([shift, shift, 0, 0])
        np.testing.assert_allclose(store.boxes(clip), expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(store.seconds(clip), track.seconds)
        lines = (tmp_path / f"out/tracks/{clip.benchmark}/{clip.name}.txt").read_text().splitlines()
        assert lines == [",".join(f"{value:.4f}" for value in row) for row in expected]
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_stored_tracks_are_what_was_followed_to_the_written_decimals(clips: list[Clip], tmp_path: Path) -> None:
    tracker, store = tiny_tracker(), Store(tmp_path / "out")
    follow(tracker, clips, store)
    found = tracked(tracker, clips, 3)
    for clip in clips:
        np.testing.assert_allclose(store.boxes(clip), found[clip.name].boxes, rtol=0, atol=6e-5)
        assert len(store.seconds(clip)) == len(clip)


class Counted(Tracker):
    """Counts the clips that it starts."""

    def templates(self, frames: Any, *rest: Any) -> Any:
        started.extend(frames)
        return super().templates(frames, *rest)


started: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    started.clear()


def counted(seed: int = 0) -> Tracker:
    plain = tiny_tracker(seed=seed)
    return Counted(plain.encoder, plain.head, plain.sizes, plain.config)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "tracks").rglob("*.txt"))}


@pytest.mark.parametrize("after", [1, 4, 7])
def test_an_interrupted_evaluation_goes_on_with_the_clips_that_are_not_done(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    follow(counted(), clips, Store(tmp_path / "whole"))
    assert len(started) == len(clips)
    write = Store.write
    written: list[str] = []

    def dying(self: Store, clip: Clip, track: Track) -> None:
        if len(written) == after:
            raise KeyboardInterrupt
        write(self, clip, track)
        written.append(clip.name)

    monkeypatch.setattr(Store, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        follow(counted(), clips, Store(tmp_path / "killed"))
    monkeypatch.setattr(Store, "write", write)
    kept = snapshot(tmp_path / "killed")
    assert len(kept) == after
    times = {path: (tmp_path / "killed" / path).stat().st_mtime_ns for path in kept}
    started.clear()
    follow(counted(), clips, Store(tmp_path / "killed"))
    assert len(started) == len(clips) - after
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "whole")
    assert {path: (tmp_path / "killed" / path).stat().st_mtime_ns for path in kept} == times
    started.clear()
    follow(counted(), clips, Store(tmp_path / "killed"))
    assert not started


def other_encoder(tracker: Tracker) -> Encoder:
    encoder = tiny_encoder()
    with torch.no_grad():
        next(encoder.module.parameters()).mul_(1.5)
    assert encoder.spec == tracker.encoder.spec
    return encoder


CHANGES: dict[str, Callable[[Tracker], Tracker]] = {
    "head": lambda tracker: counted(seed=1),
    "encoder": lambda tracker: replace(tracker, encoder=other_encoder(tracker)),
    "template factor": lambda tracker: replace(tracker, config=replace(tracker.config, template_factor=3.0)),
    "search factor": lambda tracker: replace(tracker, config=replace(tracker.config, search_factor=3.0)),
    "margin": lambda tracker: replace(tracker, config=replace(tracker.config, margin=2.0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_weights_and_geometry_make_stored_tracks_void(clips: list[Clip], tmp_path: Path, change: str) -> None:
    store = Store(tmp_path)
    follow(counted(), clips, store)
    for _ in (0, 1):
        started.clear()
        follow(CHANGES[change](counted()), clips, store)
    assert not started, "the second time all are there"
    follow(counted(), clips, store)
    assert len(started) == len(clips)


def test_other_first_boxes_or_clips_make_stored_tracks_void(clips: list[Clip], tmp_path: Path) -> None:
    store = Store(tmp_path)
    for given in (clips, [replace(clips[0], boxes=clips[0].boxes + 1), *clips[1:]], clips[:-1], clips):
        started.clear()
        follow(counted(), given, store)
        assert len(started) == len(given)


def test_how_fast_it_goes_and_how_it_was_learnt_is_no_part_of_a_track(clips: list[Clip], tmp_path: Path) -> None:
    store = Store(tmp_path)
    follow(counted(), clips, store)
    started.clear()
    other = replace(counted().config, at_once=1, epochs=9, learning_rate=1.0, max_gap=3)
    follow(replace(counted(), config=other), clips[::-1], store, at_once=1)
    assert not started


def test_tracks_of_another_stamp_are_removed_with_their_times(clips: list[Clip], tmp_path: Path) -> None:
    store = Store(tmp_path)
    follow(tiny_tracker(), clips, store)
    store.open("another")
    assert not (tmp_path / "tracks").exists()
    assert not (tmp_path / "times").exists()
    store.write(clips[0], Track(np.ones((9, 4)), np.ones(9)))
    store.open("another")
    assert store.has(clips[0])


def test_a_video_that_ends_early_is_told(tmp_path: Path) -> None:
    boxes = walk(6, START, (2, 1))
    write_video(tmp_path / "v.mp4", square_frames(boxes, [(48, 64)] * 6), Fraction(10))
    frames = VideoFile(footage=open_footage(tmp_path / "v.mp4"), count=8)
    clip = Clip(benchmark="folder", name="short", frames=frames, boxes=np.array(boxes[:1], float))
    other = write_clip(tmp_path / "other", walk(9, START, (2, 1)))
    with pytest.raises(RiceError, match="^short: expected 8 frames, found 6$"):
        tracked(tiny_tracker(), [other, clip], 3)


@pytest.mark.parametrize("damage", ["missing", "cut"])
@pytest.mark.parametrize("number", [1, 5])
def test_a_frame_that_cannot_be_read_is_named(clips: list[Clip], tmp_path: Path, damage: str, number: int) -> None:
    path = tmp_path / f"clips/plain/{number:08d}.png"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RiceError, match=f"plain/{number:08d}.png") as caught:
        follow(tiny_tracker(), clips, Store(tmp_path / "out"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4\n", "has 1 lines for 9 frames; delete it"),
        ("1,2\n1,x\n", "is not as it was written"),
        (None, "is not"),
    ],
)
def test_a_stored_track_that_is_damaged_is_named(
    clips: list[Clip], tmp_path: Path, text: str | None, message: str
) -> None:
    store = Store(tmp_path / "out")
    follow(tiny_tracker(), clips, store)
    path = tmp_path / "out/tracks/folder/plain.txt"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(RiceError, match=f"plain.txt.* {message}"):
        store.boxes(clips[0])


def test_ranks_share_the_clips_and_leave_none(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)
    follow(counted(), clips, Store(tmp_path / "alone"))
    shares = []
    for rank in (0, 1, 2):
        started.clear()
        follow(counted(), clips, Store(tmp_path / "ranks"), world=replace(ALONE, rank=rank, size=3))
        shares.append(len(started))
    assert sorted(shares) == [2, 3, 3]
    assert snapshot(tmp_path / "ranks") == snapshot(tmp_path / "alone")


def test_progress_is_told_every_frame(clips: list[Clip], tmp_path: Path) -> None:
    class Told(SilentProgress):
        def track(self, items: Any, description: str, total: int | None = None) -> Any:
            told.append((description, total))
            for item in items:
                told.append(item)
                yield item

    told: list[Any] = []
    progress: Progress = Told()
    follow(tiny_tracker(), clips, Store(tmp_path), progress=progress)
    assert told[0] == ("follow 8 of 8 clips", 47)
    assert len(told) == 48
    assert module.TRACKS == "tracks"
