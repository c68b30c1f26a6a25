"""Pictures to pretrain on: scenes of the world's pretraining part with their captions, in COCO's layout.

    FOLDER/pretrain/*.png, annotations/instances_pretrain.json, annotations/captions_pretrain.json

The arms' pictures show several things each, and most have a word. The teacher has pictures of its own, of one thing
each: a CLIP that trains for minutes learns nothing from captions that name several.

The probes draw from the parts TRAIN and TEST: other seeds, and TEST's backgrounds, texture parameters, fonts and words
occur nowhere else (`rice.data.world.draws.Part`).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rice.data.world import CATEGORIES, Part, Scene, SceneConfig, draw_scene
from rice.data.world.draws import Dice
from rice.data.world.layouts import write_coco
from rice.data.world.words import MADE_UP
from rice.files import atomic_folder, write_json
from rice.progress import Progress

SPLIT = "pretrain"

_CAPTIONS = 6
"""First entry of the captions' streams, beside those of the world."""
_TOLD = 0.8
"""Chance of a thing to be in its picture's caption, beside others: nobody tells all."""


def scene_config(size: int, *, single: bool = False) -> SceneConfig:
    """What a picture to pretrain on holds: several things, and a word in most; or one thing alone."""
    many = SceneConfig(
        height=size,
        width=size,
        objects=(2, 4),
        clutter=(0, 0),
        words=(0, 2),
        radius=(0.17, 0.30),
        em=(0.12, 0.2),
        visible=0.5,
        plain=0.8,
        made_up=MADE_UP,
    )
    return replace(many, objects=(1, 1), words=(0, 1), radius=(0.28, 0.42), visible=0.6) if single else many


def write_pictures(folder: Path, count: int, size: int, seed: int, progress: Progress, *, single: bool = False) -> Path:
    """Write `count` scenes, whole or not at all; returns the folder. `single`: as of `scene_config`."""
    if folder.is_dir():
        return folder
    config, captions = scene_config(size, single=single), list[str]()
    what = "draw the teacher's pictures" if single else "draw pictures"

    def drawn() -> Iterator[Scene]:
        for index in range(count):
            scene = draw_scene(config, Part.PRETRAIN, seed, index)
            captions.append(caption(scene, seed, index, told=1.0 if single else _TOLD))
            yield scene

    with atomic_folder(folder) as temporary:
        write_coco(temporary, SPLIT, progress.track(drawn(), what, count))
        rows = [{"id": id_, "image_id": id_, "caption": text} for id_, text in enumerate(captions, start=1)]
        write_json(temporary / "annotations" / f"captions_{SPLIT}.json", {"annotations": rows})
    return folder


def caption(scene: Scene, seed: int, index: int, told: float = _TOLD) -> str:
    """Some of the things by category, in any order, and the words: what people write under pictures.

    told: chance of a thing to be named.
    """
    dice = Dice(_CAPTIONS, Part.PRETRAIN, seed, index)
    names = [f"a {CATEGORIES[thing.category]}" for thing in scene.objects if dice.chance(told)]
    order = sorted((dice.integer(0, 2**32), name) for name in names)
    things = " and ".join(name for _, name in order) or "some things"
    return "".join([things, *(f', the word "{word.text}"' for word in scene.words)])
