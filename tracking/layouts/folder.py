"""Clips of one's own: ROOT is such a clip, or a folder of them.

    CLIP/groundtruth.txt, pictures in CLIP/img, CLIP/imgs or CLIP itself, in natural order
    NAME.mp4 (or another video) and NAME.txt beside it, in ROOT or in a folder of ROOT

Boxes are x, y, w, h from 0, or the eight numbers of four corners, as VOT has them; with commas, tabs or spaces; one
line a frame, or the first frame's only. All are one split, `test`. Folders that have none of these files are left out.
"""

from pathlib import Path

from rice.data.video import open_footage
from rice.errors import RiceError
from tracking.layouts.benchmark import Benchmark, Clip, check_count, check_start, require_split, unique
from tracking.layouts.frames import folders_in, names_in, natural_frames
from tracking.layouts.text import read_boxes
from tracking.sequence import PictureFiles, Sequence, VideoFile

_SPLIT = "test"
TRUTH, FRAMES = "groundtruth.txt", ("img", "imgs")
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")


class Folder(Benchmark):
    """See this module and `Benchmark`."""

    name = "folder"
    expects = "ROOT/[CLIP/]groundtruth.txt with pictures beside it, in img/ or in imgs/; or ROOT/NAME.mp4 with NAME.txt"

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `Benchmark`."""
        return (_SPLIT,) if _clips(root) else ()

    def clips(self, root: Path, split: str) -> list[Clip]:
        """See `Benchmark`."""
        require_split(self, root, split)
        return unique(_clips(root))

    def read(self, split: str, clip: Clip) -> Sequence:
        """See `Benchmark`. A video is decoded once, to count its frames."""
        boxes = read_boxes(clip.truth)
        frames: PictureFiles | VideoFile
        if clip.frames.is_dir():
            frames = natural_frames(clip.frames, names_in(clip.frames))
            check_count(clip, boxes, len(frames), first_only=True)
            check_start(clip, boxes, frames)
        else:
            footage = open_footage(clip.frames)
            frames = VideoFile(footage=footage, count=footage.check())
            check_count(clip, boxes, len(frames), first_only=True)
            check_start(clip, boxes, (footage.width, footage.height))
        return Sequence(benchmark=self.name, name=clip.name, frames=frames, boxes=boxes)


def _clips(root: Path) -> list[Clip]:
    own = _clips_in(root)
    if any(clip.truth.name == TRUTH for clip in own):
        return own
    return own + [clip for folder in folders_in(root) for clip in _clips_in(folder)]


def _clips_in(folder: Path) -> list[Clip]:
    names = frozenset(names_in(folder))
    pictures = [Clip(folder.resolve().name, _pictures(folder, names), folder / TRUTH)] if TRUTH in names else []
    videos = [Path(name) for name in sorted(names) if name[name.rfind(".") :].lower() in _VIDEOS]
    return pictures + [
        Clip(video.stem, folder / video, folder / f"{video.stem}.txt")
        for video in videos
        if f"{video.stem}.txt" in names
    ]


def _pictures(folder: Path, names: frozenset[str]) -> Path:
    inside = [folder / name for name in FRAMES if name in names]
    if len(inside) > 1:
        raise RiceError(f"{folder} has img and imgs; keep the frames in one of them")
    return inside[0] if inside else folder
