"""A conversation as tokens: image tokens in place of the marks, labels on what is to be answered.

Shapes: T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mllm.llava.prompts import Prompt, pieces
from mllm.llava.rows import Row

IGNORED = -100
"""The label of a token without loss, as in transformers."""


@dataclass(frozen=True)
class Tokens:
    """`ids` and `labels` (T,): a label is the id at its own place, or IGNORED; models shift them by themselves."""

    ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        """T."""
        return len(self.ids)

    def cut(self, length: int) -> "Tokens":
        """At most `length` tokens, from the front."""
        return Tokens(self.ids[:length], self.labels[:length])


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes conversations. `tokenizer`: of transformers, whose vocabulary has the image token `image_id`."""

    tokenizer: Any
    image_id: int
    prompt: Prompt

    def text_only(self, row: Row) -> Tokens:
        """With one image token for each mark; the token that begins texts first, where the tokenizer has one."""
        end = self.tokenizer.eos_token or ""
        ids: list[int] = self._beginning()
        labels: list[int] = [IGNORED] * len(ids)
        for piece in pieces(row.turns, self.prompt, end=end):
            new = self.tokenizer.encode(piece.text, add_special_tokens=False)
            ids += new
            labels += new if piece.learnt else [IGNORED] * len(new)
        return Tokens(ids, labels)

    def _beginning(self) -> list[int]:
        """What the tokenizer puts before every text by itself: Llama's does, Qwen's does not."""
        start = self.tokenizer.bos_token_id
        return [start] if start is not None and self.tokenizer.encode("a")[:1] == [start] else []

    def expand(self, tokens: Tokens, counts: Sequence[int]) -> Tokens:
        """Each mark's one token as often as its picture has tokens. `counts`: one for each mark, in order."""
        ids: list[int] = []
        labels: list[int] = []
        waiting = iter(counts)
        for id_, label in zip(tokens.ids, tokens.labels, strict=True):
            if id_ == self.image_id:
                count = next(waiting)
                ids += [id_] * count
                labels += [IGNORED] * count
            else:
                ids.append(id_)
                labels.append(label)
        return Tokens(ids, labels)
