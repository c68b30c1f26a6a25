"""A conversation with a model about pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mllm.generation import Conversation, Decoding, Speaker
from mllm.llava.model_id import is_blind
from rice.data.decode import to_rgb
from rice.data.picture import open_picture
from rice.errors import RiceError


class Talk:
    """Turns so far, and the model that answers. Pictures belong to the first question."""

    def __init__(self, speaker: Speaker, pictures: Sequence[Image.Image], *, most: int) -> None:
        """`most`: tokens of an answer."""
        self.speaker, self.pictures, self.most = speaker, list(pictures), most
        self.turns: list[dict[str, Any]] = []

    @classmethod
    def load(cls, model: str, images: Sequence[Path], *, device: str, most: int) -> "Talk":
        """From a folder or the hub. Errors: RiceError for what is no such model, no picture, or a picture for a model
        that was trained blind."""
        if images and is_blind(model):
            raise RiceError(f"{model} was trained blind and takes no pictures; ask it without --image")
        pictures = [to_rgb(ImageOps.exif_transpose(open_picture(path))) for path in images]
        return cls(Speaker(model, device=device), pictures, most=most)

    def ask(self, question: str, show: Callable[[str], None]) -> str:
        """The answer; `show` gets it piece by piece, and a line's end."""
        first = [{"type": "image"} for _ in self.pictures] if not self.turns else []
        self.turns.append({"role": "user", "content": [*first, {"type": "text", "text": question}]})
        so_far = Conversation(messages=tuple(self.turns), images=tuple(self.pictures))
        pieces = _Pieces(self.speaker.tokenizer, show)
        (said,) = self.speaker.answer([so_far], Decoding(max_new_tokens=self.most), streamer=pieces)
        answer = said.text.strip()
        self.turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return answer


def _Pieces(tokenizer: Any, show: Callable[[str], None]) -> Any:  # noqa: N802 # makes an instance of a local class
    from transformers import TextStreamer

    class Pieces(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            show(text + ("\n" if stream_end else ""))

    return Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True)
