"""Greedy answers to many questions about one picture, and what they hold at every [SEG].

All that stands before a question's own words is the same for every question of a picture, and is most of it: 576 to
2,928 of about 3,000 tokens. It goes through the model once; its keys and values then serve all questions. LISA's
evaluation runs everything for every expression, of which refCOCO's pictures have seven.

Shapes: N questions, T tokens, P of them those of the prefix, C width of the language model, S tokens [SEG].
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mllm.generation import Finite
from mllm.lisa.phrases import quoted
from mllm.llava.conversation import IGNORED, Writer
from mllm.llava.rows import MARK, Row, Turn
from rice.errors import RiceError


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Questions about one picture as tokens. `prefix` (P,): up to the picture's last token, the same for all;
    `questions`: what follows, up to where the answer begins; `given`: an answer's first tokens, up to its last [SEG].
    """

    prefix: list[int]
    questions: list[list[int]]
    given: list[int]

    @classmethod
    def of(cls, writer: Writer, questions: Sequence[str], *, given: str, seg_id: int, image_tokens: int) -> "Asking":
        """As training writes them. given: an answer that has [SEG]. image_tokens: of the picture.

        Errors: RiceError for a question without text, ValueError for a given answer without [SEG].
        """
        parts = [_split(writer, question, given) for question in questions]
        heads = {tuple(head) for head, _, _ in parts}
        if len(heads) != 1:
            raise ValueError(f"expected questions that begin alike up to the picture, got {len(heads)} beginnings")
        answer = parts[0][2]
        if seg_id not in answer:
            raise ValueError(f"expected an answer with [SEG] to be given, got {given!r}")
        last = len(answer) - answer[::-1].index(seg_id)
        prefix = [*heads.pop(), *[writer.image_id] * (image_tokens - 1)]
        return cls(prefix=prefix, questions=[asked for _, asked, _ in parts], given=answer[:last])


def _split(writer: Writer, question: str, given: str) -> tuple[list[int], list[int], list[int]]:
    """Tokens up to the image token, of the rest of the question, of the answer. What the question says are words
    alone."""
    if not question.strip():
        raise RiceError("expected a text that says what to segment, got an empty one")
    turns = (Turn("user", f"{MARK}\n{quoted(question, writer.tokenizer)}"), Turn("assistant", given))
    tokens = writer.text_only(Row(id="", turns=turns))
    first = next(i for i, label in enumerate(tokens.labels) if label != IGNORED)
    answer = [label for label in tokens.labels[first:] if label != IGNORED]
    place = tokens.ids.index(writer.image_id) + 1
    return tokens.ids[:place], tokens.ids[place:first], answer


@dataclass(frozen=True)
class Answered:
    """`ids`: generated tokens, without the one that ends an answer. `said` (S, C): the last hidden state (after the
    final norm) at every position that predicts one of their [SEG], in order; `given`: likewise of the given answer."""

    ids: tuple[int, ...]
    said: Tensor
    given: Tensor


class Answerer:
    """Asks a Llava of transformers. `model` has its own lm_head; `ends`: tokens that end an answer; `most`: tokens of
    an answer; `together`: questions at a time."""

    def __init__(
        self, model: Any, *, seg_id: int, ends: Sequence[int], pad_id: int, most: int = 64, together: int = 8
    ) -> None:
        self.model, self.seg_id, self.pad_id = model, seg_id, pad_id
        self.most, self.together = most, together
        self.ends = frozenset(ends)

    @torch.no_grad()
    def answer(self, asking: Asking, picture: Mapping[str, Tensor]) -> list[Answered]:
        """One each, in order. picture: what the model takes beside the tokens: `pixel_values`, and `image_sizes` where
        it has tiles. Errors: RiceError for a logit that is NaN or infinite."""
        prefix_1P = torch.tensor([asking.prefix], device=self.model.device)
        seen = self.model.model(input_ids=prefix_1P, use_cache=True, **picture).past_key_values
        found: list[Answered] = []
        for start in range(0, len(asking.questions), self.together):
            questions = asking.questions[start : start + self.together]
            found += self._answer(_Reading.of(self, seen, questions), asking.given)
        return found

    def _answer(self, asked: "_Reading", given: Sequence[int]) -> list[Answered]:
        given_NSC = asked.fork().follow(given)
        ids_TN, hidden_TNC = self._generate(asked)
        answers = []
        for n, ids in enumerate(ids_TN.T.tolist()):
            end = next((t for t, one in enumerate(ids) if one in self.ends), len(ids))
            places = [t for t, one in enumerate(ids[:end]) if one == self.seg_id]
            answers.append(Answered(tuple(ids[:end]), hidden_TNC[places, n], given_NSC[n]))
        return answers

    def _generate(self, asked: "_Reading") -> tuple[Tensor, Tensor]:
        """Greedily until all answers have ended; what follows an answer's end means nothing. (T, N) and (T, N, C)."""
        watch, ids, hidden = Finite(), [], []
        ends = torch.tensor(sorted(self.ends), device=self.model.device)
        ended_N = torch.zeros(len(asked.hidden), dtype=torch.bool, device=self.model.device)
        while True:
            logits_NV = watch(None, self.model.lm_head(asked.hidden))
            ids.append(logits_NV.float().argmax(dim=-1))
            hidden.append(asked.hidden)
            ended_N |= torch.isin(ids[-1], ends)
            if len(ids) >= self.most or bool(ended_N.all()):
                break
            asked.read(ids[-1][:, None])
        watch.check(self.model.config.name_or_path or "the model")
        return torch.stack(ids), torch.stack(hidden)


@dataclass
class _Reading:
    """N texts behind one prefix, read so far. `hidden` (N, C): the last hidden state of each; `kept` (N, T): which of
    the cache's places are text, not padding; `next` (N, 1): the position of the next token."""

    model: Any
    seg_id: int
    cache: DynamicCache
    kept: Tensor
    next: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, answerer: Answerer, seen: DynamicCache, questions: Sequence[Sequence[int]]) -> "_Reading":
        """All questions, padded on the left."""
        model, count = answerer.model, len(questions)
        longest = max(map(len, questions))
        ids_NT = torch.tensor(
            [[answerer.pad_id] * (longest - len(asked)) + list(asked) for asked in questions], device=model.device
        )
        lengths_N1 = torch.tensor([[len(asked)] for asked in questions], device=model.device)
        text_NT = torch.arange(longest, device=model.device) >= longest - lengths_N1
        start = seen.get_seq_length()
        kept = torch.cat([text_NT.new_ones(count, start), text_NT], dim=1)
        positions_NT = (start + text_NT.cumsum(dim=1) - 1).clamp(min=start)
        reading = cls(model, answerer.seg_id, _fork(seen, count), kept, start + lengths_N1, torch.empty(0))
        reading._forward(ids_NT, positions_NT)
        return reading

    def fork(self) -> "_Reading":
        """A second one that may go on otherwise."""
        twin = copy.copy(self)
        twin.cache = _fork(self.cache, len(self.hidden))
        return twin

    def read(self, ids_NT: Tensor) -> Tensor:
        """Go on by the same number of tokens for each; returns their hidden states (N, T, C)."""
        length = ids_NT.shape[1]
        self.kept = torch.cat([self.kept, self.kept.new_ones(ids_NT.shape)], dim=1)
        positions_NT = self.next + torch.arange(length, device=ids_NT.device)
        self.next = self.next + length
        return self._forward(ids_NT, positions_NT)

    def follow(self, ids: Sequence[int]) -> Tensor:
        """Go on by one text for all, which ends in [SEG]; returns the states that predict its [SEG] (N, S, C)."""
        before_N1C = self.hidden[:, None]
        if len(ids) > 1:
            ids_NT = torch.tensor([ids[:-1]], device=before_N1C.device).expand(len(before_N1C), -1)
            before_N1C = torch.cat([before_N1C, self.read(ids_NT)], dim=1)
        return before_N1C[:, [place for place, one in enumerate(ids) if one == self.seg_id]]

    def _forward(self, ids_NT: Tensor, positions_NT: Tensor) -> Tensor:
        hidden_NTC: Tensor = self.model.model(
            input_ids=ids_NT,
            attention_mask=self.kept.long(),
            position_ids=positions_NT,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.hidden = hidden_NTC[:, -1]
        return hidden_NTC


def _fork(cache: DynamicCache, count: int) -> DynamicCache:
    """A cache that goes on from here for `count` texts, without a copy: layers grow by concatenation, never in place.

    Errors: RiceError for a language model that keeps other things than keys and values.
    """
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in twin.layers:
        if not isinstance(layer, DynamicLayer):
            raise RiceError(
                f"expected a language model whose cache has keys and values, got {type(layer).__name__}; Qwen, Llama "
                "and Mistral work"
            )
        layer.keys, layer.values = (kept.expand(count, -1, -1, -1) for kept in (layer.keys, layer.values))
    return twin
