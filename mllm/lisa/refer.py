"""REFER's data sets: refCLEF, refCOCO, refCOCO+, refCOCOg, and gRefCOCO, whose expressions mean any number of objects.

    FOLDER/refs(SPLITBY).p or grefs(SPLITBY).json    the expressions: a list of referents with their sentences
    FOLDER/instances.json                            pictures and masks, in COCO's layout

A referent: {"ref_id", "image_id", "ann_id", "split", "sentences": [{"sent", ...}, ...], ...}. gRefCOCO's `ann_id` is a
list; [-1] (or `no_target`) means that there is no such thing on the picture.
"""

import functools
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from mllm.lisa.pickles import read_pickle
from mllm.lisa.pictures import Picture, Target
from mllm.lisa.pictures_writer import Refusals, UnusableError, clean, files_in, runs_of
from rice.data.coco_json import CocoAnnotation, CocoFile, CocoImage, parse_coco
from rice.errors import RiceError, os_errors_as
from rice.files import read_json
from rice.progress import Progress

_MOST_SENTENCES = 1_000
"""Of one referent. A file may name one long list many times, and would be small for what it unfolds to."""

_MOST_ANNOTATIONS = 1_000
"""Likewise."""

_ABSENT = -1
"""gRefCOCO's annotation id where there is no target."""


@dataclass(frozen=True, slots=True)
class Referent:
    """One entry. annotations: ids in instances.json, none where there is no such thing on the picture.

    texts: its sentences, those without a word left out; empty_texts: their number. problem: why it cannot be used.
    """

    id: int
    image: int
    annotations: tuple[int, ...]
    split: str
    texts: tuple[str, ...]
    empty_texts: int
    problem: str = ""


def read_referents(path: Path) -> tuple[Referent, ...]:
    """All entries of a pickle or JSON file, which is read once for all its splits (until `forget`).

    Of several with the same id the first counts and the others cannot be used; REFER keeps the last.
    Errors: RiceError naming the file and the entry: see `read_pickle`; another layout, wrong types.
    """
    return _referents(path, *_state(path))


@functools.lru_cache(maxsize=1)
def _referents(path: Path, _size: int, _modified: int) -> tuple[Referent, ...]:
    entries = read_pickle(path) if path.suffix == ".p" else read_json(path)
    if not isinstance(entries, (list, tuple)):
        raise RiceError(f"expected a list of referents in {path}, got {type(entries).__name__}; is it REFER's file?")
    referents = tuple(_referent(path, position, entry) for position, entry in enumerate(entries))
    first = {referent.id: referent for referent in reversed(referents)}
    return tuple(one if first[one.id] is one else replace(one, problem="its id is used twice") for one in referents)


@functools.lru_cache(maxsize=1)
def _instances(path: Path, _size: int, _modified: int) -> CocoFile:
    return parse_coco(path, Path())


def _state(path: Path) -> tuple[int, int]:
    with os_errors_as(f"cannot read {path}"):
        status = path.stat()
    return status.st_size, status.st_mtime_ns


def forget() -> None:
    """What was read last, and is kept for the next split of the same file: it is large."""
    _referents.cache_clear()
    _instances.cache_clear()


def in_split(referent: Referent, split: str) -> bool:
    """As REFER: "testA" takes the referents of "testA", and refCLEF's of "testAB" and "testAC"; "test" takes all."""
    own = referent.split
    if split.startswith("test") and own.startswith("test"):
        return set(split[4:]) <= set(own[4:])
    return own == split


def read_refer(
    refs: Path,
    instances: Path,
    split: str,
    *,
    root: Path,
    source: str,
    images: str,
    refusals: Refusals,
    progress: Progress,
) -> Iterator[Picture]:
    """The pictures of one split in order of their first referent, every referent one target.

    images: the picture folder, relative to the root. Referents that cannot be used are counted in `refusals`.
    Errors: RiceError, as `read_referents` and `parse_coco`.
    """
    coco = _instances(instances, *_state(instances))
    wanted = [referent for referent in read_referents(refs) if in_split(referent, split)]
    by_image: dict[int, list[Referent]] = defaultdict(list)
    for referent in wanted:
        by_image[referent.image].append(referent)
    finder, present = _Masks.of(coco), files_in(root / images)
    pictures = {image.id: image for image in coco.images}
    for image_id, referents in progress.track(by_image.items(), f"reading {source} {split}"):
        image = pictures.get(image_id)
        if image is None or image.file_name not in present:
            problem = "missing picture file" if image else "its picture is not in instances.json"
            for referent in referents:
                refusals.add(problem, referent.id)
            continue
        targets = tuple(t for referent in referents if (t := finder.target(referent, image, refusals)))
        if targets:
            yield Picture(
                str(image.id), source, f"{images}/{image.file_name}", image.height, image.width, None, targets
            )


@dataclass(frozen=True, slots=True)
class _Masks:
    """From annotation ids to run lengths."""

    annotations: Mapping[int, CocoAnnotation]
    images: tuple[CocoImage, ...]

    @classmethod
    def of(cls, coco: CocoFile) -> "_Masks":
        return cls({a.id: a for image in coco.images for a in image.annotations}, coco.images)

    def target(self, referent: Referent, image: CocoImage, refusals: Refusals) -> Target | None:
        """Sentences without a word are refused one by one, the rest stays."""
        for _ in range(referent.empty_texts):
            refusals.add("empty text", referent.id)
        if not referent.texts:
            return None
        try:
            if referent.problem:
                raise UnusableError(referent.problem)
            masks = tuple(self._runs(id_, image) for id_ in referent.annotations)
        except UnusableError as error:
            refusals.add(str(error), referent.id)
            return None
        return Target(str(referent.id), referent.texts, masks=masks)

    def _runs(self, id_: int, image: CocoImage) -> str:
        annotation = self.annotations.get(id_)
        if annotation is None:
            raise UnusableError("its annotation is not in instances.json")
        if self.images[annotation.image].id != image.id:
            raise UnusableError("its annotation is one of another picture")
        return runs_of(annotation.segmentation, image.height, image.width)


def _referent(path: Path, position: int, entry: Any) -> Referent:
    if not isinstance(entry, dict):
        raise RiceError(f"{path}: expected an object at position {position}, got {reprlib.repr(entry)}")

    def fail(expected: str, key: str) -> NoReturn:
        name = reprlib.repr(entry.get("ref_id", f"at position {position}"))
        raise RiceError(f"{path}: referent {name}: expected {expected} as {key}, got {reprlib.repr(entry.get(key))}")

    def integer(key: str) -> int:
        value = entry.get(key)
        return value if _is_id(value) else fail("an integer", key)

    split, sentences = entry.get("split"), entry.get("sentences")
    if not isinstance(split, str):
        fail("text", "split")
    if not isinstance(sentences, (list, tuple)) or len(sentences) > _MOST_SENTENCES:
        fail(f"a list of at most {_MOST_SENTENCES} sentences", "sentences")
    if not all(isinstance(sentence, dict) for sentence in sentences):
        fail("a list of objects", "sentences")
    texts = [clean(sentence.get("sent")) for sentence in sentences]
    known = tuple(text for text in texts if text)
    annotations = _annotations(entry, fail)
    contradicts = bool(entry.get("no_target", not annotations)) == bool(annotations)
    return Referent(
        id=integer("ref_id"),
        image=integer("image_id"),
        annotations=annotations,
        split=split,
        texts=known,
        empty_texts=len(texts) - len(known) if texts else 1,  # nor has one without any sentence a text
        problem="its no_target says another thing than its ann_id" if contradicts else "",
    )


def _annotations(entry: dict[Any, Any], fail: Callable[[str, str], NoReturn]) -> tuple[int, ...]:
    value = entry.get("ann_id")
    values = value if isinstance(value, (list, tuple)) else [value]
    ids = list(dict.fromkeys(value for value in values if _is_id(value)))
    if not ids or not all(map(_is_id, values)):
        fail("an integer, or a list of some", "ann_id")
    if len(ids) > _MOST_ANNOTATIONS or (_ABSENT in ids and len(ids) > 1):
        fail(f"at most {_MOST_ANNOTATIONS} ids, or [{_ABSENT}] alone", "ann_id")
    return () if ids == [_ABSENT] else tuple(ids)


def _is_id(value: object) -> TypeGuard[int]:
    return type(value) is int and abs(value) < 2**63  # bool is an int, but true is no id
