"""Pictures with what is to be segmented on them, and the prepared folder of them that training and evaluation read.

    FOLDER/pictures.parquet    a row for every picture, in small groups that are decoded one at a time
    FOLDER/pictures.json       the root, digests of what was read, counts, what was refused and why

`mllm.lisa.sets` writes it. Imports no torch. Shapes: H, W one picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from mllm.llava.row_groups import RowGroups
from rice.data.picture import open_picture, turned
from rice.data.segmentation import Mask, decode_segmentation
from rice.errors import RiceError
from rice.files import UnsafePathError, check_name, read_object, safe_join

FORMAT = 1
TABLE, ABOUT = "pictures.parquet", "pictures.json"

IGNORE = 255
"""In a mask: the pixel does not count."""

PICTURES_PER_GROUP = 32
"""Decoding one group, which reading any of its pictures takes, is about a millisecond."""

_TARGET = pa.struct(
    [
        ("id", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("sentence", pa.bool_()),
        ("masks", pa.list_(pa.string())),
        ("value", pa.int32()),
        ("ignore", pa.string()),
        ("explanation", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("image", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("label_map", pa.string()),
        ("targets", pa.list_(_TARGET)),
    ]
)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be segmented, and the words for it.

    id: unique in its data set. texts: alternatives, none of them empty: the expressions of one referent, the names of a
    class. sentence: they are whole questions (ReasonSeg). masks: COCO's compressed run lengths (the text of `counts`,
    of the picture's size), whose union it is; value: or the pixels of the picture's label map that have this value;
    neither: there is no such thing on the picture. ignore: run lengths of the pixels that do not count. explanation:
    ReasonSeg's answer in words.
    """

    id: str
    texts: tuple[str, ...]
    sentence: bool = False
    masks: tuple[str, ...] = ()
    value: int | None = None
    ignore: str | None = None
    explanation: str | None = None

    @property
    def absent(self) -> bool:
        """Whether there is no such thing on the picture."""
        return not self.masks and self.value is None


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture with its targets, never none.

    id: unique in its data set. source: the data set's name. image, label_map: paths relative to the root. height,
    width: pixels, as annotated.
    """

    id: str
    source: str
    image: str
    height: int
    width: int
    label_map: str | None
    targets: tuple[Target, ...]


class Pictures(Sequence[Picture]):
    """A prepared folder, read back. Memory does not grow with the number of pictures: the file is mapped, and one group
    of rows at a time is decoded. May be read from several threads, pickled and forked.

    root: the data root, where it is no longer the one that pictures.json names.
    Errors: RiceError for a folder that `mllm.lisa.sets.prepare` did not write.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.folder = folder
        if not (folder / ABOUT).is_file():
            raise RiceError(f"expected a folder of prepared pictures, found no {folder / ABOUT}; prepare the set anew")
        self.about = read_object(folder / ABOUT)
        if self.about.get("format") != FORMAT:
            raise RiceError(f"{folder / ABOUT} is of another version of this program; prepare the set anew")
        self.root = root if root is not None else Path(self.about["root"])
        self._groups = RowGroups(
            folder / TABLE,
            size=PICTURES_PER_GROUP,
            count=self.about["counts"]["pictures"],
            described_by=ABOUT,
            remedy="prepare the set anew",
        )
        self._map: tuple[str | None, Any] = (None, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_map": (None, None)}

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        """Picture `index`. Errors: IndexError."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return _picture(self._groups.row(index))

    def __iter__(self) -> Iterator[Picture]:
        return map(_picture, self._groups)

    def fingerprint(self) -> str:
        """SHA-256 of all pictures' paths, sizes and targets, and of what their label maps held; not of the pictures'
        pixels."""
        return str(self.about["fingerprint"])

    def refused(self) -> list[str]:
        """A line for each reason for which something of the set was left out."""
        return [
            f"{self.folder.name}: left out: {reason}: {found['count']:,} ({', '.join(found['first'][:3])})"
            for reason, found in self.about["refused"].items()
        ]

    def path(self, name: str) -> Path:
        """File of a picture's `image` or `label_map`. The set's own folders may be links; what lies in them may not
        lead out of them.

        Errors: UnsafePathError for a name that does.
        """
        for folder in self.about["folders"]:
            check_name(self.root, folder)
            if name.startswith(f"{folder}/"):
                return safe_join(self.root / folder, name.removeprefix(f"{folder}/"))
        raise UnsafePathError(f"expected a file in {', '.join(self.about['folders'])} of {self.root}, got {name!r}")

    def open_image(self, picture: Picture) -> Image.Image:
        """The picture: RGB, of the annotated size; EXIF rotation is applied only where the sizes call for it.

        Errors: RiceError naming the file: missing, damaged, or of another size.
        """
        path = self.path(picture.image)
        image = self._sized(path, turned(open_picture(path), (picture.width, picture.height)), picture)
        return image.convert("RGB")

    def mask(self, picture: Picture, target: Target) -> NDArray[np.uint8]:
        """uint8 (H, W): 1 the target, 0 not, 255 does not count. All 0 where there is no such thing.

        Errors: RiceError naming the file or the target: a damaged mask, a label map that is missing or of another size.
        """
        mask_HW = np.zeros((picture.height, picture.width), dtype=np.uint8)
        if target.value is not None:
            mask_HW[self.label_map(picture) == target.value] = 1
        for code in target.masks:
            mask_HW[_runs(picture, target, code)] = 1
        if target.ignore is not None:
            mask_HW[_runs(picture, target, target.ignore)] = IGNORE
        return mask_HW

    def label_map(self, picture: Picture) -> NDArray[np.integer[Any]]:
        """Integers (H, W), read-only. The last one is kept, as targets of one picture are asked for one after another.

        Errors: RiceError naming the file, or the picture that has none.
        """
        name = picture.label_map
        if name is None:
            raise RiceError(f"picture {picture.id!r} of {picture.source} has no label map; prepare the set anew")
        last, values_HW = self._map
        if last != name:
            values_HW = read_label_map(self.path(name))
            if values_HW.shape != (picture.height, picture.width):
                raise self._other_size(self.path(name), values_HW.shape[::-1], picture)
            self._map = (name, values_HW)
        return values_HW  # type: ignore[no-any-return]  # the pair is one of Any

    def _sized(self, path: Path, image: Image.Image, picture: Picture) -> Image.Image:
        if image.size != (picture.width, picture.height):
            raise self._other_size(path, image.size, picture)
        return image

    def _other_size(self, path: Path, size: tuple[int, ...], picture: Picture) -> RiceError:
        return RiceError(
            f"{path} has {size[0]}x{size[1]} pixels, expected {picture.width}x{picture.height} as annotated; are the "
            "pictures resized, or of another version?"
        )


def read_label_map(path: Path) -> NDArray[np.integer[Any]]:
    """Integers (H, W), read-only, of a picture whose pixels are classes: palettes are not applied.

    Errors: RiceError naming the file: missing, damaged, or with several channels.
    """
    values_HW = np.asarray(open_picture(path))
    if values_HW.ndim != 2 or values_HW.dtype.kind not in "ui":
        raise RiceError(f"expected a label map of one channel of integers, got {path} of shape {values_HW.shape}")
    return values_HW


def _runs(picture: Picture, target: Target, code: str) -> Mask:
    size = {"size": [picture.height, picture.width], "counts": code}
    try:
        return decode_segmentation(size, picture.height, picture.width)
    except ValueError as error:
        raise RiceError(f"target {target.id!r} of {picture.source}: {error}; prepare the set anew") from error


def _picture(values: dict[str, Any]) -> Picture:
    return Picture(**{**values, "targets": tuple(_target(target) for target in values["targets"])})


def _target(values: dict[str, Any]) -> Target:
    return Target(**{**values, "texts": tuple(values["texts"]), "masks": tuple(values["masks"])})
