"""A conversation with a model about pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from mllm.generation import Speaker
from rice.data.decode import to_rgb
from rice.data.picture import open_picture


class Talk:
    """Turns so far, and the model that answers. Pictures belong to the first question."""

    def __init__(self, speaker: Speaker, pictures: Sequence[Image.Image], *, most: int) -> None:
        """`most`: tokens of an answer."""
        self.speaker, self.pictures, self.most = speaker, list(pictures), most
        self.turns: list[dict[str, Any]] = []

    @classmethod
    def load(cls, model: str, images: Sequence[Path], *, device: str, most: int) -> "Talk":
        """From a folder or the hub. Errors: RiceError for what is no such model, or no picture."""
        pictures = [to_rgb(ImageOps.exif_transpose(open_picture(path))) for path in images]
        return cls(Speaker(model, device=device), pictures, most=most)

    def ask(self, question: str, show: Callable[[str], None]) -> str:
        """The answer; `show` gets it piece by piece, and a line's end."""
        first = [{"type": "image"} for _ in self.pictures] if not self.turns else []
        self.turns.append({"role": "user", "content": [*first, {"type": "text", "text": question}]})
        processor, model = self.speaker.processor, self.speaker.model
        text = processor.apply_chat_template(self.turns, add_generation_prompt=True, tokenize=False)
        nested = [self.pictures] if self.pictures else None
        inputs = processor(images=nested, text=[text], return_tensors="pt").to(self.speaker.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        answer = self._generate(inputs, show)
        self.turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return answer

    def _generate(self, inputs: Any, show: Callable[[str], None]) -> str:
        streamer = _Pieces(self.speaker.tokenizer, show)
        with torch.no_grad():
            ids = self.speaker.model.generate(**inputs, max_new_tokens=self.most, do_sample=False, streamer=streamer)
        new = ids[0, inputs["input_ids"].shape[1] :]
        text: str = self.speaker.tokenizer.decode(new, skip_special_tokens=True)
        return text.strip()


def _Pieces(tokenizer: Any, show: Callable[[str], None]) -> Any:  # noqa: N802 # makes an instance of a local class
    from transformers import TextStreamer

    class Pieces(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            show(text + ("\n" if stream_end else ""))

    return Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True)
