"""Prepared rows as examples for training: tokens, labels, tiles.

Shapes: T tokens, N tiles, K pictures, S edge of a tile in pixels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mllm.llava.conversation import IGNORED, Tokens, Writer
from mllm.llava.model import Llava
from mllm.llava.prompts import Prompt
from mllm.llava.rows import MARK, Row, Rows, Turn
from mllm.llava.tiling import Tiles
from rice.errors import RiceError
from rice.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How rows become examples. `max_length`: of T; `blind`: without the pictures; `most`: rows."""

    writer: Writer
    tiles: Tiles
    image_processor: Any
    max_length: int
    blind: bool = False
    most: int | None = None

    @classmethod
    def of(
        cls, llava: Llava, prompt: Prompt, *, max_length: int, blind: bool = False, most: int | None = None
    ) -> "Reading":
        """As a model needs them."""
        writer = Writer(tokenizer=llava.tokenizer, image_id=llava.image_id, prompt=prompt)
        images = llava.processor.image_processor
        return cls(
            writer=writer, tiles=llava.tiles, image_processor=images, max_length=max_length, blind=blind, most=most
        )

    def tokens(self, row: Row) -> Tokens:
        """Of one row, cut to `max_length`."""
        tokens = self.writer.text_only(row)
        counts = [self.tiles.tokens(size, among=len(row.sizes)) for size in row.sizes]
        return self.writer.expand(tokens, counts).cut(self.max_length)

    def cut(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Tiles (N, 3, S, S), normalised, of the upright pictures of one conversation."""
        # Nested: LLaVA-OneVision's processor shall know that they belong together.
        found = self.image_processor(images=[list(pictures)], return_tensors="pt")["pixel_values"]
        if self.tiles.tiling == "one":
            return found  # type: ignore[no-any-return]  # of a processor that is not typed
        counts = [self.tiles.count((one.height, one.width), among=len(pictures)) for one in pictures]
        # A batch is filled up with empty tiles.
        return torch.cat([tiles[:count] for tiles, count in zip(found, counts, strict=True)])

    def length(self, row: Row) -> int:
        """T; 0 where the row must be left out: cut to `max_length` it has no answer, or not all of a picture."""
        tokens = self.writer.text_only(row)
        whole = len(tokens) - len(row.sizes) + self.tiles.total(row.sizes)
        if whole > self.max_length:
            cut = self.tokens(row)
            image_tokens = cut.ids.count(self.writer.image_id)
            if image_tokens < self.tiles.total(row.sizes) or all(label == IGNORED for label in cut.labels[1:]):
                return 0
        return min(whole, self.max_length)


def without_pictures(row: Row) -> Row:
    """The same conversation without marks and pictures, as a blind model has it."""
    turns = tuple(Turn(t.role, t.text.replace(MARK + "\n", "").replace(MARK, "").strip()) for t in row.turns)
    return Row(id=row.id, turns=turns)


class Examples(Dataset[dict[str, Tensor]]):
    """Rows as examples: `input_ids` and `labels` (T,); where there are pictures `pixel_values` (N, 3, S, S),
    normalised, and `image_sizes` (K, 2) as (height, width).

    `lengths`: T of every example; `images`: K. `left_out`: how many rows are too long, `too_long`: the first ones' ids.
    Errors: RiceError where no row is left.
    """

    def __init__(self, rows: Rows, reading: Reading, progress: Progress) -> None:
        self.rows, self.reading = rows, reading
        chosen = _first(rows, reading.most)
        found, images = _lengths(rows, chosen, reading, progress)
        self._places = chosen[found > 0]
        self.lengths: Sequence[int] = found[found > 0].tolist()
        self.images: Sequence[int] = images[found > 0].tolist()
        self.too_long = [rows[int(place)].id for place in chosen[found == 0][:20]]
        self.left_out = int((found == 0).sum())
        if not len(self._places):
            raise RiceError(
                f"none of the {len(chosen):,} rows of {rows.folder} fits into {reading.max_length} tokens with its "
                "pictures and an answer; raise --max-length"
            )

    def __len__(self) -> int:
        """Examples."""
        return len(self._places)

    def row(self, index: int) -> Row:
        """The row behind an example, without its pictures where the model is blind."""
        row = self.rows[int(self._places[index])]
        return without_pictures(row) if self.reading.blind else row

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Errors: RiceError naming a picture that cannot be read any more."""
        row, reading = self.row(index), self.reading
        tokens = reading.tokens(row)
        example = {"input_ids": torch.tensor(tokens.ids), "labels": torch.tensor(tokens.labels)}
        return example | self._pictures(row) if row.images else example

    def _pictures(self, row: Row) -> dict[str, Tensor]:
        pictures = [self.rows.open_image(row, k) for k in range(len(row.images))]
        return {"pixel_values": self.reading.cut(pictures), "image_sizes": torch.tensor(row.sizes)}


def _first(rows: Rows, most: int | None) -> NDArray[np.int64]:
    """Places of at most `most` rows, in order: those whose ids have the smallest hashes."""
    if most is None or most >= len(rows):
        return np.arange(len(rows))
    marks = np.array([_mark(row.id) for row in rows])
    return np.sort(np.argsort(marks, kind="stable")[:most])


def _mark(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _lengths(
    rows: Rows, places: NDArray[np.int64], reading: Reading, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """T and K of the rows at `places`."""
    found = np.zeros((2, len(places)), dtype=np.int64)
    for index, place in enumerate(progress.track(places.tolist(), "count tokens")):
        row = without_pictures(rows[place]) if reading.blind else rows[place]
        found[:, index] = reading.length(row), len(row.images)
    return found[0], found[1]
