"""Which words train and test, and their pictures. Imports no torch.

Shapes: S input edge in pixels.
"""

import functools
import hashlib
import itertools
import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probes.protocol import NotThisLayoutError
from rice.data.icdar import TextBox, find_splits, read_split
from rice.errors import RiceError
from rice.files import sha256_json

if TYPE_CHECKING:
    from PIL import Image

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
TEST_SHARE = 0.2
"""Of the pictures, where the set has no splits."""

_LETTERS = frozenset(ALPHABET)
_DECODED = 16
"""Pictures that are kept decoded."""


@dataclass(frozen=True, slots=True)
class WordItem:
    """A word to be read. `name`: picture's name and line of its truth, unique in a split; `letters`: of ALPHABET."""

    name: str
    source: TextBox
    letters: str


@dataclass(frozen=True)
class WordSet:
    """Words to learn from and to be judged on. `illegible`: boxes that nobody could read; `foreign`: those without any
    letter of the alphabet; both are left out, of both parts."""

    train: tuple[WordItem, ...]
    test: tuple[WordItem, ...]
    test_name: str
    illegible: int
    foreign: int


def spelling(text: str) -> str:
    """What of a transcription is to be read: its Latin letters without accents and case, and its digits, all others
    dropped. May be empty."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain.lower() if letter in _LETTERS)


def steps_needed(letters: str) -> int:
    """Steps that CTC needs at least: one a letter, and a blank between two equal ones."""
    return len(letters) + sum(a == b for a, b in itertools.pairwise(letters))


def open_words(root: Path) -> WordSet:
    """The words of a dataset; no picture is opened.

    Errors: NotThisLayoutError where there is no such layout, or no word to learn or to be judged on; RiceError where it
    is broken.
    """
    if not root.is_dir():
        raise RiceError(f"expected a dataset folder, found none at {root}")
    splits = find_splits(root)
    if not splits:
        raise NotThisLayoutError(
            f"no words with transcriptions at {root}: expected ICDAR 2015's folders (ch4_training_images, ...) or "
            "SROIE's (img, box)"
        )
    boxes = {name: read_split(*folders) for name, folders in splits.items()}
    if "all" in boxes:
        train, test = divide(boxes["all"], TEST_SHARE)
    else:
        train, test = boxes["train"], boxes["test"]
    everything = [*train, *test]
    found = WordSet(
        train=_items(train),
        test=_items(test),
        test_name="held out" if "all" in boxes else "test",
        illegible=sum(not box.legible for box in everything),
        foreign=sum(box.legible and not spelling(box.text) for box in everything),
    )
    if not found.train or not found.test:
        raise NotThisLayoutError(
            f"expected words to learn from and to be judged on at {root}, found {len(found.train)} and "
            f"{len(found.test)} that are legible and have letters of {ALPHABET}"
        )
    return found


def divide(boxes: Sequence[TextBox], share: float) -> tuple[list[TextBox], list[TextBox]]:
    """(rest, part): the boxes of the first `share` of the pictures in the order of a hash of their names, rounded, at
    least one where there are two. The same for every seed."""
    names = {box.picture.name for box in boxes}
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
    cut = min(max(1, round(share * len(order))), max(len(order) - 1, 0))
    chosen = set(order[:cut])
    return (
        [box for box in boxes if box.picture.name not in chosen],
        [box for box in boxes if box.picture.name in chosen],
    )


def fingerprint(words: WordSet) -> str:
    """SHA-256 over the words, their boxes, the names and sizes of their pictures, and which of them train and test."""
    sizes = {path: path.stat().st_size for path in {w.source.picture for w in (*words.train, *words.test)}}
    return sha256_json(
        [
            [(w.name, w.letters, w.source.quad, sizes[w.source.picture]) for w in part]
            for part in (words.train, words.test)
        ]
    )


def crop(source: TextBox, picture: "Image.Image") -> "Image.Image":
    """The word: the axis-aligned box around its quad, in whole pixels, clipped to its decoded picture.

    As ICDAR 2015's own word pictures (task 3) are cut. Errors: RiceError for a box outside the picture.
    """
    left, top, right, bottom = source.box
    window = (
        max(math.floor(left), 0),
        max(math.floor(top), 0),
        min(math.ceil(right), picture.width),
        min(math.ceil(bottom), picture.height),
    )
    if window[0] >= window[2] or window[1] >= window[3]:
        raise RiceError(
            f"{source.truth}, line {source.line}: expected a box that meets its picture of {picture.width} x "
            f"{picture.height} pixels, got {', '.join(f'{edge:g}' for edge in source.box)}; correct or remove the line"
        )
    return picture.crop(window)


def cutter() -> "Callable[[TextBox], Image.Image]":
    """Reads and cuts words, from any thread; the last pictures stay decoded, as their words follow each other.

    Errors: RiceError for a picture that cannot be read; as `crop`.
    """
    from probes.images import read_picture

    read = functools.lru_cache(maxsize=_DECODED)(read_picture)
    return lambda source: crop(source, read(source.picture))


def _items(boxes: Sequence[TextBox]) -> tuple[WordItem, ...]:
    legible = ((box, spelling(box.text)) for box in boxes if box.legible)
    return tuple(WordItem(f"{box.picture.name}:{box.line}", box, letters) for box, letters in legible if letters)
