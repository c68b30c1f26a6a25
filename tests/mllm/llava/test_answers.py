"""Models that the probe trains answer in a batch as alone, whatever their encoder, their tiling and the questions."""

from pathlib import Path

import pytest
import torch
from tiny_encoders import tiny_encoder
from tiny_parts import llava_around, noise

from mllm.generation import Answer, Conversation, Decoding, Speaker
from mllm.llava.tiling import Tiling


@pytest.mark.parametrize("tiling", ["one", "2x2+1", "anyres5", "anyres9"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_saved_model_answers_in_a_batch_as_alone(kind: str, tiling: Tiling, tmp_path: Path) -> None:
    llava = llava_around(tiny_encoder(kind, tmp_path / "tower"), tiling)
    torch.manual_seed(0)
    for parameter in llava.model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    llava.model.save_pretrained(tmp_path / "model")
    llava.processor.save_pretrained(tmp_path / "model")
    speaker, decoding = Speaker(str(tmp_path / "model"), device="cpu"), Decoding(max_new_tokens=6)
    questions = [asked("what", 1), asked("how many of them", 2), asked("b"), asked("a" * 30), asked("both", 3, 4)]
    alone: list[Answer] = [speaker.answer([one], decoding)[0] for one in questions]
    assert speaker.answer(questions, decoding) == alone
    assert len({answer.text for answer in alone}) > 1
    seen = {speaker.answer([asked("what", seed)], decoding)[0].text for seed in range(5)}
    assert len(seen) > 1


def asked(text: str, *seeds: int) -> Conversation:
    """With pictures of other shapes each."""
    content = [{"type": "image"} for _ in seeds] + [{"type": "text", "text": text}]
    images = tuple(noise(30 + 40 * (seed % 3), 40 + 30 * (seed % 4), seed) for seed in seeds)
    return Conversation(messages=({"role": "user", "content": content},), images=images)
