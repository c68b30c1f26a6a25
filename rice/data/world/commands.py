"""The verb `rice world`."""

import itertools
from pathlib import Path
from typing import Annotated

import tyro

from rice.data.world.config import TEST_NAMES, Kind, Layout, WorldConfig, clips, crops, materialise, scenes
from rice.data.world.draws import Part
from rice.data.world.preview import contact_sheet
from rice.data.world.scene import Scene
from rice.files import atomic_write
from rice.progress import BarProgress

_LAYOUTS = {
    ("scenes", "coco"): "COCO: annotations/instances_{train,val}.json, {train,val}/",
    ("scenes", "lvis"): "LVIS: annotations/lvis_v1_{train,val}.json, {train,val}/",
    ("scenes", "roboflow"): "Roboflow: {train,valid,test}/_annotations.coco.json, images beside it",
    ("scenes", "voc"): "Pascal VOC: ImageSets/Main/{train,test}.txt, Annotations/, JPEGImages/",
    ("crops", "coco"): "image folders: {train,val}/CATEGORY/",
    ("clips", "coco"): "YouTube-VOS: {train,val}/{JPEGImages,Annotations}/, meta.json, videos/",
}
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
    preview: bool = False,
) -> None:
    """Write generated pictures with masks, boxes and words, in a real benchmark's own layout.

    Textured shapes of 24 categories (texture x shape) over backgrounds of the same textures and colours, hiding each
    other. Annotations are the same on every machine. The split `val` comes from other seeds, and has backgrounds,
    texture parameters, fonts and words that `train` has not; the categories are shared.

    Example: rice world scenes --out worlds/a --size 256 --train 2000 --test 500 --preview

    Args:
        kind: scenes: several objects each, COCO's layout; crops: one object each, image folders; clips: YouTube-VOS'.
        out: Folder to write; it must not exist, or hold the very same world.
        layout: Of scenes: coco; lvis: federated, with frequencies; roboflow: also a split `valid`; voc: boxes only.
            The last two call the split that is judged on `test`.
        size: Edge of the square pictures in pixels, 64 to 2048.
        train: Number of scenes, crops or clips in `train`.
        test: Number of them in `val` or `test`.
        frames: Length of a clip.
        seed: Another seed is another world.
        preview: Also write OUT/preview.png: some of `train` with outlines, boxes and names.
    """
    config = WorldConfig(kind=kind, layout=layout, size=size, train=train, test=test, frames=frames, seed=seed)
    folder = materialise(config, out, BarProgress())
    held_out = TEST_NAMES[layout]
    print(f"{train} {kind} in train, {test} in {held_out}, {size} px, as {_LAYOUTS[kind, layout]}")  # noqa: T201
    print(f"written to {folder}")  # noqa: T201
    if preview:
        with atomic_write(folder / "preview.png", "wb") as file:
            contact_sheet(_shown(config)).save(file, format="PNG")
        print(f"preview in {folder / 'preview.png'}")  # noqa: T201


def _shown(config: WorldConfig) -> list[Scene]:
    if config.kind == "scenes":
        return list(itertools.islice(scenes(config, Part.TRAIN), _SHOWN))
    if config.kind == "crops":
        return [scene for scene, _ in itertools.islice(crops(config, Part.TRAIN), _SHOWN)]
    return list(itertools.islice(next(clips(config, Part.TRAIN)), _SHOWN))
