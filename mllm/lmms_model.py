"""The class behind lmms-eval's `--model rice_llava`. Any error ends the evaluation: none becomes an empty answer."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger

from mllm.generation import Answer, Conversation, Decoding, Speaker
from mllm.llava.model_id import is_blind
from rice.device import pick_device
from rice.errors import RiceError
from rice.progress import bars_if

if TYPE_CHECKING:
    from PIL.Image import Image


class RiceLlava(lmms):  # type: ignore[misc]  # lmms-eval has no types
    """Answers with `mllm.generation.Speaker`, whatever image-text-to-text model it holds.

    pretrained: a folder or a hub id. batch_size: questions at a time, of one process. dtype: auto, float32, bfloat16,
    float16. system_prompt: text that comes first; none by default. Under torchrun each process has its own GPU. A model
    that rice llava train made blind gets no pictures.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | str = 1,
        system_prompt: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise RiceError(f"expected a batch size of at least 1, got {batch_size!r}; rice_llava has no automatic one")
        on_cpu = pick_device(device).type == "cpu"
        self.accelerator = Accelerator(cpu=on_cpu)  # without a GPU it would not see the other processes
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if self._world_size > 1 and not on_cpu:
            device = f"cuda:{self.accelerator.local_process_index}"
        self.speaker = Speaker(str(pretrained), device=device, dtype=dtype)
        self.batch_size, self.system_prompt = int(batch_size), system_prompt
        self.blind = is_blind(str(pretrained))
        if self.blind:
            logger.info("rice_llava: this model was trained blind, and is asked without pictures")
        self._told: set[str] = set()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.speaker.device

    @property
    def tokenizer(self) -> Any:
        """Of the model."""
        return self.speaker.tokenizer

    def clean(self) -> None:
        """Keep the model, which answers the next task too; give back what torch has cached."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """One answer a request, in their order. Errors: RiceError, as `Speaker.answer`; whatever a task raises."""
        answers: dict[int, Answer] = {}
        start = time.monotonic()
        for places, decoding in bars_if(self.rank == 0).track(list(self._batches(requests)), "batches"):
            conversations = [self._conversation(requests[place].args) for place in places]
            answers |= dict(zip(places, self.speaker.answer(conversations, decoding), strict=True))
        self._report([answers[place] for place in range(len(requests))], time.monotonic() - start)
        return [
            GenerationResult(
                text=answers[place].text,
                token_counts=TokenCounts(
                    input_tokens=answers[place].prompt_tokens, output_tokens=answers[place].tokens
                ),
            )
            for place in range(len(requests))
        ]

    def _batches(self, requests: Sequence[Instance]) -> Iterator[tuple[list[int], Decoding]]:
        """Places of requests with equal settings, long questions first: what does not fit shows at once."""
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[2], sort_keys=True, default=str), []).append(place)
        for places in groups.values():
            arguments = requests[places[0]].args[2]
            for name in Decoding.unread(arguments):
                self._tell(f"generation setting {name}={arguments[name]!r} has no meaning for rice_llava: not used")
            decoding = Decoding.of(arguments)
            places.sort(key=lambda place: -len(str(requests[place].args[0])))
            for start in range(0, len(places), self.batch_size):
                yield places[start : start + self.batch_size], decoding

    def _conversation(self, arguments: tuple[Any, ...]) -> Conversation:
        """From lmms-eval's (context, doc_to_messages, settings, document, task, split)."""
        _, doc_to_messages, _, document, task, split = arguments
        messages: list[dict[str, Any]] = []
        images: list[Image] = []
        for message in doc_to_messages(self.task_dict[task][split][document]):
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            if self.blind:
                parts = [part for part in parts if part["type"] != "image"]
            messages.append({"role": message["role"], "content": [_part(part, images, task) for part in parts]})
        if self.system_prompt:
            messages = [one for one in messages if one["role"] != "system"]
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]})
        return Conversation(messages=tuple(messages), images=tuple(images))

    def _report(self, answers: Sequence[Answer], seconds: float) -> None:
        """Honestly empty answers are allowed, and counted."""
        empty = sum(not answer.text.strip() for answer in answers)
        logger.info(f"rice_llava: {len(answers)} answers, {empty} of them empty, in {seconds:.1f} s")
        tokens = sum(answer.tokens for answer in answers)
        log_metrics(
            total_gen_tokens=tokens,
            total_elapsed_time=seconds,
            avg_speed=tokens / seconds if seconds > 0 else 0.0,
            additional_metrics={"rank": self.rank},
        )

    def _tell(self, text: str) -> None:
        """A warning, once."""
        if text not in self._told:
            self._told.add(text)
            logger.warning(text)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Errors: RiceError, always: lmms-eval builds no such requests for models that take conversations."""
        raise RiceError("rice_llava answers questions and gives no log-likelihoods; choose a task that generates")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Errors: RiceError, always."""
        raise RiceError("rice_llava answers one question at a time, not several rounds; choose another task")


def _part(part: dict[str, Any], images: "list[Image]", task: str) -> dict[str, Any]:
    """A part of a message without its picture, which goes to `images`. Errors: RiceError for sound and video."""
    kind = part["type"]
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if kind != "image":
        raise RiceError(f"rice_llava takes pictures and text, task {task} has {kind}; choose another task")
    images.append(_rgb(part["url"] if "url" in part else part["image"]))
    return {"type": "image"}


def _rgb(picture: Any) -> "Image":
    from PIL import Image

    from rice.data.picture import open_picture

    return (picture if isinstance(picture, Image.Image) else open_picture(Path(picture))).convert("RGB")
