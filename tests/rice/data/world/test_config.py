"""A world is written once, whole, in layouts that other libraries read back to the very records."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rice.cli import main
from rice.data.coco import find_splits, open_split, role
from rice.data.world import CATEGORIES, Part, SceneConfig, WorldConfig, draw_crop, draw_scene, materialise
from rice.data.world.config import clips, crops, scenes
from rice.data.world.textures import TEXTURES
from rice.errors import RiceError

T = TypeVar("T")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within pycocotools

SCENES = WorldConfig(size=72, train=5, test=3, seed=9)
PARTS = {"train": Part.TRAIN, "val": Part.TEST}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(SCENES, tmp_path_factory.mktemp("world") / "scenes")


@pytest.mark.parametrize("split", ["train", "val"])
def test_scenes_read_back_by_pycocotools_are_the_records(written: Path, split: str) -> None:
    dataset = COCO(written / "annotations" / f"instances_{split}.json")
    assert [dataset.cats[id_]["name"] for id_ in sorted(dataset.cats)] == list(CATEGORIES)
    records = list(scenes(SCENES, PARTS[split]))
    assert sorted(dataset.imgs) == list(range(1, len(records) + 1))
    for image_id, scene in enumerate(records, start=1):
        picture = np.asarray(Image.open(written / split / dataset.imgs[image_id]["file_name"]))
        np.testing.assert_array_equal(picture, scene.image)
        annotations = dataset.imgToAnns[image_id]
        assert len(annotations) == len(scene.objects)
        for annotation, thing in zip(annotations, scene.objects, strict=True):
            np.testing.assert_array_equal(dataset.annToMask(annotation).astype(bool), thing.mask)
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == thing.box
            assert annotation["area"] == thing.mask.sum()
            assert annotation["category_id"] == thing.category + 1


def test_scenes_read_back_by_our_reader_are_the_records(written: Path) -> None:
    assert role(find_splits(written)) == ("train", "val")
    split = open_split(written, "val")
    for index, scene in enumerate(scenes(SCENES, Part.TEST)):
        expected_HW = np.zeros(scene.image.shape[:2], dtype=np.uint16)
        for thing in scene.objects:
            expected_HW[thing.mask] = thing.category + 1
        np.testing.assert_array_equal(split.semantic_map(index), expected_HW)
        np.testing.assert_array_equal(np.asarray(split.load_image(index)), scene.image)


def test_large_scenes_are_good_jpegs(tmp_path: Path) -> None:
    config = WorldConfig(size=640, train=1, test=1)
    split = open_split(materialise(config, tmp_path / "world"), "train")
    expected = next(scenes(config, Part.TRAIN)).image.astype(int)
    assert split.images[0].file_name.endswith(".jpg")
    assert np.abs(np.asarray(split.load_image(0)) - expected).mean() < 4


def test_crops_lie_in_their_category(tmp_path: Path) -> None:
    config = WorldConfig(kind="crops", size=64, train=30, test=25)
    root = materialise(config, tmp_path / "crops")
    for split, part in PARTS.items():
        folders = sorted(path.name for path in (root / split).iterdir())
        assert folders == sorted(name.replace(" ", "_") for name in CATEGORIES)
        for index, (scene, category) in enumerate(crops(config, part)):
            path = root / split / CATEGORIES[category].replace(" ", "_") / f"{index:06d}.png"
            np.testing.assert_array_equal(np.asarray(Image.open(path)), scene.image)


def test_an_easy_world_names_the_texture_of_each_thing_that_the_full_one_would(tmp_path: Path) -> None:
    config = WorldConfig(size=72, train=12, test=3, objects=(2, 4), easy=True)
    root = materialise(config, tmp_path / "easy")
    dataset = COCO(root / "annotations" / "instances_train.json")
    assert [dataset.cats[id_]["name"] for id_ in sorted(dataset.cats)] == list(TEXTURES)
    full = SceneConfig(
        height=72,
        width=72,
        objects=(2, 4),
        clutter=(0, 0),
        words=config.words,
        radius=(0.17, 0.3),
        visible=0.5,
        plain=0.8,
    )
    for index in range(config.train):
        scene = draw_scene(full, Part.TRAIN, config.seed, index)
        annotations = dataset.imgToAnns[index + 1]
        names = [dataset.cats[annotation["category_id"]]["name"] for annotation in annotations]
        assert names == [CATEGORIES[thing.category].split()[0] for thing in scene.objects]
        for annotation, thing in zip(annotations, scene.objects, strict=True):
            np.testing.assert_array_equal(dataset.annToMask(annotation).astype(bool), thing.mask)


def test_easy_crops_lie_in_the_folder_of_their_texture(tmp_path: Path) -> None:
    root = materialise(WorldConfig(kind="crops", size=64, train=30, test=25, easy=True), tmp_path / "crops")
    for split, part in PARTS.items():
        assert sorted(path.name for path in (root / split).iterdir()) == sorted(TEXTURES)
        for index in range(30 if split == "train" else 25):
            scene, category = draw_crop(64, part, 0, index, plain=0.8)
            path = root / split / CATEGORIES[category].split()[0] / f"{index:06d}.png"
            np.testing.assert_array_equal(np.asarray(Image.open(path)), scene.image)


@pytest.mark.parametrize(("kind", "layout"), [("clips", "coco"), ("scenes", "lvis"), ("clips", "lasot")])
def test_only_worlds_with_categories_to_tell_apart_are_easy(kind: Any, layout: Any) -> None:
    with pytest.raises(RiceError, match=f"expected easy .* got {kind} as {layout}"):
        WorldConfig(kind=kind, layout=layout, easy=True)


def test_clips_read_back_are_the_records(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    config = WorldConfig(kind="clips", size=64, train=2, test=1, frames=4)
    root = materialise(config, tmp_path / "clips")
    for split, part in PARTS.items():
        videos = json.loads((root / split / "meta.json").read_text())["videos"]
        for index, clip in enumerate(clips(config, part)):
            name = f"{index:05d}"
            objects = videos[name]["objects"]
            for frame, scene in enumerate(clip):
                mask = Image.open(root / split / "Annotations" / name / f"{frame:05d}.png")
                assert mask.mode == "P"
                shown = {key for key, entry in objects.items() if f"{frame:05d}" in entry["frames"]}
                assert shown == {str(thing.identity + 1) for thing in scene.objects}
                for thing in scene.objects:
                    np.testing.assert_array_equal(np.asarray(mask) == thing.identity + 1, thing.mask)
                    entry = objects[str(thing.identity + 1)]
                    place = entry["frames"].index(f"{frame:05d}")
                    assert tuple(entry["boxes"][place]) == thing.box
                    assert entry["category"] == CATEGORIES[thing.category]
                picture = np.asarray(Image.open(root / split / "JPEGImages" / name / f"{frame:05d}.jpg"))
                assert np.abs(picture.astype(int) - scene.image).mean() < 4
            with av.open(str(root / split / "videos" / f"{name}.mp4")) as video:
                assert sum(1 for _ in video.decode(video=0)) == 4


def test_a_world_is_written_once_and_kept(tmp_path: Path) -> None:
    config = WorldConfig(size=64, train=2, test=1)
    root = materialise(config, tmp_path / "world")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert materialise(config, root) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(RiceError, match="holds another generated world"):
        materialise(WorldConfig(size=64, train=2, test=1, seed=1), root)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(RiceError, match="exists and holds no generated world"):
        materialise(config, tmp_path / "mine")


def test_an_empty_folder_takes_a_world(tmp_path: Path) -> None:
    materialise(WorldConfig(size=64, train=2, test=1), tmp_path)
    assert (tmp_path / "annotations" / "instances_train.json").is_file()


def test_an_interrupted_world_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted:
        def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
            iterator = iter(items)
            yield next(iterator)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        materialise(WorldConfig(size=64, train=3, test=3), tmp_path / "world", Interrupted())
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_follows_every_field() -> None:
    changed = [
        *(WorldConfig(kind="crops"), WorldConfig(size=96), WorldConfig(train=3), WorldConfig(test=3)),
        *(WorldConfig(objects=(1, 8)), WorldConfig(words=(1, 2)), WorldConfig(frames=3), WorldConfig(seed=1)),
    ]
    assert len({config.fingerprint() for config in (WorldConfig(), *changed)}) == len(changed) + 1
    assert WorldConfig().fingerprint() == WorldConfig().fingerprint()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "films", "expected a kind of world out of scenes, crops, clips, got 'films'"),
        ("size", 63, "expected size of a generated world from 64 to 2048, got 63"),
        ("size", 4096, "size"),
        ("train", 0, "train"),
        ("test", -1, "test"),
        ("frames", 0, "frames"),
        ("seed", -1, "seed"),
        ("seed", 2**32, "seed"),
        ("objects", (0, 3), "the lower end of objects"),
        ("objects", (5, 3), "the upper end of objects .* from 5 to 64, got 3"),
        ("words", (-1, 3), "the lower end of words"),
    ],
)
def test_fields_out_of_range_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(RiceError, match=message):
        WorldConfig(**{field: value})


def test_planning_imports_no_torch() -> None:
    code = "import sys; from rice.data.world import WorldConfig; WorldConfig().fingerprint(); import rice.data.coco;"
    code += "print('torch' in sys.modules, 'matplotlib' in sys.modules, 'av' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.split() == ["False", "False", "False"]


@pytest.mark.parametrize("kind", ["scenes", "crops", "clips"])
def test_the_command_writes_says_where_and_shows(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    flags = ["--size", "64", "--train", "3", "--test", "2", "--frames", "3", "--preview"]
    main(["world", kind, "--out", str(out), *flags])
    printed = capsys.readouterr().out
    assert f"3 {kind} in train, 2 in val" in printed
    assert str(out) in printed
    preview = np.asarray(Image.open(out / "preview.png"))
    assert preview.shape[1] == 4 * 384
    assert preview.std() > 20


def test_the_command_refuses_bad_input_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["world", "scenes", "--out", str(tmp_path / "out"), "--size", "7"])
    assert exit_.value.code == 2
    assert "expected size of a generated world from 64 to 2048, got 7" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
