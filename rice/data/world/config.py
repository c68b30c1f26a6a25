"""A world on disk: what to write, and writing it once. Imports no torch."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from rice.data.world.actors import CATEGORIES
from rice.data.world.clip import Clip, ClipConfig, draw_clip
from rice.data.world.draws import VERSION, Part
from rice.data.world.layouts import write_clips, write_coco, write_image_folder
from rice.data.world.layouts_detection import write_lvis, write_roboflow, write_voc
from rice.data.world.layouts_llava import write_llava
from rice.data.world.layouts_refer import write_refer
from rice.data.world.layouts_text import write_icdar
from rice.data.world.layouts_tracking import write_got10k, write_lasot, write_tnl2k, write_trackingnet
from rice.data.world.scene import Scene, SceneConfig, draw_crop, draw_scene
from rice.data.world.target import Track, draw_tracks
from rice.data.world.textures import TEXTURES
from rice.data.world.words import MADE_UP
from rice.errors import RiceError
from rice.files import atomic_folder, read_json, sha256_json, write_json
from rice.progress import Progress, SilentProgress

Kind = Literal["scenes", "crops", "clips"]
Layout = Literal[
    "coco", "lvis", "roboflow", "voc", "icdar", "llava", "refer", "got10k", "lasot", "trackingnet", "tnl2k"
]

TEST_NAMES: dict[Layout, str] = {
    "coco": "val",
    "lvis": "val",
    "roboflow": "test",
    "voc": "test",
    "icdar": "test",
    "llava": "test",
    "refer": "val",
    "got10k": "val",
    "lasot": "test",
    "trackingnet": "TEST",
    "tnl2k": "test",
}
"""What the layout's own set calls the split that is judged on: held out in every respect but its categories."""

_TRACK_WRITERS: dict[Layout, Callable[[Path, str, Iterable[Track]], None]] = {
    "got10k": write_got10k,
    "lasot": write_lasot,
    "trackingnet": write_trackingnet,
    "tnl2k": write_tnl2k,
}
"""Layouts of clips with one target each; all others, but the first, are of scenes."""

_PLAIN_SCENES: dict[str, Any] = {"clutter": (0, 0), "visible": 0.6, "plain": 1.0}
_LARGE_THINGS: dict[str, Any] = _PLAIN_SCENES | {"radius": (0.13, 0.26), "words": (0, 0)}
_SCENES: dict[Layout, tuple[dict[str, Any], ...]] = {
    "icdar": ({"made_up": MADE_UP},),
    "llava": (
        _LARGE_THINGS,
        _PLAIN_SCENES | {"objects": (0, 0), "words": (1, 1), "digits": True, "em": (0.45, 0.58)},
    ),
    "refer": (_LARGE_THINGS | {"radius": (0.17, 0.30)},),
}
"""What a layout's scenes have that others have not; where there are several kinds, they take turns. Of llava: few large
things, all of which can be named; or a digit. Of refer: larger ones, for a segmenter of a million parameters."""

_EASY_PLAIN = 0.8
_EASY_SCENES: dict[str, Any] = {"clutter": (0, 0), "radius": (0.17, 0.30), "visible": 0.5, "plain": _EASY_PLAIN}

_STAMP = "world.json"
_SIZES = (64, 2048)
_MOST_OBJECTS = 64
_MOST_FRAMES = 100_000
_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What to generate.

    Attributes:
        kind: Scenes with several objects (COCO), crops of one object each (image folders), or clips (YouTube-VOS).
            Other layouts of scenes and clips: see `layout`.
        size: Edge of the square pictures, in pixels, 64 to 2048.
        train: Number of scenes, crops or clips to learn from.
        test: Number to be judged on: other seeds, backgrounds, texture parameters, fonts and words.
        objects: Fewest and most objects in a scene or clip; some more hide behind others.
        words: Fewest and most printed words in a scene.
        frames: Length of a clip.
        seed: Another seed is another world.
        layout: Of scenes: COCO's, LVIS' (federated), Roboflow's COCO export (with a valid split, half as large as
            test, that is not held out), Pascal VOC's (boxes only), ICDAR 2015's (words only; most of those in train
            are made up), LLaVA's (captions and conversations; the held-out part as benchmarks for lmms-eval) or REFER's
            (expressions with their masks as refCOCO and gRefCOCO, captions and conversations in LISA's tree). Of
            clips: YouTube-VOS' (named coco), or, with one target a clip, GOT-10k's (with a test split, half as large
            as val and held out too, that has only the first frame's box), LaSOT's, TrackingNet's or TNL2K's.
        easy: Of COCO's scenes and of crops: what an encoder that trained for minutes can tell apart. Large things on
            mostly plain backgrounds, and the categories are the four textures alone.
    """

    kind: Kind = "scenes"
    size: int = 128
    train: int = 200
    test: int = 100
    objects: tuple[int, int] = (4, 8)
    words: tuple[int, int] = (0, 2)
    frames: int = 24
    seed: int = 0
    layout: Layout = "coco"
    easy: bool = False

    def __post_init__(self) -> None:
        """Errors: RiceError naming the field."""
        if self.kind not in get_args(Kind):
            raise RiceError(f"expected a kind of world out of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.layout not in get_args(Layout):
            raise RiceError(f"expected a layout of a world out of {', '.join(get_args(Layout))}, got {self.layout!r}")
        of_layout: Kind = "clips" if self.layout in _TRACK_WRITERS else "scenes"
        if self.layout != "coco" and self.kind != of_layout:
            raise RiceError(
                f"expected kind {of_layout} for layout {self.layout}, got {self.kind}; leave the layout out"
            )
        if self.easy and (self.layout != "coco" or self.kind == "clips"):
            raise RiceError(f"expected easy with scenes in COCO's layout or crops, got {self.kind} as {self.layout}")
        _within("size", self.size, *_SIZES)
        _within("train", self.train, 1, _SEEDS - 1)
        _within("test", self.test, 1, _SEEDS - 1)
        _within("frames", self.frames, 1, _MOST_FRAMES)
        _within("seed", self.seed, 0, _SEEDS - 1)
        for name, (low, high) in (("objects", self.objects), ("words", self.words)):
            _within(f"the lower end of {name}", low, 0 if name == "words" else 1, _MOST_OBJECTS)
            _within(f"the upper end of {name}", high, low, _MOST_OBJECTS)

    def fingerprint(self) -> str:
        """SHA-256 of the generator's version and of these fields: they decide every annotation."""
        return sha256_json({"version": VERSION, **_plain(self)})

    @property
    def categories(self) -> tuple[str, ...]:
        """Their names, by index."""
        return TEXTURES if self.easy else CATEGORIES


def materialise(config: WorldConfig, folder: Path, progress: Progress | None = None) -> Path:
    """Write the world to `folder`, whole or not at all, and return it; a folder that holds it already is kept.

    Errors: RiceError when the folder holds anything else.
    """
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not empty:
        _check_same(config, folder)
        return folder
    progress = progress or SilentProgress()
    with atomic_folder(folder) as temporary:
        for split in _splits(config):
            _write_split(config, temporary, split, progress)
        write_json(temporary / _STAMP, {"fingerprint": config.fingerprint(), "version": VERSION, **_plain(config)})
    return folder


def scenes(config: WorldConfig, part: Part) -> Iterator[Scene]:
    """The scenes of one part, in order, one at a time."""
    return _scenes(config, part, range(_count(config, part)))


def _scenes(config: WorldConfig, part: Part, indices: range) -> Iterator[Scene]:
    size = {"height": config.size, "width": config.size}
    shared: dict[str, Any] = size | {"objects": config.objects, "words": config.words}
    owns = (_EASY_SCENES,) if config.easy else _SCENES.get(config.layout, ({},))
    kinds = [SceneConfig(**shared | own) for own in owns]
    drawn = (draw_scene(kinds[index % len(kinds)], part, config.seed, index) for index in indices)
    return map(_by_texture, drawn) if config.easy else drawn


def _by_texture(scene: Scene) -> Scene:
    things = (dataclasses.replace(thing, category=thing.category % len(TEXTURES)) for thing in scene.objects)
    return dataclasses.replace(scene, objects=tuple(things))


def crops(config: WorldConfig, part: Part) -> Iterator[tuple[Scene, int]]:
    """The crops of one part with their categories, which take turns."""
    indices = range(_count(config, part))
    if not config.easy:
        return (draw_crop(config.size, part, config.seed, index) for index in indices)
    drawn = (draw_crop(config.size, part, config.seed, index, _EASY_PLAIN) for index in indices)
    return ((_by_texture(scene), category % len(TEXTURES)) for scene, category in drawn)


def clips(config: WorldConfig, part: Part) -> Iterator[Clip]:
    """The clips of one part."""
    return (draw_clip(_clip_config(config), part, config.seed, index) for index in range(_count(config, part)))


def tracks(config: WorldConfig, part: Part) -> Iterator[Track]:
    """The clips of one part with their targets, as the layouts of tracking have them."""
    return draw_tracks(_clip_config(config), part, config.seed, range(_count(config, part)))


def _clip_config(config: WorldConfig) -> ClipConfig:
    return ClipConfig(height=config.size, width=config.size, frames=config.frames, objects=config.objects)


@dataclass(frozen=True, slots=True)
class _Split:
    """What a folder, or list, of this name holds. indices: of tracks, their places among the clips with a target."""

    name: str
    part: Part
    indices: range


def _splits(config: WorldConfig) -> list[_Split]:
    """Train comes first: LVIS' counts are those of train, and REFER's files hold both."""
    train = _Split("train", Part.TRAIN, range(config.train))
    test = _Split(TEST_NAMES[config.layout], Part.TEST, range(config.test))
    half = (config.test + 1) // 2
    if config.layout == "roboflow":
        valid = range(config.train, config.train + half)  # other scenes than train's
        return [train, _Split("valid", Part.TRAIN, valid), test]
    if config.layout == "got10k":
        withheld = range(config.test, config.test + half)  # other clips than val's
        return [train, test, _Split("test", Part.TEST, withheld)]
    return [train, test]


def _write_split(config: WorldConfig, folder: Path, split: _Split, progress: Progress) -> None:
    label, total = f"{config.kind}, {split.name}", len(split.indices)
    if config.kind == "scenes":
        drawn = _scenes(config, split.part, split.indices)
        _scene_writer(config)(folder, split.name, progress.track(drawn, label, total))
    elif config.kind == "crops":
        drawn_crops = progress.track(crops(config, split.part), label, total)
        write_image_folder(folder, split.name, drawn_crops, config.categories)
    elif config.layout in _TRACK_WRITERS:
        followed = draw_tracks(_clip_config(config), split.part, config.seed, split.indices)
        _TRACK_WRITERS[config.layout](folder, split.name, progress.track(followed, label, total))
    else:
        write_clips(folder, split.name, progress.track(clips(config, split.part), label, total))


def _scene_writer(config: WorldConfig) -> Callable[[Path, str, Iterable[Scene]], None]:
    writers: dict[Layout, Callable[[Path, str, Iterable[Scene]], None]] = {
        "coco": partial(write_coco, names=config.categories),
        "lvis": partial(write_lvis, seed=config.seed),
        "roboflow": write_roboflow,
        "voc": write_voc,
        "icdar": write_icdar,
        "llava": partial(write_llava, seed=config.seed),
        "refer": partial(write_refer, seed=config.seed),
    }
    return writers[config.layout]


def _count(config: WorldConfig, part: Part) -> int:
    return config.test if part is Part.TEST else config.train


def _check_same(config: WorldConfig, folder: Path) -> None:
    stamp = folder / _STAMP
    if not stamp.is_file():
        raise RiceError(f"{folder} exists and holds no generated world; name another folder")
    found = read_json(stamp)
    if not isinstance(found, dict) or found.get("fingerprint") != config.fingerprint():
        raise RiceError(f"{folder} holds another generated world (see its {_STAMP}); name another folder or delete it")


def _plain(config: WorldConfig) -> dict[str, Any]:
    """Layouts and ease have no entry by default: worlds are older than both, and keep their fingerprints."""
    younger = {"layout": "coco", "easy": False}
    fields = dataclasses.asdict(config).items()
    return {key: value for key, value in fields if key not in younger or value != younger[key]}


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise RiceError(f"expected {name} of a generated world from {low} to {high}, got {value}")
