"""The verb `rice world`."""

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated

import tyro

from rice.data.world.config import TEST_NAMES, Kind, Layout, WorldConfig, clips, crops, materialise, scenes, tracks
from rice.data.world.draws import Part
from rice.data.world.preview import contact_sheet
from rice.data.world.scene import Scene
from rice.data.world.target import Track
from rice.files import atomic_write
from rice.progress import BarProgress

_LAYOUTS = {
    ("scenes", "coco"): "COCO: annotations/instances_{train,val}.json, {train,val}/",
    ("scenes", "lvis"): "LVIS: annotations/lvis_v1_{train,val}.json, {train,val}/",
    ("scenes", "roboflow"): "Roboflow: {train,valid,test}/_annotations.coco.json, images beside it",
    ("scenes", "voc"): "Pascal VOC: ImageSets/Main/{train,test}.txt, Annotations/, JPEGImages/",
    ("scenes", "icdar"): "ICDAR 2015: ch4_{training,test}_images/, and the words with their quads as gt_img_N.txt",
    ("scenes", "llava"): "LLaVA: images/, {pretrain,instruct}.json; for lmms-eval: benchmarks/, tasks/",
    ("scenes", "refer"): "LISA: refer_seg/{refcoco,grefcoco,images}/, {pretrain,instruct}.json",
    ("crops", "coco"): "image folders: {train,val}/CATEGORY/",
    ("clips", "coco"): "YouTube-VOS: {train,val}/{JPEGImages,Annotations}/, meta.json, videos/",
    ("clips", "got10k"): "GOT-10k: {train,val,test}/list.txt and sequences; test has only the first frame's box",
    ("clips", "lasot"): "LaSOT: CLASS/CLASS-N/, training_set.txt, testing_set.txt",
    ("clips", "trackingnet"): "TrackingNet: {TRAIN_0,TRAIN_1,TEST}/{anno,frames}/; TEST's other boxes in truth/",
    ("clips", "tnl2k"): "TNL2K: {train,test}/SEQ/, absent/SEQ.txt",
}
_OBJECTS_AND_WORDS: dict[Layout, dict[str, tuple[int, int]]] = {
    "icdar": {"words": (8, 12)},  # about half of them find room
    "llava": {"objects": (1, 4), "words": (1, 1)},
    "refer": {"objects": (3, 5), "words": (0, 0)},
}
"""Fewest and most in a scene of a layout that asks for other scenes than the rest."""

_EASY_OBJECTS = {"objects": (2, 4)}

_SHOWN = 12


def world(
    kind: Annotated[Kind, tyro.conf.Positional] = "scenes",
    *,
    out: Path,
    layout: Layout = "coco",
    size: int = 128,
    train: int = 200,
    test: int = 100,
    frames: int = 24,
    seed: int = 0,
    easy: bool = False,
    preview: bool = False,
) -> None:
    """Write generated pictures with masks, boxes and words, in a real benchmark's own layout.

    Textured shapes of 24 categories (texture x shape) over backgrounds of the same textures and colours, hiding each
    other. Annotations are the same on every machine. The split `val` comes from other seeds, and has backgrounds,
    texture parameters, fonts and words that `train` has not; the categories are shared.

    Example: rice world scenes --out worlds/a --size 256 --train 2000 --test 500 --preview

    Args:
        kind: scenes: several objects each, COCO's layout; crops: one object each, image folders; clips: YouTube-VOS'.
        out: Folder to write: a new or an empty one, or one that holds the very same world.
        layout: Of scenes: coco; lvis: federated, with frequencies; roboflow: also a split `valid`; voc: boxes only;
            icdar: many words with quads and transcriptions, most of those in `train` made up; llava: captions and
            questions as LLaVA's JSON, the held-out part as benchmarks for lmms-eval; refer: referring expressions
            with their masks as refCOCO's and gRefCOCO's, beside captions and questions. Of clips: coco: YouTube-VOS';
            one target each: got10k: also a split `test` without truth; lasot; trackingnet; tnl2k. The split that is
            judged on is called `val` in coco, lvis, refer and got10k, else `test`.
        size: Edge of the square pictures in pixels, 64 to 2048.
        train: Number of scenes, crops or clips in `train`.
        test: Number of them in `val` or `test`.
        frames: Length of a clip.
        seed: Another seed is another world.
        easy: Of COCO's scenes and of crops: large things, plain backgrounds, and the four textures as categories.
        preview: Also write OUT/preview.png: some of `train` with outlines, boxes and names.
    """
    own = _EASY_OBJECTS if easy else _OBJECTS_AND_WORDS.get(layout, {})
    config = WorldConfig(
        kind=kind, layout=layout, size=size, train=train, test=test, frames=frames, seed=seed, easy=easy, **own
    )
    folder = materialise(config, out, BarProgress())
    held_out = TEST_NAMES[layout]
    print(f"{train} {kind} in train, {test} in {held_out}, {size} px, as {_LAYOUTS[kind, layout]}")  # noqa: T201
    print(f"written to {folder}")  # noqa: T201
    if preview:
        with atomic_write(folder / "preview.png", "wb") as file:
            contact_sheet(_shown(config), config.categories).save(file, format="PNG")
        print(f"preview in {folder / 'preview.png'}")  # noqa: T201


def _shown(config: WorldConfig) -> list[Scene]:
    if config.kind == "scenes":
        return list(itertools.islice(scenes(config, Part.TRAIN), _SHOWN))
    if config.kind == "crops":
        return [scene for scene, _ in itertools.islice(crops(config, Part.TRAIN), _SHOWN)]
    if config.layout != "coco":
        return _shown_track(next(tracks(config, Part.TRAIN)))
    return list(itertools.islice(next(clips(config, Part.TRAIN)), _SHOWN))


def _shown_track(track: Track) -> list[Scene]:
    """Frames from all over the clip, each with no object but the target."""
    length = len(track.clip)
    shown = min(_SHOWN, length)
    frames = [track.clip.frame(place * length // shown) for place in range(shown)]
    return [
        dataclasses.replace(scene, objects=tuple(o for o in scene.objects if o.identity == track.identity))
        for scene in frames
    ]
