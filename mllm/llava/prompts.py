"""How conversations are written for the language model: the same text in training, in chat and in lmms-eval.

Imports no torch. A mark is the text "<image>"; in LLaVA's data it stands on a line before the question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mllm.llava.rows import MARK, Turn

Chat = Literal["qwen_1_5", "vicuna_v1"]
Prompt = Literal["plain", "qwen_1_5", "vicuna_v1"]
"""plain: LLaVA's stage 1, picture, then caption. qwen_1_5: ChatML, of Qwen 1.5 to 3. vicuna_v1: LLaVA 1.5's."""

SYSTEM = "You are a helpful assistant."
_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


@dataclass(frozen=True)
class Piece:
    """A part of the prompt's text that is made into tokens by itself. `learnt`: what the model is to answer."""

    text: str
    learnt: bool


def pieces(turns: Sequence[Turn], prompt: Prompt, *, end: str) -> Iterator[Piece]:
    """A conversation as pieces in order. `end`: the token that ends a text, where the prompt has none of its own.

    A system turn replaces the prompt's own. An answer's loss includes the token that ends it, and nothing else:
    LLaVA-NeXT's `preprocess_qwen` also learns the answer's header, which is the same in every answer.
    """
    if prompt == "plain":
        yield Piece(MARK * sum(turn.text.count(MARK) for turn in turns), learnt=False)
        yield Piece(turns[-1].text.strip() + "\n", learnt=True)
    elif prompt == "qwen_1_5":
        yield from _chatml(turns)
    else:
        yield from _vicuna(turns, end)


def _chatml(turns: Sequence[Turn]) -> Iterator[Piece]:
    system, turns = _split(turns, SYSTEM)
    yield Piece(f"<|im_start|>system\n{system}<|im_end|>\n", learnt=False)
    for turn in turns:
        if turn.role == "user":
            yield Piece(f"<|im_start|>user\n{turn.text}<|im_end|>\n", learnt=False)
        else:
            yield Piece("<|im_start|>assistant\n", learnt=False)
            yield Piece(f"{turn.text}<|im_end|>", learnt=True)
            yield Piece("\n", learnt=False)


def _vicuna(turns: Sequence[Turn], end: str) -> Iterator[Piece]:
    system, turns = _split(turns, _VICUNA_SYSTEM)
    yield Piece(system, learnt=False)
    for turn in turns:
        if turn.role == "user":
            yield Piece(f" USER: {turn.text} ASSISTANT:", learnt=False)
        else:
            yield Piece(f" {turn.text}{end}", learnt=True)


def _split(turns: Sequence[Turn], default: str) -> tuple[str, Sequence[Turn]]:
    return (turns[0].text, turns[1:]) if turns and turns[0].role == "system" else (default, turns)


_TEXT = (
    "{%- macro text(content) -%}"
    "{%- if content is string -%}{{ content }}{%- else -%}"
    "{%- for part in content -%}"
    "{%- if part['type'] == 'image' -%}{{ '<image>\\n' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)

TEMPLATES: dict[Prompt, str] = {
    "plain": _TEXT + "{%- for message in messages -%}{{ text(message['content']) | replace('<image>\\n', '<image>') }}"
    "{%- endfor -%}",
    "qwen_1_5": _TEXT + "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + text(message['content']) + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}",
    "vicuna_v1": _TEXT + "{%- if messages[0]['role'] != 'system' -%}{{ \"" + _VICUNA_SYSTEM + '" }}{%- endif -%}'
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ text(message['content']) }}"
    "{%- elif message['role'] == 'user' -%}{{ ' USER: ' + text(message['content']) + ' ASSISTANT:' }}"
    "{%- else -%}{{ ' ' + text(message['content']) + eos_token }}{%- endif -%}"
    "{%- endfor -%}",
}
"""Chat templates (Jinja) that give the same text; a test holds them to `pieces`."""

STOPS: dict[Prompt, str | None] = {"plain": "\n", "qwen_1_5": "<|im_end|>", "vicuna_v1": None}
"""The text whose token ends an answer; None: the tokenizer's own end."""
