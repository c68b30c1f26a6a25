"""Folders of classified pictures: ROOT/train/CLASS/* with ROOT/test|val/CLASS/*, or ROOT/CLASS/*. Imports no torch.

Shapes: N pictures.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.protocol import NotThisLayoutError
from rice.data.icdar import find_splits
from rice.data.picture import PICTURES
from rice.errors import RiceError

TEST_NAMES = ("test", "val", "valid", "validation")
TEST_SHARE = 0.2
"""Of each class, where the folder has no split of its own."""

_SUFFIXES = frozenset({".gif", *PICTURES})
_SPLIT_NAME = re.compile(r"(train|test|val|valid|validation)[\d_-]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Picture:
    """`name` is the path below the root, with slashes; `label` an index into the folder's classes."""

    name: str
    path: Path
    label: int


@dataclass(frozen=True)
class ImageFolder:
    """Classified pictures to learn from and to be judged on. Classes are in order of their names."""

    classes: tuple[str, ...]
    train: tuple[Picture, ...]
    test: tuple[Picture, ...]
    test_name: str


def open_folder(root: Path) -> ImageFolder:
    """List the pictures; none is opened.

    Errors: NotThisLayoutError when there is no such layout, or nothing to test on; RiceError for a class without
    pictures, or a class of the test part that the train part lacks.
    """
    if not root.is_dir():
        raise RiceError(f"expected a dataset folder, found none at {root}")
    if find_splits(root):  # its folders are pictures and truth, not classes
        raise NotThisLayoutError(f"{root} holds words with transcriptions, no classified pictures")
    if _class_folders(root / "train"):
        return _open_split(root)
    found = _class_folders(root)
    classes = [folder for folder in found if _pictures(folder)]
    if len(classes) < 2 or any(_SPLIT_NAME.fullmatch(folder.name) for folder in classes):
        raise NotThisLayoutError(
            f"no classified pictures at {root}: expected train/CLASS/* and test/CLASS/*, or at least two CLASS/*"
        )
    everything = _listed(root, classes, {folder.name: label for label, folder in enumerate(classes)})
    test, train = divide(everything, TEST_SHARE)
    if not test:
        raise NotThisLayoutError(f"every class at {root} has one picture only: none is left to test on")
    return ImageFolder(tuple(folder.name for folder in classes), train, test, "held out")


def _open_split(root: Path) -> ImageFolder:
    train_folders = _class_folders(root / "train")
    if not any(map(_pictures, train_folders)):
        raise NotThisLayoutError(f"no folder below {root / 'train'} holds pictures: expected train/CLASS/*")
    test_name = next((name for name in TEST_NAMES if _class_folders(root / name)), None)
    if test_name is None:
        raise NotThisLayoutError(f"{root} has train/CLASS/*, but none of {', '.join(TEST_NAMES)} to test on")
    label_of = {folder.name: label for label, folder in enumerate(train_folders)}
    test_folders = _class_folders(root / test_name)
    unknown = [folder.name for folder in test_folders if folder.name not in label_of]
    if len(unknown) == len(test_folders):  # a benchmark's sequences, for example
        raise NotThisLayoutError(f"{root / 'train'} and {root / test_name} share no class: expected CLASS/* in both")
    if unknown:
        raise RiceError(f"{root / test_name} has classes that {root / 'train'} lacks: {', '.join(unknown[:3])}")
    train, test = _listed(root, train_folders, label_of), _listed(root, test_folders, label_of)
    return ImageFolder(tuple(label_of), train, test, test_name)


def divide(pictures: Sequence[Picture], share: float) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """(part, rest): of each class the first `share` in the order of a hash of the names, rounded, at least one.

    A class of a single picture stays in the rest. The same for every seed, whatever the order of the folder.
    """
    part: list[Picture] = []
    rest: list[Picture] = []
    for members in _by_class(pictures):
        cut = min(max(1, round(share * len(members))), len(members) - 1)
        part += members[:cut]
        rest += members[cut:]
    return tuple(part), tuple(rest)


def limit_per_class(pictures: Sequence[Picture], limit: int | None) -> tuple[Picture, ...]:
    """The first `limit` pictures of each class in the order of a hash of their names."""
    return tuple(picture for members in _by_class(pictures) for picture in members[:limit])


def subsample(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Positions of the part that one seed uses, ascending: of each class this fraction, rounded, at least one."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.nonzero(labels == label)[0]
        chosen.append(generator.choice(members, max(1, round(fraction * len(members))), replace=False))
    return np.sort(np.concatenate(chosen))


def _by_class(pictures: Sequence[Picture]) -> list[list[Picture]]:
    groups: dict[int, list[Picture]] = {}
    for picture in sorted(pictures, key=lambda p: hashlib.sha256(p.name.encode(errors="surrogateescape")).digest()):
        groups.setdefault(picture.label, []).append(picture)
    return [groups[label] for label in sorted(groups)]


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))


def _listed(root: Path, folders: Sequence[Path], label_of: dict[str, int]) -> tuple[Picture, ...]:
    listed: list[Picture] = []
    for folder in folders:
        paths = _pictures(folder)
        if not paths:
            raise RiceError(f"class folder {folder} holds no pictures; add some or remove it")
        listed += [Picture(p.relative_to(root).as_posix(), p, label_of[folder.name]) for p in paths]
    return tuple(listed)
