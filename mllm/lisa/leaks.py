"""Keeping pictures that a model is judged on out of its training.

REFER's sets, COCO-Stuff and PACO share COCO's photographs. LISA's code has a flag for it (`exclude_val`), which nothing
reads. Imports no torch.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from mllm.lisa.pictures import Picture, Pictures
from mllm.lisa.pictures_writer import Refusals
from mllm.lisa.sets import COCO, TRAIN2014, DataSet
from rice.files import sha256_json
from rice.progress import Progress

_NUMBER = re.compile(rf"(?:{COCO}|{TRAIN2014})/(?:.*\D)?0*(\d+)\.\w+")
"""COCO's number is the same in train2014 and train2017."""


def coco_number(image: str) -> int | None:
    """Of a picture's path relative to the root; None where it is none of COCO's."""
    found = _NUMBER.fullmatch(image)
    return int(found[1]) if found else None


def coco_numbers(judged: Iterable[Pictures]) -> frozenset[int]:
    """Of all pictures of some splits."""
    numbers = (coco_number(picture.image) for pictures in judged for picture in pictures)
    return frozenset(number for number in numbers if number is not None)


def without(dataset: DataSet, numbers: frozenset[int]) -> DataSet:
    """The set without the photographs of these numbers, which count as refused."""

    def read(*, refusals: Refusals, progress: Progress) -> Iterator[Picture]:
        for picture in dataset.read(refusals=refusals, progress=progress):
            if coco_number(picture.image) in numbers:
                refusals.add("picture of a split that is judged", picture.id)
            else:
                yield picture

    return replace(dataset, read=read, left_out=sha256_json(sorted(numbers)))
