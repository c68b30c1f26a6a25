"""Words in pictures, in the layouts of ICDAR's robust reading sets. Imports no torch.

ICDAR 2015, challenge 4 (tasks 1 and 4):  ch4_training_images/, ch4_training_localization_transcription_gt/
                                          ch4_test_images/, Challenge4_Test_Task4_GT/ or Challenge4_Test_Task1_GT/
SROIE (ICDAR 2019):                       {train,test}/{img,box}/, or img/ and box/ without splits; an item is a line

The truth of img_1.jpg is gt_img_1.txt (SROIE: the picture's own stem, .csv or .txt), a line for each word:
x1,y1,x2,y2,x3,y3,x4,y4,transcription; corners in pixels of the picture as it is stored, clockwise from the first
letter's top; a transcription may hold commas; ### is a word that nobody could read.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rice.data.picture import PICTURES
from rice.errors import RiceError, os_errors_as
from rice.files import refuse_links_out

ICDAR_2015 = {
    "train": ("ch4_training_images", "ch4_training_localization_transcription_gt"),
    "test": ("ch4_test_images", "Challenge4_Test_Task4_GT"),
}
"""Folders of pictures and of truth, by split."""

TRUTH_PREFIX = "gt_"
ILLEGIBLE = "###"

_LAYOUTS = (
    ICDAR_2015,
    ICDAR_2015 | {"test": ("ch4_test_images", "Challenge4_Test_Task1_GT")},
    {"train": ("train/img", "train/box"), "test": ("test/img", "test/box")},
    {"all": ("img", "box")},
)
_TRUTHS = (".txt", ".csv")
_CORNERS = 8

Quad = tuple[float, float, float, float, float, float, float, float]
"""x, y of four corners in turn."""


@dataclass(frozen=True, slots=True)
class TextBox:
    """A word, or a line of SROIE. `line`: its line in `truth`, from 1; `quad`: pixels of `picture` as it is stored,
    which it may overlap."""

    picture: Path
    truth: Path
    line: int
    quad: Quad
    text: str

    @property
    def legible(self) -> bool:
        """Whether its transcription is known."""
        return self.text != ILLEGIBLE

    @property
    def box(self) -> tuple[float, float, float, float]:
        """xyxy around the quad."""
        xs, ys = self.quad[::2], self.quad[1::2]
        return min(xs), min(ys), max(xs), max(ys)


def find_splits(root: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of pictures and of truth by split: `train` and `test`, or `all`; empty where no layout is found."""
    for layout in _LAYOUTS:
        found = {name: (root / pictures, root / truths) for name, (pictures, truths) in layout.items()}
        if all(folder.is_dir() for pair in found.values() for folder in pair):
            return found
    return {}


def read_split(pictures: Path, truths: Path) -> list[TextBox]:
    """All words of a split, in the order of the files' names and their lines; no picture is opened.

    Errors: RiceError for a picture without truth, truth without a picture, or a line that is none.
    """
    of_stem = {path.stem: path for path in _files(pictures, PICTURES)}
    boxes: list[TextBox] = []
    for truth in _files(truths, _TRUTHS):
        picture = of_stem.pop(truth.stem.removeprefix(TRUTH_PREFIX), None)
        if picture is None:
            raise RiceError(f"{truth}: expected its picture in {pictures}, found none; add it, or remove the file")
        boxes += read_truth(truth, picture)
    if of_stem:
        lost = min(of_stem.values())
        raise RiceError(f"{lost}: expected its truth in {truths}, found none; add it, or remove the picture")
    return boxes


def read_truth(truth: Path, picture: Path) -> Iterator[TextBox]:
    """The words of one picture. Errors: RiceError naming the file and the line."""
    with os_errors_as(f"cannot read {truth}"):
        data = truth.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RiceError(f"{truth}: expected UTF-8, got other bytes at {error.start}; convert the file") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield TextBox(picture, truth, number, *_parse(line.rstrip("\r"), truth, number))


def _parse(line: str, truth: Path, number: int) -> tuple[Quad, str]:
    *corners, text = line.split(",", _CORNERS)
    try:
        quad = tuple(map(float, corners))
    except ValueError:
        quad = ()
    if len(quad) != _CORNERS or not all(map(math.isfinite, quad)):
        raise RiceError(f"{truth}, line {number}: expected x1,y1,...,x4,y4,transcription, got {line[:60]!r}")
    return (quad[0], quad[1], quad[2], quad[3], quad[4], quad[5], quad[6], quad[7]), text


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    with os_errors_as(f"cannot list {folder}"):
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    refuse_links_out(found, folder)
    return found
