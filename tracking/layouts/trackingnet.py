"""TrackingNet: ROOT/TRAIN_0 to TRAIN_11, any of them, and ROOT/TEST.

    TRAIN_I/anno/VIDEO.txt            x,y,w,h from 0, one line a frame; TEST has the first line only
    TRAIN_I/frames/VIDEO/0.jpg ...    from 0 on, without leading zeros

Frames without an annotation file are left out. Source: https://github.com/SilvioGiancola/TrackingNet-devkit, Müller et
al., arXiv 1803.10794.
"""

import re
from pathlib import Path

from rice.errors import RiceError
from tracking.layouts.benchmark import Benchmark, Clip, check_count, check_start, require_split, unique
from tracking.layouts.frames import folders_in, names_in, numbered_frames
from tracking.layouts.text import read_boxes
from tracking.sequence import Sequence

_TRAIN = re.compile(r"TRAIN_(\d|10|11)")
_TEST, _ANNO, _TXT = "TEST", "anno", ".txt"


class TrackingNet(Benchmark):
    """See this module and `Benchmark`."""

    name = "trackingnet"
    expects = "ROOT/TRAIN_0..11 or ROOT/TEST with {anno/VIDEO.txt,frames/VIDEO/0.jpg}"

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `Benchmark`."""
        return tuple(split for split in ("train", "test") if _parts(root, split))

    def clips(self, root: Path, split: str) -> list[Clip]:
        """See `Benchmark`."""
        require_split(self, root, split)
        parts = _parts(root, split)
        files = [(part, name) for part in parts for name in sorted(names_in(part / _ANNO)) if name.endswith(_TXT)]
        if not files:
            raise RiceError(f"expected VIDEO.txt in {', '.join(str(part / _ANNO) for part in parts)}, found none")
        names = [(part, file.removesuffix(_TXT)) for part, file in files]
        return unique(Clip(name, part / "frames" / name, part / _ANNO / f"{name}{_TXT}") for part, name in names)

    def read(self, split: str, clip: Clip) -> Sequence:
        """See `Benchmark`."""
        frames = numbered_frames(clip.frames, names_in(clip.frames), pattern="%d.jpg", first=0)
        boxes = read_boxes(clip.truth, commas_only=True, polygons=False)
        check_count(clip, boxes, len(frames), first_only=split == "test")
        if split != "train":
            check_start(clip, boxes, frames)
        return Sequence(benchmark=self.name, name=clip.name, frames=frames, boxes=boxes)


def _parts(root: Path, split: str) -> list[Path]:
    folders = [folder for folder in folders_in(root) if (folder / _ANNO).is_dir()]
    if split == "test":
        return [folder for folder in folders if folder.name == _TEST]
    return [folder for folder in folders if _TRAIN.fullmatch(folder.name)]
