"""GOT-10k: ROOT/{train,val,test}/list.txt, then a folder for each sequence.

    SEQUENCE/00000001.jpg ...     from 1 on
    SEQUENCE/groundtruth.txt      x,y,w,h from 0, one line a frame; the test split has the first line only
    SEQUENCE/absence.label        1 where the target is not to be seen
    SEQUENCE/cover.label          its visible share in eighths, 0 to 8
    SEQUENCE/meta_info.ini        `resolution: (1920, 1080)` among others. Some clips change it on the way
                                  (GOT-10k_Val_000136 from frame 112 on), so it holds for the first frame.

cut_by_image.label is not read. Source: https://github.com/got-10k/toolkit, Huang et al., arXiv 1810.11981.
"""

import re
from pathlib import Path

from rice.data.splits import read_lines
from rice.errors import RiceError
from tracking.layouts.benchmark import Benchmark, Clip, check_count, check_start, listed, read_labels, require_split
from tracking.layouts.frames import folders_in, names_in, numbered_frames
from tracking.layouts.text import read_boxes
from tracking.sequence import Sequence

_SPLITS = ("train", "val", "test")
_LIST = "list.txt"
_ABSENCE, _COVER, _META = "absence.label", "cover.label", "meta_info.ini"
_RESOLUTION = re.compile(r"resolution:\s*\(\s*([1-9]\d{0,5})\s*,\s*([1-9]\d{0,5})\s*\)\s*")


class Got10k(Benchmark):
    """See this module and `Benchmark`."""

    name = "got10k"
    expects = "ROOT/{train,val,test}/list.txt with ROOT/SPLIT/SEQUENCE/{00000001.jpg,groundtruth.txt}"
    judged = "val"
    """The truth of `test` is withheld."""

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `Benchmark`."""
        return tuple(split for split in _SPLITS if (root / split / _LIST).is_file())

    def clips(self, root: Path, split: str) -> list[Clip]:
        """See `Benchmark`."""
        require_split(self, root, split)
        folder = root / split
        found = listed(folder / _LIST, folder, {place.name: place for place in folders_in(folder)})
        return [
            Clip(name, path, path / "groundtruth.txt", (path / _ABSENCE, path / _COVER, path / _META))
            for name, path in found
        ]

    def read(self, split: str, clip: Clip) -> Sequence:
        """See `Benchmark`. Labels are a must where the truth is known: without `cover` GOT-10k has no score."""
        names = names_in(clip.frames)
        frames = numbered_frames(clip.frames, names, pattern="%08d.jpg", first=1)
        boxes = read_boxes(clip.truth, commas_only=True, polygons=False)
        check_count(clip, boxes, len(frames), first_only=split == "test")
        absence, cover, meta = clip.labels
        known = split != "test"
        absent = read_labels(absence, clip, len(frames)) > 0 if known or _ABSENCE in names else None
        covers = read_labels(cover, clip, len(frames), highest=8) if known or _COVER in names else None
        size = _resolution(meta) if _META in names else None
        if split != "train":
            check_start(clip, boxes, size or frames)
        return Sequence(
            benchmark=self.name, name=clip.name, frames=frames, boxes=boxes, absent=absent, cover=covers, size=size
        )


def _resolution(path: Path) -> tuple[int, int] | None:
    for index, line in enumerate(read_lines(path)):
        if line.startswith("resolution"):
            match = _RESOLUTION.fullmatch(line)
            if not match:
                raise RiceError(f"{path} line {index + 1}: expected `resolution: (WIDTH, HEIGHT)`, got {line!r}")
            return int(match[1]), int(match[2])
    return None
