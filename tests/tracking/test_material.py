"""What a data root gives to learn from and to be judged on: generated worlds in every layout, alone and together."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_tracker import config, walk, write_clip

from probes.protocol import NotThisLayoutError
from rice.data.world import Part, WorldConfig, materialise
from rice.data.world.config import tracks
from rice.errors import RiceError
from rice.progress import SilentProgress
from tracking.config import TrackingConfig
from tracking.material import HeldOut, Material, Places, first_by_hash, open_material, place_to_judge
from tracking.pairs import Clips, Stills
from tracking.probe import TrackingProbe
from tracking.sequence import Sequence as Clip

SETTINGS = config(least_frames=6)


def opened(root: Path, settings: TrackingConfig = SETTINGS) -> Material:
    return open_material(Places.of(root, settings), settings, SilentProgress())


def drawn(layout: Any, part: Part) -> list[tuple[list[list[float]], list[bool]]]:
    """The world's own boxes (x, y, w, h; the last one where the target is absent) and absences, clip by clip."""
    settings = WorldConfig(kind="clips", layout=layout, size=64, train=4, test=3, frames=8, objects=(1, 2), seed=3)
    return [
        (
            [[left, top, right - left, bottom - top] for left, top, right, bottom in track.boxes()],
            [sight is None for sight in track.sights],
        )
        for track in tracks(settings, part)
    ]


def read(clip: Clip) -> tuple[list[list[float]], list[bool]]:
    absent = ~clip.visible if clip.absent is None and clip.cover is None else clip.absent
    assert absent is not None
    boxes = clip.boxes.copy()
    for index in np.flatnonzero(absent):  # TNL2K has zeros there
        boxes[index] = boxes[index - 1] if not boxes[index].any() else boxes[index]
    return boxes.tolist(), absent.tolist()


@pytest.mark.parametrize("layout", ["got10k", "lasot", "tnl2k"])
def test_a_worlds_own_boxes_are_read(roots: Path, layout: str) -> None:
    material = opened(roots / layout)
    (source,), (test,) = material.sources, material.tests
    assert isinstance(source, Clips)
    assert test.benchmark == source.name == layout
    assert sorted(map(read, test.clips)) == sorted(drawn(layout, Part.TEST))
    taught = [clip for clip in drawn(layout, Part.TRAIN) if clip[1].count(False) >= 5]
    assert sorted(read(clip) for clip, _ in source.clips) == sorted(taught)
    assert len(taught) > 0
    assert test.split == {"got10k": "val"}.get(layout, "test")
    assert not test.withheld
    assert {clip.origin for clip in test.clips} == {int(layout == "lasot")}
    assert material.excluded == 0
    assert material.clips == list(test.clips)


def test_trackingnets_test_has_only_first_boxes(roots: Path) -> None:
    material = opened(roots / "trackingnet")
    (source,), (test,) = material.sources, material.tests
    assert len(source) == 4
    assert (test.split, test.withheld, test.title, test.protocol) == ("test", True, "TrackingNet", "trackingnet")
    assert [clip.boxes.tolist() for clip in test.clips] == [boxes[:1] for boxes, _ in drawn("trackingnet", Part.TEST)]


@pytest.mark.parametrize(
    ("layout", "title", "protocol"),
    [("got10k", "GOT-10k", "got10k"), ("lasot", "LaSOT", "lasot-matlab"), ("tnl2k", "TNL2K", "tnl2k")],
)
def test_a_benchmark_is_judged_by_its_own_protocol(roots: Path, layout: str, title: str, protocol: str) -> None:
    (test,) = opened(roots / layout).tests
    assert (test.title, test.protocol) == (title, protocol)


def test_benchmarks_below_a_root_train_and_test_by_their_names(roots: Path) -> None:
    settings = dataclasses.replace(SETTINGS, train=("coco", "got10k", "lasot"), test=("lasot", "tnl2k", "trackingnet"))
    material = opened(roots, settings)
    assert [source.name for source in material.sources] == ["coco", "got10k", "lasot"]
    assert [test.benchmark for test in material.tests] == ["lasot", "tnl2k", "trackingnet"]
    assert isinstance(material.sources[0], Stills)
    assert [len(test.clips) for test in material.tests] == [3, 3, 3]
    assert [test.withheld for test in material.tests] == [False, False, True]
    assert len(material.clips) == 9
    for source in material.sources:
        for shown in source.draw(np.random.default_rng(0)):
            assert shown.frame.shape == (64, 64, 3)
            assert (shown.box[2:] > 0).all()


def test_stills_are_of_the_train_split_and_limited_by_picture(roots: Path) -> None:
    settings = dataclasses.replace(SETTINGS, train=("coco",), test=("lasot",), train_sequences=2, least_still=0.0)
    (source,) = opened(roots, settings).sources
    assert isinstance(source, Stills)
    assert source.split.name == "train"
    assert len({image for image, _ in source.objects}) == 2


def test_training_clips_that_a_test_set_has_too_are_left_out_and_counted(roots: Path, tmp_path: Path) -> None:
    root = tmp_path / "tnl2k"
    shutil.copytree(roots / "tnl2k", root)
    names = sorted(path.name for path in (root / "test").iterdir())
    before = opened(root)
    for name in names[:2]:
        shutil.copytree(root / "test" / name, root / "train" / name)
    after = opened(root)
    assert after.excluded == 2
    assert len(after.sources[0]) == len(before.sources[0])
    assert not {clip.name for clip, _ in after.sources[0].clips} & set(names)  # type: ignore[attr-defined]
    limited = opened(root, dataclasses.replace(SETTINGS, test_sequences=1))
    (kept,) = limited.tests[0].clips
    assert limited.excluded == int(kept.name in names[:2])


def named(tmp_path: Path, *names: str) -> list[Clip]:
    shared = write_clip(tmp_path / "clip", walk(2, (1, 2, 9, 9), (1, 1)))
    return [dataclasses.replace(shared, name=name) for name in names]


def test_fewer_clips_are_a_subset_of_more_whatever_their_order(tmp_path: Path) -> None:
    clips = named(tmp_path, *(f"clip-{number}" for number in range(12)))
    chosen = [{clip.name for clip in first_by_hash(clips, limit)} for limit in range(1, 13)]
    assert [len(names) for names in chosen] == list(range(1, 13))
    assert all(fewer < more for fewer, more in itertools.pairwise(chosen))
    for limit in (3, 8):
        backwards = first_by_hash(clips[::-1], limit)
        assert {clip.name for clip in backwards} == chosen[limit - 1]
        order = [clip.name for clip in first_by_hash(clips, limit)]
        assert order == [clip.name for clip in clips if clip.name in chosen[limit - 1]]
    assert first_by_hash(clips, None) == first_by_hash(clips, 99) == clips
    assert sorted(chosen[2]) != ["clip-0", "clip-1", "clip-10"], "the first by a hash, not by name"
    without = [clip for clip in clips if clip.name in chosen[4]]
    assert {clip.name for clip in first_by_hash(without, 3)} == chosen[2]


def test_limits_are_of_each_set(roots: Path) -> None:
    settings = dataclasses.replace(
        SETTINGS, train=("trackingnet", "got10k"), test=("lasot", "tnl2k"), train_sequences=2, test_sequences=1
    )
    material = opened(roots, settings)
    assert [len(source) for source in material.sources] == [2, 2]
    assert [len(test.clips) for test in material.tests] == [1, 1]


def test_what_is_not_there_is_another_layout(roots: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "nowhere", {}, "expected a folder of tracking data, found none"),
        (tmp_path / "empty", {}, "no tracking data in a known layout"),
        (roots, {}, "no tracking data in a known layout"),
        (roots, {"train": ("got10k", "vot"), "test": ("lasot",)}, "found none at .*vot"),
        (roots, {"train": ("got10k",), "test": ("coco",)}, "holds still pictures, .*: it can only train"),
        (roots / "coco", {}, "holds still pictures"),
    ]
    for root, changes, message in cases:
        with pytest.raises(NotThisLayoutError, match=message) as caught:
            Places.of(root, dataclasses.replace(SETTINGS, **changes))
        assert "\n" not in str(caught.value)


def test_a_benchmark_without_a_train_split_says_what_to_name(roots: Path, tmp_path: Path) -> None:
    shutil.copytree(roots / "got10k", tmp_path / "got10k", ignore=shutil.ignore_patterns("train"))
    with pytest.raises(NotThisLayoutError, match=r"nothing to learn from: got10k with val, test; .*--train.*--test"):
        Places.of(tmp_path / "got10k", SETTINGS)
    shutil.copytree(roots / "got10k", tmp_path / "only", ignore=shutil.ignore_patterns("val", "test"))
    with pytest.raises(NotThisLayoutError, match="no split to be judged on; there are train$"):
        Places.of(tmp_path / "only", SETTINGS)


def test_a_broken_benchmark_is_not_taken_for_another_layout(roots: Path, tmp_path: Path) -> None:
    shutil.copytree(roots / "got10k", tmp_path / "got10k")
    truth = sorted((tmp_path / "got10k/val").glob("*/groundtruth.txt"))[1]
    truth.write_text("1,2,3\n")
    with pytest.raises(RiceError, match=f"{truth.parent.name}.groundtruth.txt line 1") as caught:
        opened(tmp_path / "got10k")
    assert not isinstance(caught.value, NotThisLayoutError)


def test_clips_that_cannot_teach_are_another_layout(roots: Path) -> None:
    with pytest.raises(NotThisLayoutError, match="got10k: expected clips of at least 20 frames .* see --least-frames"):
        opened(roots / "got10k", dataclasses.replace(SETTINGS, least_frames=20))


def test_the_fingerprint_follows_annotations_and_frames_of_what_is_read(roots: Path, tmp_path: Path) -> None:
    root = tmp_path / "all"
    shutil.copytree(roots, root)
    settings = dataclasses.replace(SETTINGS, train=("coco", "got10k"), test=("lasot",))

    def mark() -> str:
        return Places.of(root, settings).fingerprint()

    marks = [mark()]
    assert mark() == marks[0] == Places.of(roots, settings).fingerprint()
    sentence = next((root / "lasot").glob("*/*/nlp.txt"))
    sentence.write_text("another")
    other = next((root / "tnl2k/test").glob("*/groundtruth.txt"))
    other.write_text("1,2,3,4\n")
    assert mark() == marks[0], "what is not read"
    names = (root / "lasot/testing_set.txt").read_text().split()
    truth = root / "lasot" / names[0].partition("-")[0] / names[0] / "groundtruth.txt"
    truth.write_text(truth.read_text().replace(truth.read_text().split(",")[0], "2", 1))
    marks.append(mark())
    max((root / "got10k/train").glob("*/*.jpg")).unlink()
    marks.append(mark())
    annotations = root / "coco/annotations/instances_train.json"
    annotations.write_text(annotations.read_text() + " ")
    marks.append(mark())
    assert len(set(marks)) == 4


def test_another_split_and_benchmark_can_be_named_to_be_judged_on(roots: Path) -> None:
    place = place_to_judge(roots / "got10k")
    assert (place.name, place.split) == ("got10k", "val")
    assert place_to_judge(roots / "got10k", split="test").split == "test"
    place = place_to_judge(roots / "tnl2k/test", benchmark="folder")
    assert (place.name, place.split) == ("folder", "test")


def test_withheld_is_a_set_of_which_only_first_boxes_are_known(tmp_path: Path) -> None:
    known = write_clip(tmp_path / "a", walk(3, (1, 2, 9, 9), (1, 1)))
    first = dataclasses.replace(known, name="b", boxes=known.boxes[:1])
    single = write_clip(tmp_path / "c", walk(1, (1, 2, 9, 9), (1, 1)))
    assert HeldOut("folder", "test", [first]).withheld
    assert not HeldOut("folder", "test", [known]).withheld
    assert not HeldOut("folder", "test", [first, known]).withheld
    assert not HeldOut("folder", "test", [single]).withheld, "all of one frame is known"


def test_a_probe_that_could_score_nothing_says_so_before_it_trains(tmp_path: Path) -> None:
    world = WorldConfig(kind="clips", layout="trackingnet", size=64, train=2, test=1, frames=8)
    root = materialise(world, tmp_path / "world")
    probe = TrackingProbe(TrackingConfig(least_frames=8), root)
    with pytest.raises(NotThisLayoutError, match="TrackingNet: only first boxes are known"):
        probe.inspect()
    assert "1 of TrackingNet" in probe.describe()
