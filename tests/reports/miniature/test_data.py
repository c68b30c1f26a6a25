"""What is pretrained on shares nothing with what the probes learn from and are judged on but the world's rules."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from reports.miniature.data import SPLIT, caption, scene_config, write_pictures
from reports.miniature.run import _VALIDATION
from reports.miniature.settings import MiniatureConfig
from rice.data.world import CATEGORIES, Part, WorldConfig, background, draw_scene, draws, materialise, textures, words
from rice.data.world.textures import Texture
from rice.progress import SilentProgress

QUIET = SilentProgress()


class Seen:
    """What was drawn of a part: keys of streams, texture parameters, backgrounds' families, fonts, words."""

    def __init__(self) -> None:
        self.keys = set[tuple[int, ...]]()
        self.cycles, self.fills, self.fonts, self.words = set[int](), set[float](), set[str](), set[str]()
        self.families = set[str]()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> defaultdict[str, Seen]:
    """Whatever is drawn is noted under the name in `now`."""
    found: defaultdict[str, Seen] = defaultdict(Seen)
    now = found["now"]
    begin, texture, word = draws.Dice.__init__, textures.draw_texture, words.draw_print

    def noted_begin(self: Any, *key: int) -> None:
        now.keys.add(key)
        begin(self, *key)

    def noted_texture(dice: Any, part: Part, kind: str, pixels: float) -> Texture:
        drawn = texture(dice, part, kind, 1000)  # finer ones than a picture can show are made coarser
        now.cycles.add(round(2 / drawn.period))
        now.fills.add(drawn.fill)
        return texture(dice, part, kind, pixels)

    def noted_word(*arguments: Any, **options: Any) -> Any:
        drawn = word(*arguments, **options)
        if drawn is not None:
            now.fonts.add(drawn.word.font)
            now.words.add(drawn.word.text.lower())
        return drawn

    monkeypatch.setattr(draws.Dice, "__init__", noted_begin)
    for place in ("rice.data.world.actors", "rice.data.world.background"):
        monkeypatch.setattr(f"{place}.draw_texture", noted_texture)
    monkeypatch.setattr("rice.data.world.scene.draw_print", noted_word)
    for family in ("_halves", "_strata", "_cells", "_islands"):
        monkeypatch.setattr(background, family, _noted(getattr(background, family), family, now))
    return found


def _noted(function: Any, name: str, now: Seen) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        now.families.add(name)
        return function(*arguments, **options)

    return call


def taken(found: defaultdict[str, Seen], name: str) -> None:
    """Move what was noted so far to `name`."""
    for field, values in vars(found["now"]).items():
        getattr(found[name], field).update(values)
        values.clear()


def test_pretraining_probe_training_and_probe_tests_share_no_stream_and_the_tests_hold_out_the_rest(
    seen: defaultdict[str, Seen], tmp_path: Path
) -> None:
    config = MiniatureConfig()
    write_pictures(tmp_path / "pictures", 120, config.size, config.world_seed, QUIET)
    taken(seen, "pretrain")
    for part in (Part.TRAIN, Part.TEST):
        for name, world in config.worlds.items():
            for seed in (config.world_seed, config.world_seed + _VALIDATION):
                materialise(_small(world, seed, part), tmp_path / f"{name}-{seed}-{part.name}")
                taken(seen, "test" if part is Part.TEST else "train")
    pretrain, train, test = seen["pretrain"], seen["train"], seen["test"]
    test.keys -= train.keys  # a world has a picture of the other part, too
    both = {key for key in test.keys if Part.TEST in key[1:2]}
    assert min(len(pretrain.keys), len(train.keys), len(both)) > 50
    assert pretrain.keys.isdisjoint(train.keys | test.keys)
    assert {key[1] for key in pretrain.keys} == {Part.PRETRAIN}


def _small(world: dict[str, Any], seed: int, part: Part) -> WorldConfig:
    few = {"train": 10, "test": 1} if part is Part.TRAIN else {"train": 1, "test": 10}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in world.items()}
    return WorldConfig(**{**fields, **few, "seed": seed})


def test_what_the_test_part_shows_was_never_pretrained_on(seen: defaultdict[str, Seen], tmp_path: Path) -> None:
    config = MiniatureConfig()
    write_pictures(tmp_path / "pictures", 200, config.size, config.world_seed, QUIET)
    taken(seen, "pretrain")
    for index in range(200):
        draw_scene(scene_config(config.size), Part.TEST, config.world_seed, index)
    taken(seen, "test")
    for field in ("cycles", "fills", "fonts", "words", "families"):
        pretrain, test = (getattr(seen[name], field) for name in ("pretrain", "test"))
        assert pretrain, field
        assert test, field
        assert pretrain.isdisjoint(test), field


def test_captions_name_what_is_there_and_no_more(tmp_path: Path) -> None:
    config = scene_config(96)
    for index in range(40):
        scene = draw_scene(config, Part.PRETRAIN, 0, index)
        things, *said = caption(scene, 0, index).split(', the word "')
        there = [CATEGORIES[thing.category] for thing in scene.objects]
        for name in things.split(" and ") if things != "some things" else ():
            there.remove(name.removeprefix("a "))  # raises where it is not there, or told twice
        assert [text.rstrip('"') for text in said] == [word.text for word in scene.words]


def test_the_teachers_pictures_show_one_thing_and_name_it(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 12, 64, 0, QUIET, single=True)
    read = json.loads((folder / "annotations" / f"captions_{SPLIT}.json").read_text())["annotations"]
    instances = json.loads((folder / "annotations" / f"instances_{SPLIT}.json").read_text())
    names = {category["id"]: category["name"] for category in instances["categories"]}
    for row in read:
        there = [names[one["category_id"]] for one in instances["annotations"] if one["image_id"] == row["image_id"]]
        assert row["caption"].split(",")[0] == (f"a {there[0]}" if there else "some things")
        assert len(there) <= 1
    assert sum(row["caption"].startswith("a ") for row in read) >= 10


def test_every_picture_has_its_caption(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 5, 64, 0, QUIET)
    read = json.loads((folder / "annotations" / f"captions_{SPLIT}.json").read_text())["annotations"]
    scenes = [draw_scene(scene_config(64), Part.PRETRAIN, 0, index) for index in range(5)]
    assert [(row["image_id"], row["caption"]) for row in read] == [
        (index + 1, caption(scene, 0, index)) for index, scene in enumerate(scenes)
    ]
    assert len(list((folder / SPLIT).iterdir())) == 5
