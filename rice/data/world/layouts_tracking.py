"""Clips with one target each, in the layouts of the tracking benchmarks. Frames are JPEG, quality 95.

write_got10k       {train,val,test}/list.txt, SEQ/%08d.jpg from 1, groundtruth.txt, *.label, meta_info.ini
write_lasot        CLASS/CLASS-N/img/%08d.jpg from 1, groundtruth.txt, full_occlusion.txt, out_of_view.txt, nlp.txt
write_trackingnet  {TRAIN_0,TRAIN_1,TEST}/anno/VID.txt, frames/VID/%d.jpg from 0; also truth/VID.txt
write_tnl2k        {train,test}/SEQ/imgs/%05d.jpg from 1, groundtruth.txt, language.txt; also absent/SEQ.txt

Boxes in the files: x, y, width, height of the target's visible part. The image's top left corner is (0, 0), in LaSOT
(1, 1). In frames where the target is absent, all but TNL2K repeat the last box. Each writer writes one split; all
splits of a world share a folder.
"""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rice.data.world.clip import Clip
from rice.data.world.layouts import save_picture
from rice.data.world.scene import Box
from rice.data.world.target import Track

_ANNOTATED_HZ = 10
"""Of GOT-10k, by its meta_info.ini."""


def write_got10k(folder: Path, split: str, tracks: Iterable[Track]) -> None:
    """Write clips as GOT-10k's `train`, `val` or `test`.

    absence.label: 1 where the target is absent. cover.label: its visible share in eighths, rounded up, so that 0 means
    absent. cut_by_image.label: 1 where the box touches the image's edge. `test` is as its server gives it away: the
    first frame's box, and no labels.
    """
    names = []
    for number, track in enumerate(tracks, start=1):
        names.append(f"GOT-10k_{split.capitalize()}_{number:06d}")
        sequence = folder / split / names[-1]
        _write_frames(sequence, track.clip, "%08d.jpg", 1)
        _write_lines(sequence / "meta_info.ini", _got10k_meta(track, f"{split}/{names[-1]}"))
        boxes = track.boxes()
        rows = [_row(box, ".4f") for box in boxes]
        _write_lines(sequence / "groundtruth.txt", rows[:1] if split == "test" else rows)
        if split == "test":
            continue
        _write_lines(sequence / "absence.label", [int(sight is None) for sight in track.sights])
        covers = [0 if sight is None else math.ceil(8 * sight.visibility) for sight in track.sights]
        _write_lines(sequence / "cover.label", covers)
        _write_lines(sequence / "cut_by_image.label", [int(_touches_edge(box, track.clip)) for box in boxes])
    _write_lines(folder / split / "list.txt", names)


def _got10k_meta(track: Track, place: str) -> list[str]:
    """The lines of meta_info.ini; readers count them, so that their order matters."""
    config = track.clip.config
    minutes, seconds = divmod(len(track.clip) // _ANNOTATED_HZ, 60)
    fields = {
        "url": f"world://{place}",
        "begin": "00:00:00",
        "end": f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}",
        "anno_fps": f"{_ANNOTATED_HZ}Hz",
        "object_class": track.category,
        "motion_class": "drifting",
        "major_class": track.shape,
        "root_class": "shape",
        "motion_adverb": "smoothly",
        "resolution": f"({config.width}, {config.height})",
    }
    return ["[METAINFO]", *(f"{key}: {value}" for key, value in fields.items())]


def _touches_edge(box: Box, clip: Clip) -> bool:
    left, top, right, bottom = box
    return left == 0 or top == 0 or right == clip.config.width or bottom == clip.config.height


def write_lasot(folder: Path, split: str, tracks: Iterable[Track]) -> None:
    """Write clips as LaSOT's `train` or `test`, which lie in the same folders: {split}ing_set.txt lists them.

    CLASS is the target's shape; its sequences are numbered through all splits. Pixels count from 1.
    """
    others = [name for path in sorted(folder.glob("*ing_set.txt")) for name in path.read_text("utf-8").split()]
    numbers = Counter(name.rpartition("-")[0] for name in others)
    names = []
    for track in tracks:
        numbers[track.shape] += 1
        names.append(f"{track.shape}-{numbers[track.shape]}")
        sequence = folder / track.shape / names[-1]
        _write_frames(sequence / "img", track.clip, "%08d.jpg", 1)
        _write_lines(sequence / "groundtruth.txt", [_row(box, "d", origin=1) for box in track.boxes()])
        outside = track.out_of_view()
        hidden = [sight is None and not out for sight, out in zip(track.sights, outside, strict=True)]
        for name, flags in (("full_occlusion", hidden), ("out_of_view", outside)):
            _write_lines(sequence / f"{name}.txt", [",".join(str(int(flag)) for flag in flags)])
        _write_lines(sequence / "nlp.txt", [_sentence(track)])
    _write_lines(folder / f"{split}ing_set.txt", names)


def write_trackingnet(folder: Path, split: str, tracks: Iterable[Track]) -> None:
    """Write clips as TrackingNet's `train`, over TRAIN_0 and TRAIN_1 in turns, or as its `TEST`.

    As in the real set, TEST's annotations end after the first frame. What its server keeps is in truth/VID.txt, which
    only worlds have, so that results can be judged here.
    """
    for index, track in enumerate(tracks):
        name = f"{split.lower()}_{index + 1:06d}"
        chunk = folder / (split if split == "TEST" else f"TRAIN_{index % 2}")
        _write_frames(chunk / "frames" / name, track.clip, "%d.jpg", 0)
        rows = [_row(box, ".3f") for box in track.boxes()]
        _write_lines(chunk / "anno" / f"{name}.txt", rows[:1] if split == "TEST" else rows)
        if split == "TEST":
            _write_lines(folder / "truth" / f"{name}.txt", rows)


def write_tnl2k(folder: Path, split: str, tracks: Iterable[Track]) -> None:
    """Write clips as TNL2K's `train` or `test`.

    Names are numbered by shape, through all splits. Boxes of absent frames are 0,0,0,0; absent/SEQ.txt, for all
    splits, has 1 for them and 0 for the others, a line each.
    """
    numbers = Counter(path.stem.rpartition("_")[0] for path in folder.glob("absent/*.txt"))
    for track in tracks:
        stem = f"world_{track.shape}"
        numbers[stem] += 1
        name = f"{stem}_{numbers[stem]:04d}"
        sequence = folder / split / name
        _write_frames(sequence / "imgs", track.clip, "%05d.jpg", 1)
        boxes = [(0, 0, 0, 0) if sight is None else sight.box for sight in track.sights]
        _write_lines(sequence / "groundtruth.txt", [_row(box, "d") for box in boxes])
        _write_lines(sequence / "language.txt", [_sentence(track)])
        _write_lines(folder / "absent" / f"{name}.txt", [int(sight is None) for sight in track.sights])


def _sentence(track: Track) -> str:
    """Texture and shape; a clip may have a second object of this category, with other colours."""
    return f"the {track.category}"


def _row(box: Box, form: str, origin: int = 0) -> str:
    left, top, right, bottom = box
    return ",".join(format(value, form) for value in (left + origin, top + origin, right - left, bottom - top))


def _write_frames(folder: Path, clip: Clip, pattern: str, first: int) -> None:
    folder.mkdir(parents=True)
    for number, scene in enumerate(clip, start=first):
        save_picture(folder / (pattern % number), scene.image)


def _write_lines(path: Path, lines: Iterable[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
