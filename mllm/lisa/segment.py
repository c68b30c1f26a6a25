"""What a trained model segments on one picture when it is told what in words.

Its Llava and its segmenter each look at the picture once, however many expressions there are. Several [SEG] in one
answer are one mask, their union; an answer without one is an empty mask.

Shapes: N expressions, S tokens [SEG], D width of the language model, h, w the segmenter's maps, H, W the picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mllm.generation import memory_told
from mllm.lisa.answer import Answered, Answerer, Asking
from mllm.lisa.asked import MOST, TOGETHER
from mllm.lisa.model import Trained
from mllm.lisa.phrases import GIVEN
from mllm.lisa.segmenter import Frame, enlarge
from mllm.llava.conversation import Writer

_PROMPTS = 32
"""Masks that are decoded at a time."""


@dataclass(frozen=True)
class Sight:
    """A picture as the two networks take it, on the CPU. `taken`: by the Llava; `tokens`: how many it makes of it;
    `frame`: of the segmenter; `size`: (H, W)."""

    taken: Mapping[str, Tensor]
    tokens: int
    frame: Frame
    size: tuple[int, int]


@dataclass(frozen=True)
class Reply:
    """To one expression. `text`: the answer as it was written, with its [SEG]. mask_HW, given_HW: bool, on the model's
    device: of the [SEG] that it wrote, and of the one that was given to it."""

    text: str
    segs: int
    mask_HW: Tensor  # noqa: N815
    given_HW: Tensor  # noqa: N815


class Grounder:
    """A trained model that is asked about pictures. most: tokens of an answer; together: expressions at a time."""

    def __init__(self, trained: Trained, *, most: int = MOST, together: int = TOGETHER) -> None:
        self.trained, self.lisa = trained, trained.lisa
        self.answerer = Answerer(
            self.lisa.llava,
            seg_id=self.lisa.seg_id,
            ends=_listed(self.lisa.llava.generation_config.eos_token_id) or [trained.tokenizer.eos_token_id],
            pad_id=trained.tokenizer.pad_token_id,
            most=most,
            together=together,
        )

    @cached_property
    def writer(self) -> Writer:
        """Of conversations as the model learnt them."""
        return Writer(
            tokenizer=self.trained.tokenizer,
            image_id=int(self.lisa.llava.config.image_token_id),
            prompt=self.trained.prompt,
        )

    def look(self, image: Image.Image) -> Sight:
        """At an RGB picture; may be called from several threads."""
        size = (image.height, image.width)
        pixels = self.trained.processor.image_processor(images=[[image]], return_tensors="pt")["pixel_values"]
        taken = {"pixel_values": pixels}
        if self.trained.tiles.tiling != "one":
            taken["image_sizes"] = torch.tensor([size])
        return Sight(taken, self.trained.tiles.tokens(size), self.lisa.segmenter.frame(image), size)

    def reply(self, sight: Sight, questions: Sequence[str]) -> Iterator[Reply]:
        """To whole questions (`mllm.lisa.phrases.ask`), in order.

        Errors: RiceError, as `Answerer.answer`; where memory ends.
        """
        with memory_told(self.lisa.llava.device, min(len(questions), self.answerer.together)), torch.no_grad():
            answers = self.answerer.answer(self._asking(sight, questions), self._moved(sight.taken))
            states = [state_SD for one in answers for state_SD in (one.said, one.given)]
            counts = [len(state_SD) for state_SD in states]
            logits = torch.split(self._decode(sight.frame, torch.cat(states)), counts)
        for answer, said_Shw, given_Shw in zip(answers, logits[::2], logits[1::2], strict=True):
            yield self._reply(answer, sight, said_Shw, given_Shw)

    def _asking(self, sight: Sight, questions: Sequence[str]) -> Asking:
        seg_id = self.lisa.seg_id
        return Asking.of(self.writer, questions, given=GIVEN, seg_id=seg_id, image_tokens=sight.tokens)

    def _moved(self, taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """To the Llava's device, pixels in its number format."""
        llava = self.lisa.llava
        return {
            name: value.to(llava.device, llava.dtype if value.is_floating_point() else None)
            for name, value in taken.items()
        }

    def _decode(self, frame: Frame, states_SD: Tensor) -> Tensor:
        """Logits (S, h, w) of the masks that hidden states ask for."""
        segmenter = self.lisa.segmenter
        features = segmenter.encode(frame.pixels[None])
        owners_S = torch.zeros(len(states_SD), dtype=torch.long, device=states_SD.device)
        parts = zip(torch.split(owners_S, _PROMPTS), torch.split(self.lisa.prompt(states_SD), _PROMPTS), strict=True)
        return torch.cat([segmenter.decode(features, owners, prompts) for owners, prompts in parts])

    def _reply(self, answer: Answered, sight: Sight, said_Shw: Tensor, given_Shw: Tensor) -> Reply:
        special = {*self.trained.tokenizer.all_special_ids} - {self.lisa.seg_id}
        ids = [one for one in answer.ids if one not in special]
        text = self.trained.tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
        masks = (self._union(sight, logits_Shw) for logits_Shw in (said_Shw, given_Shw))
        return Reply(text, len(said_Shw), *masks)

    def _union(self, sight: Sight, logits_Shw: Tensor) -> Tensor:
        """Bool (H, W). Each at the picture's own size before it is cut off at 0."""
        mask_HW = torch.zeros(sight.size, dtype=torch.bool, device=logits_Shw.device)
        for logits_hw in logits_Shw:  # one at a time: large pictures
            mask_HW |= enlarge(logits_hw[None], sight.frame.seen, sight.size, self.lisa.segmenter.edge)[0] > 0
        return mask_HW


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
