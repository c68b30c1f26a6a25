"""Conversations become the tokens of their written form, and only answers are learnt."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_parts import byte_tokenizer
from tokenizers import processors

from mllm.llava.conversation import IGNORED, Tokens, Writer
from mllm.llava.processor import prepare_tokenizer, stop_ids
from mllm.llava.prompts import TEMPLATES, Prompt, pieces
from mllm.llava.rows import Row, Turn

CHATS: tuple[Prompt, ...] = ("qwen_1_5", "vicuna_v1")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="<>|"), min_size=1, max_size=30).filter(str.strip)


def writer(prompt: Prompt) -> Writer:
    tokenizer = prepare_tokenizer(byte_tokenizer(), prompt)
    return Writer(tokenizer=tokenizer, image_id=tokenizer.convert_tokens_to_ids("<image>"), prompt=prompt)


def conversation(*texts: str, system: str | None = None) -> tuple[Turn, ...]:
    roles = ("user", "assistant")
    turns = tuple(Turn(roles[place % 2], text) for place, text in enumerate(texts))  # type: ignore[arg-type]
    return turns if system is None else (Turn("system", system), *turns)


def written(turns: tuple[Turn, ...], prompt: Prompt, end: str = "<|endoftext|>") -> str:
    return "".join(piece.text for piece in pieces(turns, prompt, end=end))


def test_chatml_is_qwens_own_text() -> None:
    assert written(conversation("<image>\nWhat?", "A cat."), "qwen_1_5") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
    )


def test_vicunas_prompt_is_llavas_own_text() -> None:
    said = written(conversation("<image>\nWhat?", "A cat.", "Sure?", "Yes."), "vicuna_v1", end="</s>")
    assert said.endswith(
        "answers to the user's questions. USER: <image>\nWhat? ASSISTANT: A cat.</s> USER: Sure? ASSISTANT: Yes.</s>"
    )


def test_stage_one_is_the_picture_and_the_caption() -> None:
    row = Row(id="0", turns=conversation("<image>\nDescribe it.", "A cat."))
    tokens = writer("plain").text_only(row)
    text = writer("plain").tokenizer
    assert tokens.ids[0] == writer("plain").image_id
    assert text.decode([label for label in tokens.labels if label != IGNORED]) == "A cat.\n"
    assert tokens.labels[0] == IGNORED


@pytest.mark.parametrize("prompt", CHATS)
@given(texts=st.lists(TEXTS, min_size=2, max_size=6), system=st.none() | TEXTS)
def test_only_answers_and_their_end_are_learnt(prompt: Prompt, texts: list[str], system: str | None) -> None:
    turns = conversation(*texts[: len(texts) // 2 * 2], system=system)
    made = writer(prompt)
    tokens = made.text_only(Row(id="0", turns=turns))
    end = {"qwen_1_5": "<|im_end|>", "vicuna_v1": "<|endoftext|>"}[prompt]
    space = {"qwen_1_5": "", "vicuna_v1": " "}[prompt]
    learnt = made.tokenizer.decode([label for label in tokens.labels if label != IGNORED])
    assert learnt == "".join(f"{space}{turn.text}{end}" for turn in turns if turn.role == "assistant")
    assert all(label in (IGNORED, id_) for id_, label in zip(tokens.ids, tokens.labels, strict=True))


@pytest.mark.parametrize("prompt", CHATS)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_chat_template_writes_what_training_saw(prompt: Prompt, system: str | None) -> None:
    tokenizer = prepare_tokenizer(byte_tokenizer(), prompt)
    turns = conversation("<image>\nWhat?", "A cat.", "Sure?", "Yes.", system=system)
    messages: list[dict[str, Any]] = []
    for turn in turns:
        parts = [{"type": "image"}] if "<image>" in turn.text else []
        text = turn.text.removeprefix("<image>\n")
        messages.append({"role": turn.role, "content": [*parts, {"type": "text", "text": text}]})
    said = tokenizer.apply_chat_template(messages, chat_template=TEMPLATES[prompt], tokenize=False)
    assert said == written(turns, prompt)
    asked = tokenizer.apply_chat_template(
        messages[:-1], chat_template=TEMPLATES[prompt], tokenize=False, add_generation_prompt=True
    )
    assert written(turns, prompt).startswith(asked)
    assert written(turns, prompt).removeprefix(asked).strip().startswith("Yes.")


def test_each_mark_becomes_as_many_image_tokens_as_its_picture_has() -> None:
    made = writer("qwen_1_5")
    row = Row(id="0", turns=conversation("<image><image>\nWhich?", "The second."))
    tokens = made.text_only(row)
    whole = made.expand(tokens, [3, 5])
    assert whole.ids.count(made.image_id) == 8
    assert [id_ for id_ in whole.ids if id_ != made.image_id] == [id_ for id_ in tokens.ids if id_ != made.image_id]
    assert [label for label in whole.labels if label != IGNORED] == [
        label for label in tokens.labels if label != IGNORED
    ]


def test_an_answer_ends_at_the_prompts_end() -> None:
    tokenizer = prepare_tokenizer(byte_tokenizer(), "qwen_1_5")
    ends = {tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id}
    assert set(stop_ids(tokenizer, "qwen_1_5")) == ends
    assert len(Tokens([1, 2, 3], [1, 2, 3]).cut(2)) == 2


def test_texts_begin_with_the_token_that_the_tokenizer_puts_first_by_itself() -> None:
    tokenizer = prepare_tokenizer(byte_tokenizer(), "vicuna_v1")
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    start = tokenizer.bos_token_id
    made = Writer(tokenizer=tokenizer, image_id=tokenizer.convert_tokens_to_ids("<image>"), prompt="vicuna_v1")
    row = Row(id="0", turns=conversation("What?", "A cat."))
    assert start not in made.text_only(row).ids  # known, but not put first
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    tokens = made.text_only(row)
    assert (tokens.ids[0], tokens.labels[0]) == (start, IGNORED)
    assert tokens.ids == tokenizer.encode(written(row.turns, "vicuna_v1"))
