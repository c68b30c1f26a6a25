"""Draws of a mixture as examples for training: tokens that branch, tiles, the segmenter's frame, masks.

A picture's questions are branches of one sample: none sees another, as in LISA, which makes a sample of each, and the
picture's tokens are computed once.

Shapes: T tokens, N tiles, S edge of a tile, M masks, E edge of the segmenter's input, H, W the picture.
"""

import itertools
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mllm.lisa.mixture import KINDS, Draw, Kind, Mixture
from mllm.lisa.phrases import SEG, converse, quoted
from mllm.lisa.pictures import Picture, Pictures, Target
from mllm.lisa.segmenter import FrameMaker
from mllm.llava.conversation import IGNORED, Tokens, Writer
from mllm.llava.data import Examples, Reading
from mllm.llava.packing import pack
from mllm.llava.rows import MARK, Row, Turn
from rice.errors import RiceError
from rice.files import atomic_path, make_folder
from rice.progress import Progress

_KEPT_TEXTS = 2**14
"""As many as the names of a set's classes in all phrases: most questions are of these."""


@dataclass(frozen=True)
class Question:
    """One question of a picture, with the answer to learn."""

    target: Target
    question: str
    answer: str


class Kept(NamedTuple):
    """Where counted tokens are kept, which takes long at full size. digest: of all that decides them."""

    path: Path
    digest: str


class _Counts(NamedTuple):
    """Of all draws: tokens, pictures (0 or 1), and the number of the kind."""

    lengths: NDArray[np.int64]
    images: NDArray[np.int64]
    kinds: NDArray[np.int64]


class SegmentExamples(Dataset[dict[str, Any]]):
    """`count` draws of a mixture, each a function of seed and number.

    An example has `input_ids`, `labels` (T,); where there are pictures `pixel_values` (N, 3, S, S) and `image_sizes`;
    of a picture to segment `branches`, `frame` (3, E, E), `seen`, its part that is picture, and `masks` (M, H, W)
    uint8, one for each [SEG] of its labels, in order.
    sets: kind -> the sets that its numbers stand for; of "vqa" one of `Examples`. shuffled: expressions are another
    picture's; unseen: share of the pictures that the language model does not see; kept: file that the counted tokens go
    to, or come from. `lengths`: T; `images`: 1 or, without a picture, 0; `drawn`: how many of each kind.
    Errors: RiceError for a picture with more tokens than a conversation may have, and for shuffled expressions of a
    single picture.
    """

    def __init__(
        self,
        sets: Mapping[Kind, Sequence[Any]],
        mixture: Mixture,
        reading: Reading,
        frame: FrameMaker,
        progress: Progress,
        *,
        count: int,
        expressions: int = 3,
        shuffled: bool = False,
        unseen: float = 0.0,
        varied: bool = True,
        kept: Kept | None = None,
    ) -> None:
        self._unseen, self._varied = unseen, varied
        self._sets, self._mixture, self._reading, self._frame = sets, mixture, reading, frame
        self._seg_id = int(reading.writer.tokenizer.convert_tokens_to_ids(SEG))
        self._expressions, self._shuffled, self._count = expressions, shuffled, count
        self._last: tuple[tuple[Any, ...], Picture | None] = ((), None)
        if shuffled and any(len(one) < 2 for kind, found in sets.items() if kind != "vqa" for one in found):
            raise RiceError("expected sets of two pictures or more, to shuffle their expressions, got one of a single")
        counts = None if kept is None else _read_counts(kept)
        if counts is None:
            counts = self._count_tokens(progress)
            if kept is not None:
                _write_counts(kept, counts)
        self.lengths, self.images = counts.lengths, counts.images
        self.drawn = {kind: int((counts.kinds == KINDS.index(kind)).sum()) for kind in sets}

    def __len__(self) -> int:
        """Samples."""
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Errors: RiceError naming a picture or a mask that cannot be read."""
        draw = self._mixture.draw(index)
        if draw.kind == "vqa":
            rows: Examples = self._sets[draw.kind][draw.set]
            return self._without_masks(rows[draw.row])
        pictures: Pictures = self._sets[draw.kind][draw.set]
        picture = self._picture(draw)
        asked = self.questions(draw)
        seen = self._sees(draw)
        tokens, branches = self._tokens(picture, asked) if seen else self._text(asked)
        image = pictures.open_image(picture)
        frame = self._frame(image)
        masks = [pictures.mask(picture, one.target) for one in asked if SEG in one.answer]
        empty = np.zeros((0, picture.height, picture.width), np.uint8)
        return {
            "input_ids": torch.tensor(tokens.ids),
            "labels": torch.tensor(tokens.labels),
            "branches": torch.tensor(branches),
            "frame": frame.pixels,
            "seen": frame.seen,
            "masks": torch.from_numpy(np.stack(masks) if masks else empty),
            **(self._pictured(image) if seen else {}),
        }

    def _sees(self, draw: Draw) -> bool:
        """Whether the language model sees the picture of a draw; the segmenter always does."""
        return Random(f"sees {draw.seed}").random() >= self._unseen

    def _text(self, asked: Sequence[Question]) -> tuple[Tokens, list[int]]:
        """As `_tokens`, of a sample whose picture the language model does not see."""
        parts = [
            self._reading.writer.text_only(
                Row(id="", turns=(Turn("user", one.question), Turn("assistant", one.answer)))
            )
            for one in asked
        ]
        alike = (len(set(ids)) == 1 for ids in zip(*(part.ids for part in parts), strict=False))
        shared = sum(itertools.takewhile(bool, alike))
        learnt = min(next(place for place, one in enumerate(part.labels) if one != IGNORED) for part in parts)
        place = min(shared, learnt - 1)  # a branch begins before what is learnt
        ids, labels = parts[0].ids[:place], parts[0].labels[:place]
        for part in parts:
            ids, labels = ids + part.ids[place:], labels + part.labels[place:]
        return Tokens(ids, labels), [len(part) - place for part in parts]

    def questions(self, draw: Draw) -> list[Question]:
        """What a draw asks of its picture: at most `expressions` of its texts, each as likely as any other."""
        dice = Random(draw.seed)
        picture = self._picture(draw)
        choices = [(target, text) for target in picture.targets for text in _alternatives(draw.kind, target, dice)]
        chosen = dice.sample(choices, min(self._expressions, len(choices)))
        found = []
        for target, own in chosen:
            text = self._other(draw, dice) if self._shuffled else own
            found.append(Question(target, *converse(self._in_words(target), text, dice, varied=self._varied)))
        return found

    def _in_words(self, target: Target) -> Target:
        """An explanation is learnt as it is: it may hold no special token."""
        if target.explanation is None:
            return target
        return replace(target, explanation=quoted(target.explanation, self._reading.writer.tokenizer))

    def _without_masks(self, example: dict[str, Any]) -> dict[str, Any]:
        """A row of conversations has no mask: a [SEG] that it quotes is not learnt."""
        if self._seg_id not in example["labels"]:
            return example
        return example | {"labels": example["labels"].masked_fill(example["labels"] == self._seg_id, IGNORED)}

    def _other(self, draw: Draw, dice: Random) -> str:
        """A text of any other picture of the set: what is left where the texts mean nothing."""
        pictures = self._sets[draw.kind][draw.set]
        row = dice.randrange(len(pictures) - 1)
        target: Target = dice.choice(pictures[row + (row >= draw.row)].targets)
        return dice.choice(target.texts)

    def _tokens(self, picture: Picture, asked: Sequence[Question]) -> tuple[Tokens, list[int]]:
        """Of a sample, and the lengths of its branches. Errors: RiceError where they do not fit."""
        writer, tiles = self._reading.writer, self._reading.tiles
        count = tiles.tokens((picture.height, picture.width))
        parts = []
        for one in asked:
            turns = (Turn("user", f"{MARK}\n{quoted(one.question, writer.tokenizer)}"), Turn("assistant", one.answer))
            parts.append(_written(writer, turns))
        place = parts[0].ids.index(writer.image_id) + 1
        if any(part.ids[:place] != parts[0].ids[:place] for part in parts):
            raise ValueError("expected conversations that begin alike up to the picture")
        shared = writer.expand(Tokens(parts[0].ids[:place], parts[0].labels[:place]), [count])
        ids, labels = list(shared.ids), list(shared.labels)
        for part in parts:
            ids += part.ids[place:]
            labels += part.labels[place:]
        if len(ids) > self._reading.max_length:
            raise RiceError(
                f"{picture.image} has {count:,} tokens, with its questions {len(ids):,}, of "
                f"{self._reading.max_length:,} that fit; raise --max-length, or take another --tiling"
            )
        return Tokens(ids, labels), [len(part.ids) - place for part in parts]

    def _pictured(self, image: Image.Image) -> dict[str, Tensor]:
        return {
            "pixel_values": self._reading.cut([image]),
            "image_sizes": torch.tensor([[image.height, image.width]]),
        }

    def _picture(self, draw: Draw) -> Picture:
        """The last one is kept: it is asked for several times."""
        place = (draw.kind, draw.set, draw.row)
        last, picture = self._last
        if picture is None or last != place:
            picture = self._sets[draw.kind][draw.set][draw.row]
            self._last = (place, picture)
        return picture

    def _count_tokens(self, progress: Progress) -> _Counts:
        """In order of sets and rows, so that each group of rows is decoded once."""
        draws = np.zeros((4, self._count), dtype=np.int64)
        for index in range(self._count):
            kind, number, row, seed = self._mixture.draw(index)
            draws[:, index] = KINDS.index(kind), number, row, seed
        found = np.zeros((2, self._count), dtype=np.int64)
        for index in progress.track(np.lexsort(draws[2::-1]).tolist(), "count tokens"):
            kind_number, number, row, seed = draws[:, index].tolist()
            found[:, index] = self._length(Draw(KINDS[kind_number], number, row, seed))
        return _Counts(found[0], found[1], draws[0])

    def _length(self, draw: Draw) -> tuple[int, int]:
        if draw.kind == "vqa":
            rows: Examples = self._sets[draw.kind][draw.set]
            return int(rows.lengths[draw.row]), min(int(rows.images[draw.row]), 1)
        asked = self.questions(draw)
        if not self._sees(draw):
            return len(self._text(asked)[0]), 0
        return len(self._tokens(self._picture(draw), asked)[0]), 1


@lru_cache(maxsize=_KEPT_TEXTS)
def _written(writer: Writer, turns: tuple[Turn, ...]) -> Tokens:
    """The tokens of a conversation, not to be changed."""
    return writer.text_only(Row(id="", turns=turns))


def _read_counts(kept: Kept) -> _Counts | None:
    """None where there are none, or those of other draws."""
    if not kept.path.is_file():
        return None
    try:
        with np.load(kept.path) as file:
            if str(file["digest"]) != kept.digest:
                return None
            return _Counts(file["lengths"], file["images"], file["kinds"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RiceError(f"cannot read {kept.path}: {error}; remove it, and the tokens are counted anew") from error


def _write_counts(kept: Kept, counts: _Counts) -> None:
    make_folder(kept.path.parent)
    with atomic_path(kept.path) as path, path.open("wb") as file:
        np.savez(file, digest=np.array(kept.digest), **counts._asdict())


def _alternatives(kind: Kind, target: Target, dice: Random) -> Sequence[str]:
    """Texts that count as choices of their own: every expression and question; of a class's names only one."""
    return target.texts if kind != "semantic" else (dice.choice(target.texts),)


def pack_segments(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As `pack`; and what `Lisa.forward` takes of the pictures to segment."""
    row = pack(examples)
    framed = [example for example in examples if "frame" in example and len(example["masks"])]
    if framed:
        row["frames"] = torch.stack([example["frame"] for example in framed])
        row["seen"] = [example["seen"] for example in framed]
        row["masks"] = [example["masks"] for example in framed]
    return row
