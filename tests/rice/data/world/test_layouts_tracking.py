"""Tracking worlds, read with nothing but string operations, hold the boxes and flags of the painted clips."""

import configparser
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rice.cli import main
from rice.data.world import Clip, ClipConfig, Part, WorldConfig, draw_clip, materialise
from rice.data.world.target import follow
from rice.errors import RiceError

LAYOUTS = ("got10k", "lasot", "trackingnet", "tnl2k")
FRAMES, SEED = 6, 91  # in train one target gets occluded, one leaves the picture, and one clip has none
DRAWN = ClipConfig(frames=FRAMES, height=64, width=64, objects=(1, 2))


def config(layout: Any, seed: int = SEED, test: int = 3) -> WorldConfig:
    return WorldConfig(
        kind="clips", layout=layout, size=64, train=3, test=test, frames=FRAMES, objects=(1, 2), seed=seed
    )


@dataclass(frozen=True, eq=False)
class Truth:
    """One clip's target: category, x y w h (N, 4) of its mask or zeros, the last box for zeros, visible shares (N,)."""

    clip: Clip
    identity: int
    category: str
    boxes: NDArray[np.int64]
    held: NDArray[np.int64]
    shares: NDArray[np.float64]


@cache
def truths(part: Part) -> list[Truth]:
    """Of the first clips whose first frame shows an object, from their painted frames."""
    found = []
    for index in range(7):
        clip = draw_clip(DRAWN, part, SEED, index)
        track = follow(clip)  # its choice is judged in test_target.py
        if track is None:
            continue
        boxes, shares = np.zeros((FRAMES, 4), dtype=np.int64), np.zeros(FRAMES)
        for frame, scene in enumerate(clip):
            for thing in scene.objects:
                if thing.identity == track.identity:
                    rows, columns = np.nonzero(thing.mask)
                    corner = np.array([columns.min(), rows.min()])
                    boxes[frame] = [*corner, *(np.array([columns.max(), rows.max()]) + 1 - corner)]
                    shares[frame] = thing.visibility
        held = boxes.copy()
        for frame in range(1, FRAMES):
            held[frame] = held[frame] if shares[frame] else held[frame - 1]
        found.append(Truth(clip, track.identity, track.category, boxes, held, shares))
    return found


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("worlds")
    return {layout: materialise(config(layout), folder / layout) for layout in LAYOUTS}


def lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("ascii")
    assert text.endswith("\n")
    assert "\r" not in text
    return text.splitlines()


def rows(boxes: NDArray[np.int64], form: str) -> list[str]:
    return [",".join(form % value for value in row) for row in boxes.tolist()]


def check_frames(folder: Path, names: list[str], truth: Truth) -> None:
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".jpg") == sorted(names)
    for name, scene in zip(names, truth.clip, strict=True):
        with Image.open(folder / name) as picture:
            assert picture.format == "JPEG"
            assert np.abs(np.asarray(picture).astype(int) - scene.image).mean() < 4


def test_got10k(roots: dict[str, Path]) -> None:
    root, test = roots["got10k"], truths(Part.TEST)
    splits = {"train": truths(Part.TRAIN)[:3], "val": test[:3], "test": test[3:5]}
    assert sorted(path.name for path in root.iterdir()) == ["test", "train", "val", "world.json"]
    for split, expected in splits.items():
        names = [f"GOT-10k_{split.title()}_{number:06d}" for number in range(1, len(expected) + 1)]
        assert lines(root / split / "list.txt") == names
        assert sorted(path.name for path in (root / split).iterdir()) == [*names, "list.txt"]
        for name, truth in zip(names, expected, strict=True):
            folder = root / split / name
            check_frames(folder, [f"{number:08d}.jpg" for number in range(1, FRAMES + 1)], truth)
            found, boxes = lines(folder / "groundtruth.txt"), rows(truth.held, "%.4f")
            if split == "test":
                assert found == boxes[:1]
                assert {path.suffix for path in folder.iterdir()} == {".jpg", ".txt", ".ini"}
                continue
            assert found == boxes
            assert lines(folder / "absence.label") == [str(int(share == 0)) for share in truth.shares]
            for cover, share in zip(lines(folder / "cover.label"), truth.shares, strict=True):
                assert (int(cover) - 1) / 8 < share <= int(cover) / 8 or (cover, share) == ("0", 0)
            x, y, w, h = truth.held.T
            cut = (x == 0) | (y == 0) | (x + w == 64) | (y + h == 64)
            assert lines(folder / "cut_by_image.label") == [str(int(flag)) for flag in cut]


def test_got10k_describes_each_clip_in_the_order_that_readers_count(roots: dict[str, Path]) -> None:
    for split, part in (("train", Part.TRAIN), ("val", Part.TEST)):
        path = roots["got10k"] / split / f"GOT-10k_{split.title()}_000002" / "meta_info.ini"
        keys = [line.split(": ")[0] for line in lines(path)]
        assert keys == [
            *("[METAINFO]", "url", "begin", "end", "anno_fps", "object_class", "motion_class", "major_class"),
            *("root_class", "motion_adverb", "resolution"),
        ]
        meta = configparser.ConfigParser()
        meta.read(path)
        assert meta["METAINFO"]["object_class"] == truths(part)[1].category
        assert meta["METAINFO"]["resolution"] == "(64, 64)"
        assert meta["METAINFO"]["anno_fps"] == "10Hz"


def test_lasot_counts_pixels_from_one_and_sequences_through_both_splits(roots: dict[str, Path]) -> None:
    root = roots["lasot"]
    numbers: dict[str, int] = defaultdict(int)
    flagged = np.zeros(2, dtype=int)
    for split, part in (("training", Part.TRAIN), ("testing", Part.TEST)):
        names = lines(root / f"{split}_set.txt")
        for name, truth in zip(names, truths(part)[:3], strict=True):
            shape = truth.category.split()[1]
            numbers[shape] += 1
            assert name == f"{shape}-{numbers[shape]}"
            folder = root / shape / name
            check_frames(folder / "img", [f"{number:08d}.jpg" for number in range(1, FRAMES + 1)], truth)
            assert lines(folder / "groundtruth.txt") == rows(truth.held + np.array([1, 1, 0, 0]), "%d")
            flags = [lines(folder / f"{flag}.txt") for flag in ("full_occlusion", "out_of_view")]
            assert [len(flag) for flag in flags] == [1, 1]
            hidden, outside = (np.array([int(value) for value in flag[0].split(",")]) for flag in flags)
            np.testing.assert_array_equal(hidden + outside, truth.shares == 0)
            flagged += [hidden.sum(), outside.sum()]
            assert lines(folder / "nlp.txt") == [f"the {truth.category}"]
    assert flagged.all()
    written = sorted(path.parent.name for path in root.glob("*/*/groundtruth.txt"))
    assert written == sorted(lines(root / "training_set.txt") + lines(root / "testing_set.txt"))


def test_trackingnet_keeps_the_truth_of_test_apart(roots: dict[str, Path]) -> None:
    root = roots["trackingnet"]
    expected = {"TRAIN_0": truths(Part.TRAIN)[0:3:2], "TRAIN_1": truths(Part.TRAIN)[1:2], "TEST": truths(Part.TEST)[:3]}
    assert sorted(path.name for path in root.iterdir()) == ["TEST", "TRAIN_0", "TRAIN_1", "truth", "world.json"]
    for chunk, wanted in expected.items():
        names = sorted(path.stem for path in (root / chunk / "anno").iterdir())
        assert names == sorted(path.name for path in (root / chunk / "frames").iterdir())
        for name, truth in zip(names, wanted, strict=True):
            check_frames(root / chunk / "frames" / name, [f"{number}.jpg" for number in range(FRAMES)], truth)
            boxes = rows(truth.held, "%.3f")
            if chunk == "TEST":
                assert lines(root / "truth" / f"{name}.txt") == boxes
                boxes = boxes[:1]
            assert lines(root / chunk / "anno" / f"{name}.txt") == boxes
    assert len(list((root / "truth").iterdir())) == 3


def test_tnl2k_has_no_boxes_where_the_target_is_absent(roots: dict[str, Path]) -> None:
    root = roots["tnl2k"]
    numbers: dict[str, int] = defaultdict(int)
    for split, part in (("train", Part.TRAIN), ("test", Part.TEST)):
        for truth in truths(part)[:3]:
            shape = truth.category.split()[1]
            numbers[shape] += 1
            name = f"world_{shape}_{numbers[shape]:04d}"
            folder = root / split / name
            check_frames(folder / "imgs", [f"{number:05d}.jpg" for number in range(1, FRAMES + 1)], truth)
            assert lines(folder / "groundtruth.txt") == rows(truth.boxes, "%d")
            assert lines(folder / "language.txt") == [f"the {truth.category}"]
            assert lines(root / "absent" / f"{name}.txt") == [str(int(share == 0)) for share in truth.shares]
        assert len(list((root / split).iterdir())) == 3
    assert any((truth.shares == 0).any() for truth in truths(Part.TRAIN)[:3])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_seed_gives_the_same_bytes(roots: dict[str, Path], layout: str, tmp_path: Path) -> None:
    def content(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert content(materialise(config(layout), tmp_path / "again")) == content(roots[layout])
    assert content(materialise(config(layout, seed=5), tmp_path / "other")) != content(roots[layout])


def test_half_a_test_split_is_at_least_one_clip(tmp_path: Path) -> None:
    root = materialise(config("got10k", test=1), tmp_path / "world")
    assert [len(lines(root / split / "list.txt")) for split in ("val", "test")] == [1, 1]


def test_tracking_belongs_to_clips_and_to_the_fingerprint() -> None:
    prints = {WorldConfig(kind="clips", layout=layout).fingerprint() for layout in ("coco", *LAYOUTS)}  # type: ignore[arg-type]
    assert len(prints) == 5
    # As they were before these layouts: what is cached under them stays.
    assert WorldConfig(kind="clips").fingerprint() == "d38a285a2579bd96d74eb83c7c34e6ab7169b172ff88275b20b0fa5daa784b97"
    assert WorldConfig(layout="voc").fingerprint() == "50ed0f5463de1e72683db2807f0fff22f3b814f152bbf657146d9d71ce3e1ff1"
    with pytest.raises(RiceError, match="expected kind clips for layout lasot, got scenes; leave the layout out"):
        WorldConfig(layout="lasot")


@pytest.mark.parametrize(("layout", "held_out"), [*zip(LAYOUTS, ("val", "test", "TEST", "test"), strict=True)])
def test_the_command_says_where_things_are_and_shows_the_target(
    layout: Any, held_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--layout", layout, "--size", "64", "--train", "2", "--test", "1", "--frames", "3"]
    main(["world", "clips", "--out", str(tmp_path / "out"), *flags, "--preview"])
    assert f"2 clips in train, 1 in {held_out}, 64 px" in capsys.readouterr().out
    preview = np.asarray(Image.open(tmp_path / "out" / "preview.png"))
    assert preview.shape == (384, 4 * 384, 3)
    with pytest.raises(SystemExit):
        main(["world", "crops", "--out", str(tmp_path / "no"), *flags])
    assert f"expected kind clips for layout {layout}, got crops" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
