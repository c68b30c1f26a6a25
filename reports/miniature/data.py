"""Pictures to pretrain on: scenes of the world's pretraining part with their captions, in COCO's layout.

    FOLDER/pretrain/*.png, annotations/instances_pretrain.json, annotations/captions_pretrain.json

The probes draw from the parts TRAIN and TEST: other seeds, and TEST's backgrounds, texture parameters, fonts and words
occur nowhere else (`rice.data.world.draws.Part`).
"""

from collections.abc import Iterator
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
"""Chance of a thing to be in its picture's caption: nobody tells all."""


def scene_config(size: int) -> SceneConfig:
    """What a picture to pretrain on holds: several things, and a word in most."""
    return SceneConfig(
        height=size,
        width=size,
        objects=(2, 5),
        clutter=(0, 1),
        words=(0, 2),
        radius=(0.14, 0.28),
        em=(0.13, 0.2),
        made_up=MADE_UP,
    )


def write_pictures(folder: Path, count: int, size: int, seed: int, progress: Progress) -> Path:
    """Write `count` scenes, whole or not at all; returns the folder."""
    if folder.is_dir():
        return folder
    config, captions = scene_config(size), list[str]()

    def drawn() -> Iterator[Scene]:
        for index in range(count):
            scene = draw_scene(config, Part.PRETRAIN, seed, index)
            captions.append(caption(scene, seed, index))
            yield scene

    with atomic_folder(folder) as temporary:
        write_coco(temporary, SPLIT, progress.track(drawn(), "draw pictures", count))
        rows = [{"id": id_, "image_id": id_, "caption": text} for id_, text in enumerate(captions, start=1)]
        write_json(temporary / "annotations" / f"captions_{SPLIT}.json", {"annotations": rows})
    return folder


def caption(scene: Scene, seed: int, index: int) -> str:
    """Some of the things by category, in any order, and the words: what people write under pictures."""
    dice = Dice(_CAPTIONS, Part.PRETRAIN, seed, index)
    names = [f"a {CATEGORIES[thing.category]}" for thing in scene.objects if dice.chance(_TOLD)]
    order = sorted((dice.integer(0, 2**32), name) for name in names)
    things = " and ".join(name for _, name in order) or "some things"
    return "".join([things, *(f', the word "{word.text}"' for word in scene.words)])
