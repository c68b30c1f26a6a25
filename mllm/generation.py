"""Answers of an image-text-to-text model to conversations: batched, padded on the left, and never an empty answer for
an error.

Shapes: B conversations, T tokens.
"""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rice.encoders.hub import pinned
from rice.errors import RiceError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Content = dict[str, Any]
"""{"type": "text", "text": str}, or {"type": "image"}; pictures come beside it, in order."""

DEFAULT_NEW_TOKENS = 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_FEW_SHOT_DELIMITER = "\n\n"
_READ = ("max_new_tokens", "temperature", "do_sample", "top_p", "top_k", "num_beams", "until")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are searched for. temperature 0, or do_sample off: greedy, or beam search with num_beams > 1.

    `until`: an answer ends before the first of these texts; they are not in it. A blank line is never one of them:
    lmms-eval puts its delimiter of few-shot examples into every task that sets none, and an answer that begins with a
    blank line, or has several paragraphs, is an answer.
    """

    max_new_tokens: int = DEFAULT_NEW_TOKENS
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    num_beams: int = 1
    until: tuple[str, ...] = ()

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Decoding":
        """From lmms-eval's generation_kwargs; what is not read is `unread`'s. Errors: RiceError out of range."""
        given = {name: arguments[name] for name in _READ if arguments.get(name) is not None}
        until = given.pop("until", ())
        sample = given.pop("do_sample", given.get("temperature", 0) > 0)
        given["temperature"] = float(given.get("temperature", 1.0)) if sample else 0.0
        stops = (until,) if isinstance(until, str) else tuple(until)
        decoding = cls(**given, until=tuple(stop for stop in stops if stop != _FEW_SHOT_DELIMITER))
        if decoding.max_new_tokens < 1 or decoding.num_beams < 1 or not 0 <= decoding.temperature < math.inf:
            raise RiceError(
                f"expected at least one new token and beam, and a temperature of at least 0, got {decoding}"
            )
        return decoding

    @staticmethod
    def unread(arguments: Mapping[str, Any]) -> list[str]:
        """Names of arguments that have no meaning here."""
        return sorted(name for name in arguments if name not in _READ)

    def as_arguments(self) -> dict[str, Any]:
        """Of `generate`."""
        sample = self.temperature > 0
        found: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": sample,
            "num_beams": self.num_beams,
        }
        if sample:
            found |= {"temperature": self.temperature, "top_p": self.top_p or 1.0, "top_k": self.top_k or 0}
        return found

    def __str__(self) -> str:
        search = "greedy" if self.num_beams == 1 else f"{self.num_beams} beams"
        return search if self.temperature == 0 else f"sampled at temperature {self.temperature:g}"

    def cut(self, text: str) -> str:
        """`text` up to the first of `until`."""
        found = [place for stop in self.until if stop and (place := text.find(stop)) >= 0]
        return text[: min(found)] if found else text


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """`messages`: {"role", "content": [Content, ...]}, the last one the user's; `images`: RGB, one a mark."""

    messages: tuple[dict[str, Any], ...]
    images: tuple["Image", ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`text`: without control characters, which MMBench's scorer, for one, cannot write into its table. `tokens`:
    generated ones, the end of the answer not among them."""

    text: str
    tokens: int
    prompt_tokens: int


class Speaker:
    """A model and its processor, ready to answer. Errors: RiceError where the folder is none, where weights are missing
    (transformers would fill them at random) or left over (it would drop them), where the processor has no chat
    template."""

    def __init__(self, pretrained: str, *, device: str = "auto", dtype: str = "auto") -> None:
        from transformers import AutoProcessor

        import rice  # noqa: F401 - makes our towers known to transformers
        from rice.device import pick_device
        from rice.encoders.hf import quiet

        self.name = pretrained
        self.device = pick_device(device)
        with quiet():
            self.model = load_model(pretrained, pick_dtype(dtype, self.device)).to(self.device).eval()
        try:
            with pinned(pretrained) as options:
                self.processor = AutoProcessor.from_pretrained(pretrained, trust_remote_code=False, **options)
        except (OSError, ValueError) as error:
            raise RiceError(f"expected a processor in {pretrained}: {_line(error)}") from error
        self.tokenizer = getattr(self.processor, "tokenizer", self.processor)
        if not (getattr(self.processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)):
            raise RiceError(
                f"the processor of {pretrained} has no chat template, so that nobody knows how it is to be asked; put "
                "the template of its language model beside it as chat_template.jinja"
            )
        self._prepare()

    def _prepare(self) -> None:
        """Left padding, an end and a pad token, and none of the sampling that a model's own settings may ask for."""
        from transformers import GenerationConfig

        own = self.model.generation_config
        self.tokenizer.padding_side = "left"
        ends = {self.tokenizer.eos_token_id, *(_listed(own.eos_token_id) if own else ())} - {None}
        if not ends:
            raise RiceError(f"{self.name} has no token that ends an answer; set eos_token of its tokenizer")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(min(ends))
        self.ends = frozenset(ends)
        self.image_mark = getattr(self.processor, "image_token", None) or "<image>"
        self.model.generation_config = GenerationConfig(
            bos_token_id=own.bos_token_id if own else None,
            eos_token_id=sorted(ends),
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def answer(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, streamer: Any = None
    ) -> list[Answer]:
        """One each, in order; all of one batch. streamer: transformers', is shown the tokens of a single one as they
        come. Errors: RiceError: out of memory, a logit that is NaN or infinite."""
        counts = {len(one.images) for one in conversations}
        if len(counts) > 1:  # processors differ in how they take lists of unequal lengths
            found: dict[int, Answer] = {}
            for count in sorted(counts):
                places = [i for i, one in enumerate(conversations) if len(one.images) == count]
                found |= dict(zip(places, self.answer([conversations[i] for i in places], decoding), strict=True))
            return [found[i] for i in range(len(conversations))]
        with memory_told(self.device, len(conversations)):
            return self._answer(conversations, decoding, streamer)

    def _answer(self, conversations: Sequence[Conversation], decoding: Decoding, streamer: Any) -> list[Answer]:
        inputs = self.encode(conversations)
        width = inputs["input_ids"].shape[1]
        watch = Finite()
        options = decoding.as_arguments() | {"logits_processor": [watch], "streamer": streamer}
        out_BT = self.model.generate(**inputs, **options)  # no gradients
        watch.check(self.name)
        prompts = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            self._read(ids, decoding, int(prompt))
            for ids, prompt in zip(out_BT[:, width:].tolist(), prompts, strict=True)
        ]

    def encode(self, conversations: Sequence[Conversation]) -> Any:
        """What the model takes, on its device."""
        texts = [
            self.processor.apply_chat_template(
                [self._marked(message) for message in one.messages], tokenize=False, add_generation_prompt=True
            )
            for one in conversations
        ]
        for text, one in zip(texts, conversations, strict=True):
            if text.count(self.image_mark) != len(one.images):
                raise RiceError(
                    f"the chat template of {self.name} wrote {text.count(self.image_mark)} image marks for "
                    f"{len(one.images)} pictures; it must write one for each"
                )
        images = [list(one.images) for one in conversations] if conversations[0].images else None
        # A template that begins with the start token would have a second one put before it.
        start = self.tokenizer.bos_token
        special = not (start and all(text.startswith(start) for text in texts))
        inputs = self.processor(
            images=images, text=texts, padding=True, return_tensors="pt", add_special_tokens=special
        )
        return inputs.to(self.device, self.model.dtype)

    def _marked(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A question that quotes the image mark must not become a picture."""
        mark = self.image_mark
        quoted = f"{mark[0]} {mark[1:]}"
        parts = [
            part | {"text": part["text"].replace(mark, quoted)} if part["type"] == "text" else part
            for part in message["content"]
        ]
        return {"role": message["role"], "content": parts}

    def _read(self, ids: list[int], decoding: Decoding, prompt: int) -> Answer:
        count = next((i for i, token in enumerate(ids) if token in self.ends), len(ids))
        text = self.tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answer(text=decoding.cut(_CONTROL.sub("", text)), tokens=count, prompt_tokens=prompt)


class Finite:
    """A logits processor: watches the logits of every step, without waiting for the device until the end."""

    def __init__(self) -> None:
        self.bad: torch.Tensor | None = None

    def __call__(self, input_ids: "torch.Tensor | None", scores: "torch.Tensor") -> "torch.Tensor":
        """The logits as they are."""
        found = (scores.isnan() | (scores == math.inf)).any()
        self.bad = found if self.bad is None else self.bad | found
        return scores

    def check(self, name: str) -> None:
        """Errors: RiceError naming the model where one was NaN or infinite."""
        if self.bad is not None and bool(self.bad):
            raise RiceError(
                f"{name} gave logits that are not finite, so that its answers mean nothing; try --dtype float32, or "
                "look at its training"
            )


def load_model(pretrained: str, dtype: "torch.dtype") -> Any:
    """transformers' model of a folder or repository. Errors: RiceError where it is none, or its weights are not
    whole."""
    from transformers import AutoModelForImageTextToText

    place = Path(pretrained)
    if place.exists() and not (place / "config.json").is_file():
        raise RiceError(f"expected a model's folder with config.json, found none in {pretrained}")
    try:
        with pinned(pretrained) as options:
            model, loading = AutoModelForImageTextToText.from_pretrained(
                pretrained, dtype=dtype, output_loading_info=True, trust_remote_code=False, **options
            )
    except (OSError, ValueError) as error:
        raise RiceError(f"cannot load {pretrained}: {_line(error)}") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        keys = sorted(map(str, loading.get(what) or ()))
        if keys:
            wrong = (
                "has weights that its model has no place for"
                if what == "unexpected_keys"
                else "lacks weights of its own model, which would be random"
            )
            raise RiceError(f"{pretrained} {wrong}: {len(keys)} {what}, first {keys[0]}; save the model anew")
    return model


def pick_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """auto: bfloat16 on a GPU, float32 on the CPU. Errors: RiceError."""
    import torch

    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    found = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(name)
    if found is None:
        raise RiceError(f"expected --dtype auto, float32, bfloat16 or float16, got {name!r}")
    return found


@contextlib.contextmanager
def memory_told(device: "torch.device", batch: int) -> Iterator[None]:
    """Errors: RiceError with what to do about it where the memory ends inside. batch: questions at a time."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        remedy = "lower --batch-size" if batch > 1 else "use a GPU with more memory, or a smaller --dtype"
        raise RiceError(f"out of memory on {device} with {batch} questions at a time; {remedy}") from error


def _out_of_memory(error: BaseException) -> bool:
    kind, text = type(error).__name__, str(error)
    return isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in text


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
