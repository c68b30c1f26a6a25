"""LaSOT: ROOT/CLASS/CLASS-N, or ROOT/CLASS-N; ROOT/testing_set.txt and training_set.txt name the sequences of a split.

    CLASS-N/img/00000001.jpg ...  from 1 on
    CLASS-N/groundtruth.txt       x,y,w,h, integers that count pixels from 1. Of the 3.5 million boxes 217 have a
                                  negative x or y and 3,925 a zero all the same: that is no error here.
    CLASS-N/full_occlusion.txt    0,0,1,... on one line; the target is absent where this
    CLASS-N/out_of_view.txt       or this is 1

nlp.txt is not read. Without training_set.txt, all that testing_set.txt does not name is for training (protocol II of
the paper). Source: Fan et al., arXiv 1809.07845; the lists: https://github.com/HengLan/LaSOT_Evaluation_Toolkit.
"""

import re
from pathlib import Path

from rice.errors import RiceError
from tracking.layouts.benchmark import Benchmark, Clip, check_count, check_start, listed, read_labels, require_split
from tracking.layouts.frames import folders_in, names_in, numbered_frames
from tracking.layouts.text import read_boxes, read_names
from tracking.sequence import Sequence

_TRAIN, _TEST = "training_set.txt", "testing_set.txt"
_LABELS = ("full_occlusion.txt", "out_of_view.txt")
_CLIP = re.compile(r".+-\d+")


class LaSOT(Benchmark):
    """See this module and `Benchmark`."""

    name = "lasot"
    expects = "ROOT/CLASS/CLASS-N/{img/00000001.jpg,groundtruth.txt,full_occlusion.txt}, ROOT/testing_set.txt"

    def recognises(self, root: Path) -> bool:
        """See `Benchmark`."""
        if (root / _TRAIN).is_file() or (root / _TEST).is_file():
            return True
        return any((place / label).is_file() for place in _places(root).values() for label in _LABELS)

    def splits(self, root: Path) -> tuple[str, ...]:
        """Both where neither list is there, so that opening one of them can say what is missing."""
        train, test = (root / _TRAIN).is_file(), (root / _TEST).is_file()
        if not train and not test:
            return ("train", "test") if _places(root) else ()
        others = not train and not _places(root).keys() <= read_names(root / _TEST).keys()
        return (*(["train"] if train or others else []), *(["test"] if test else []))

    def clips(self, root: Path, split: str) -> list[Clip]:
        """See `Benchmark`."""
        if split == "test" or not (root / _TRAIN).is_file():
            _require_test_list(root)
        require_split(self, root, split)
        places = _places(root)
        path = root / (_TEST if split == "test" else _TRAIN)
        if path.is_file():
            found = listed(path, root, places)
        else:
            tests = read_names(root / _TEST)
            found = [(name, place) for name, place in places.items() if name not in tests]
        return [
            Clip(name, place / "img", place / "groundtruth.txt", tuple(place / label for label in _LABELS))
            for name, place in found
        ]

    def read(self, split: str, clip: Clip) -> Sequence:
        """See `Benchmark`."""
        frames = numbered_frames(clip.frames, names_in(clip.frames), pattern="%08d.jpg", first=1)
        boxes = read_boxes(clip.truth, commas_only=True, polygons=False)
        boxes[:, :2] -= 1
        check_count(clip, boxes, len(frames))
        occluded, outside = (read_labels(label, clip, len(frames)) > 0 for label in clip.labels)
        if split != "train":
            check_start(clip, boxes, frames, origin=1)
        return Sequence(
            benchmark=self.name, name=clip.name, frames=frames, boxes=boxes, origin=1, absent=occluded | outside
        )


def _require_test_list(root: Path) -> None:
    if not (root / _TEST).is_file():
        raise RiceError(
            f"expected {root / _TEST}, which names the test sequences, found none; LaSOT's authors give it as "
            f"sequence_evaluation_config/{_TEST} of github.com/HengLan/LaSOT_Evaluation_Toolkit: copy it there"
        )


def _places(root: Path) -> dict[str, Path]:
    """Clip folders by name: CLASS-N in `root`, or in the folders of `root`."""
    places: dict[str, Path] = {}
    for folder in folders_in(root):
        number = re.compile(re.escape(folder.name) + r"-\d+")
        flat = _CLIP.fullmatch(folder.name)
        for place in [folder] if flat else (inside for inside in folders_in(folder) if number.fullmatch(inside.name)):
            if place.name in places:
                raise RiceError(f"{place}: the sequence is also at {places[place.name]}; remove one of the two")
            places[place.name] = place
    return places
