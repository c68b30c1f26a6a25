"""TNL2K: ROOT/SEQUENCE, which tests; or ROOT/{train,test}/SEQUENCE; or ROOT/TNL2K_{train,test}_subset/SEQUENCE.

    SEQUENCE/imgs/*               names follow no rule: natural order
    SEQUENCE/groundtruth.txt      x,y,w,h from 0, one line a frame; 0,0,0,0 where the target is absent
    SEQUENCE/absent.txt           1 where it is; also read from absent/SEQUENCE.txt or annos/absent/SEQUENCE.txt of ROOT
                                  or of the split's folder, as the toolkit's annos.tar.gz unpacks

The toolkit's flags are exactly the boxes of zeros (65,253 of 516,038), so these stand in for a missing file.
language.txt is not read. Source: https://github.com/wangxiao5791509/TNL2K_evaluation_toolkit, Wang et al., CVPR 2021.
"""

from pathlib import Path

import numpy as np

from tracking.layouts.benchmark import Benchmark, Clip, check_count, check_start, read_labels, require_split, unique
from tracking.layouts.frames import folders_in, names_in, natural_frames
from tracking.layouts.text import read_boxes, read_flags
from tracking.sequence import Flags_N, Sequence

_SPLITS = ("train", "test")
_FRAMES, _TRUTH, _LANGUAGE = "imgs", "groundtruth.txt", "language.txt"
_ONE_FLAG_TOO_MANY = "advSamp_monitor_bikeyellow"
"""The toolkit's absent/ has 930 lines for its 929 frames, the last one a 0."""
_HINT = (
    "; 12 training clips were published so: their revised_annotations.zip is at "
    "github.com/wangxiao5791509/TNL2K_evaluation_toolkit"
)


class TNL2K(Benchmark):
    """See this module and `Benchmark`."""

    name = "tnl2k"
    expects = "ROOT/[test/|train/|TNL2K_test_subset/|TNL2K_train_subset/]SEQUENCE/{imgs/,groundtruth.txt,language.txt}"

    def recognises(self, root: Path) -> bool:
        """By `language.txt`, or by the names of the published folders: another's clips may have `imgs` too."""
        found = [(split, place) for split in _SPLITS for place in _places(root, split)]
        return any((place / _LANGUAGE).is_file() or place.parent.name == _published(split) for split, place in found)

    def splits(self, root: Path) -> tuple[str, ...]:
        """See `Benchmark`."""
        return tuple(split for split in _SPLITS if _places(root, split))

    def clips(self, root: Path, split: str) -> list[Clip]:
        """See `Benchmark`."""
        require_split(self, root, split)
        return unique(
            Clip(place.name, place / _FRAMES, place / _TRUTH, _flag_files(root, place))
            for place in _places(root, split)
        )

    def read(self, split: str, clip: Clip) -> Sequence:
        """See `Benchmark`."""
        frames = natural_frames(clip.frames, names_in(clip.frames))
        boxes = read_boxes(clip.truth, commas_only=True, polygons=False)
        check_count(clip, boxes, len(frames), hint=_HINT)
        if split != "train":
            check_start(clip, boxes, frames)
        path = next((path for path in clip.labels if path.is_file()), None)
        absent = np.logical_not(boxes.any(axis=1)) if path is None else _flags(path, clip, len(frames))
        return Sequence(benchmark=self.name, name=clip.name, frames=frames, boxes=boxes, absent=absent)


def _published(split: str) -> str:
    return f"TNL2K_{split}_subset"


def _places(root: Path, split: str) -> list[Path]:
    """Clip folders of a split; `root`'s own ones test, unless it has folders of splits."""
    bases = {name: [b for b in (root / name, root / _published(name)) if b.is_dir()] for name in _SPLITS}
    nested = {name: [place for base in bases[name] for place in _clip_folders(base)] for name in _SPLITS}
    if split == "test" and not any(nested.values()):
        return _clip_folders(root)
    return nested[split]


def _clip_folders(base: Path) -> list[Path]:
    return [folder for folder in folders_in(base) if (folder / _FRAMES).is_dir()]


def _flag_files(root: Path, place: Path) -> tuple[Path, ...]:
    bases = dict.fromkeys(base / folder for base in (place.parent, root) for folder in ("absent", "annos/absent"))
    return (place / "absent.txt", *(base / f"{place.name}.txt" for base in bases))


def _flags(path: Path, clip: Clip, frames: int) -> Flags_N:
    if clip.name == _ONE_FLAG_TOO_MANY:
        values = read_flags(path)
        if len(values) == frames + 1 and values[-1] == 0:
            return values[:-1] > 0
    return read_labels(path, clip, frames) > 0
