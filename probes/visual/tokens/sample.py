"""Which pictures of a data set are looked at: a function of the seed and their names alone. Imports no torch."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from rice.data.coco import find_splits, open_split, role
from rice.data.picture import PICTURES
from rice.data.splits import NoDatasetError, scan
from rice.data.video import read_frame
from rice.errors import RiceError
from rice.files import sha256_file, sha256_json


@dataclass(frozen=True)
class Sample:
    """Pictures of one split, or of a folder (`split` None): their names there, their files, how to read picture i."""

    split: str | None
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    read: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sha256(self) -> str:
        """Of the pictures' names and bytes."""
        return sha256_json([[name, sha256_file(path)] for name, path in zip(self.names, self.paths, strict=True)])


def draw_sample(root: Path, split: str | None, count: int, seed: int) -> Sample:
    """At most `count` pictures of a data set in COCO's layout or a relative's, or of any folder of pictures.

    In the order of a hash of seed and name: a smaller sample is a part of a larger one. `split`: default: the only
    one, else the one that `rice data check` would test on. Errors: RiceError for no pictures, an unknown split, none
    named where there are several, a broken data set.
    """
    if count < 1:
        raise RiceError(f"expected --images of at least 1, got {count}")
    try:
        splits = find_splits(root)
    except NoDatasetError as error:
        return _of_folder(root, split, count, seed, error)
    name = split or (next(iter(splits)) if len(splits) == 1 else role(splits).test)
    whole = open_split(root, name)
    names = [image.file_name for image in whole.images]
    chosen = _chosen(names, count, seed)
    return Sample(
        whole.name,
        tuple(names[i] for i in chosen),
        tuple(whole.images[i].path for i in chosen),
        lambda i: whole.load_image(chosen[i]),
    )


def _of_folder(root: Path, split: str | None, count: int, seed: int, no_dataset: NoDatasetError) -> Sample:
    if split is not None or not root.is_dir():
        raise no_dataset
    files = {name: entry for name, entry in scan(root) if not entry.is_symlink()}
    names = sorted(name for name in files if Path(name).suffix.lower() in PICTURES)
    if not names:
        raise RiceError(f"{no_dataset}; nor is there a picture ({', '.join(PICTURES)}) in it")
    chosen = _chosen(names, count, seed)
    paths = tuple(Path(files[names[i]].path) for i in chosen)
    return Sample(None, tuple(names[i] for i in chosen), paths, lambda i: Image.fromarray(read_frame(paths[i])))


def _chosen(names: list[str], count: int, seed: int) -> list[int]:
    if not names:
        raise RiceError("expected pictures, the split has none; name another --split")
    digests = [hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest() for name in names]
    return sorted(range(len(names)), key=digests.__getitem__)[:count]
