"""Which splits of a COCO-layout dataset train and test: what every probe on such data asks first. Imports no torch."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from probes.protocol import NotThisLayoutError
from rice.data.coco import CocoSplit, Roles, SplitFiles, find_splits, fingerprint, open_split, role
from rice.errors import RiceError
from rice.files import sha256_json
from rice.progress import Progress


@dataclass(frozen=True)
class CocoPair:
    """The splits of a dataset to learn from and to be judged on; by their roles where they are not named."""

    root: Path
    train: str | None
    test: str | None

    @cached_property
    def splits(self) -> tuple[CocoSplit, CocoSplit]:
        """Both, parsed and checked, once.

        Errors: NotThisLayoutError where there is no such dataset; RiceError for an unknown name, a broken split, or
        categories that differ.
        """
        first, second = (open_split(self.root, found.name) for found in self.files())
        left, right = ({(c.id, c.name) for c in split.categories} for split in (first, second))
        if left != right:
            odd = ", ".join(f"{name!r} (id {id_})" for id_, name in sorted(left ^ right)[:3])
            raise RiceError(
                f"expected the same categories in {first.name} and {second.name} of one dataset, these differ: {odd}"
            )
        return first, second

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over both splits' annotations and the names and sizes of their images; nothing is parsed.

        Errors: as `splits`, but for what parsing would find.
        """
        return sha256_json([fingerprint(files) for files in self.files()])

    def files(self) -> tuple[SplitFiles, SplitFiles]:
        """Where both lie. Errors: as `splits`, but for what parsing would find."""
        try:
            splits = find_splits(self.root)
        except RiceError as error:
            raise NotThisLayoutError(str(error)) from error
        names = [self.train, self.test]
        if None in names:
            names = [name or default for name, default in zip(names, _roles(self.root, splits), strict=True)]
        unknown = [name for name in names if name not in splits]
        if unknown:
            raise RiceError(f"no split {unknown[0]!r} at {self.root}; found: {', '.join(splits)}")
        first, second = (splits[str(name)] for name in names)
        return first, second


def by_hash(split: CocoSplit, limit: int | None) -> list[int]:
    """Indices of the first `limit` images (None: of all) in the order of a hash of their ids.

    So a smaller limit is a subset of a larger one, and neither depends on the order of the file.
    """
    order = sorted(range(len(split.images)), key=lambda i: hashlib.sha256(str(split.images[i].id).encode()).digest())
    return order[:limit]


def describe(split: CocoSplit) -> str:
    """'train2017 (118,287 images, 860,001 annotations)'."""
    annotations = sum(len(image.annotations) for image in split.images)
    return f"{split.name} ({len(split.images):,} images, {annotations:,} annotations)"


def decode_all(splits: Sequence[CocoSplit], masks: Callable[[CocoSplit, int], Any], progress: Progress) -> None:
    """Read every picture once, and of image i of a split what `masks(split, i)` reads.

    Errors: RiceError naming the first that is damaged.
    """
    from probes.images import load_each

    for split in splits:

        def read(index: int, split: CocoSplit = split) -> None:
            split.load_image(index)
            masks(split, index)

        count = len(split.images)
        for _ in progress.track(load_each(read, range(count)), f"{split.name}: decode", count):
            pass


def _roles(root: Path, splits: Mapping[str, SplitFiles]) -> Roles:
    try:
        return role(splits)
    except RiceError as error:
        for name in splits:
            open_split(root, name)  # what is broken in it is the better message
        raise NotThisLayoutError(str(error)) from error
